"""The table ``health``: its keys depend on the check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from xdplb.checks import DnsCheck, ExecCheck, Health, HttpCheck, IcmpCheck, TcpCheck, UdpCheck
from xdplb.config.tables import HealthTable
from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from xdplb.checks import Check

_HEX: Final = "0x"
_HTTP_KEYS: Final = ("path", "host", "status", "body", "verify")
_KEYS: Final = {
    "icmp": (),
    "tcp": (),
    "http": _HTTP_KEYS,
    "https": _HTTP_KEYS,
    "udp": ("send", "expect"),
    "dns": ("query", "type"),
    "exec": ("command",),
}
_NEEDED: Final = {"udp": "send", "dns": "query", "exec": "command"}


def health_from(table: HealthTable) -> Health:
    """What a table asks for.

    Raises:
        InvalidValueError: A key belongs to another check, or is missing, or has a value that
            cannot be meant.
    """
    return Health(
        check=_check_from(table),
        port=table.port,
        interval=table.interval,
        timeout=table.timeout,
        rise=table.rise,
        fall=table.fall,
        jitter=table.jitter,
        passive=table.passive,
        min_healthy=table.min_healthy,
        below=table.below_min,
    )


def _check_from(table: HealthTable) -> Check | None:
    mine = _KEYS.get(table.check or "", ())
    given = {
        key: getattr(table, key)
        for keys in _KEYS.values()
        for key in keys
        if getattr(table, key) is not None
    }
    for key in given:
        if key not in mine:
            owners = " and ".join(name for name, keys in _KEYS.items() if key in keys)
            raise InvalidValueError(
                f"{key} belongs to check {owners}, and this is check {table.check or 'none'}",
                f"leave {key} out, or name that check",
            )
    needed = _NEEDED.get(table.check or "")
    if needed is not None and needed not in given:
        raise InvalidValueError(f"check {table.check} needs {needed}", f"write {needed} = ...")
    return _made(table.check, given)


def _made(  # noqa: PLR0911 - one for each check
    name: str | None, given: dict[str, Any]
) -> Check | None:
    match name:
        case "icmp":
            return IcmpCheck()
        case "tcp":
            return TcpCheck()
        case "http" | "https":
            if "status" in given:
                given["status"] = f"{given['status']}"
            return HttpCheck(tls=name == "https", **given)
        case "udp":
            return UdpCheck(_bytes(given["send"]), _bytes(given.get("expect", "")))
        case "dns":
            return DnsCheck(given.pop("query"), **given)
        case "exec":
            return ExecCheck(tuple(given["command"]))
        case _:
            return None


def _bytes(text: str) -> bytes:
    """Text as UTF-8; behind ``0x``, the bytes that hexadecimal digits say.

    Raises:
        InvalidValueError: They are none.
    """
    if not text.startswith(_HEX):
        return text.encode()
    try:
        return bytes.fromhex(text.removeprefix(_HEX))
    except ValueError:
        raise InvalidValueError(
            f"{text!r} is not bytes in hexadecimal",
            "write two digits for each byte; text that begins with 0x has to be written so, too",
        ) from None


def _text(data: bytes) -> str:
    """The reverse of ``_bytes``."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"{_HEX}{data.hex()}"
    return text if text.isprintable() and not text.startswith(_HEX) else f"{_HEX}{data.hex()}"


def health_to(health: Health) -> HealthTable:
    """The table that asks for this."""
    return HealthTable(
        port=health.port,
        interval=health.interval,
        timeout=health.timeout,
        rise=health.rise,
        fall=health.fall,
        jitter=health.jitter,
        passive=health.passive,
        min_healthy=health.min_healthy,
        below_min=health.below,
        **_check_to(health.check),
    )


def _check_to(check: Check | None) -> dict[str, Any]:  # noqa: PLR0911 - one for each check
    match check:
        case IcmpCheck():
            return {"check": "icmp"}
        case TcpCheck():
            return {"check": "tcp"}
        case HttpCheck():
            plain = HttpCheck()
            keys = {
                key: value
                for key in _HTTP_KEYS
                if (value := getattr(check, key)) != getattr(plain, key)
            }
            return {"check": "https" if check.tls else "http", **keys}
        case UdpCheck():
            expect = {"expect": _text(check.expect)} if check.expect else {}
            return {"check": "udp", "send": _text(check.send), **expect}
        case DnsCheck():
            return {"check": "dns", "query": check.name, "type": check.type}
        case ExecCheck():
            return {"check": "exec", "command": list(check.command)}
        case _:
            return {}
