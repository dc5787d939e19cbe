"""How it is found out whether a backend is healthy: what is asked, and when it counts.

Plain data with the rules it keeps by itself; ``xdplb.health`` does the asking.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from xdplb.errors import InvalidValueError

MAX_PORT: Final = 65535
MAX_DATAGRAM: Final = 65507
"""Bytes that a UDP datagram can carry in an IPv4 packet (RFC 768, RFC 791)."""

DEFAULT_STATUS: Final = "200-399"
FIRST_STATUS: Final = 100
LAST_STATUS: Final = 599
"""The codes that have a class (RFC 9110 15)."""

DNS_TYPES: Final = (
    *("A", "AAAA", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "LOC", "MX"),
    *("NAPTR", "NS", "PTR", "SOA", "SRV", "SSHFP", "SVCB", "TLSA", "TXT"),
)
LAST_DNS_TYPE: Final = 65535
MAX_LABEL: Final = 63
MAX_NAME: Final = 253
"""Characters of a name without its last dot, so that it fits into 255 bytes (RFC 1035 2.3.4)."""

_NUMBERED_TYPE: Final = re.compile(r"TYPE([0-9]{1,5})")
_STATUS: Final = re.compile(r"([0-9]{3})(?:-([0-9]{3}))?")
_PATH: Final = re.compile(r"/[!-~]*")


class BelowMinimum(StrEnum):
    """What happens when fewer backends are healthy than a service needs.

    FAIL_OPEN keeps the last set that was enough; FAIL_CLOSED takes them out all the same.
    """

    FAIL_OPEN = "fail-open"
    FAIL_CLOSED = "fail-closed"


@dataclass(frozen=True, slots=True)
class IcmpCheck:
    """An echo request, and the reply to it (RFC 792, RFC 4443)."""


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A connection that is made, and closed again."""


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET request (RFC 9110).

    Attributes:
        tls: By HTTPS.
        path: What is asked for.
        host: The Host header, and the name in TLS; empty for the backend's address.
        status: The codes that are good: ``200``, ``200-399``, or several with commas.
        body: What the answer has to contain; empty for anything.
        verify: The certificate must be good for ``host``.
    """

    tls: bool = False
    path: str = "/"
    host: str = ""
    status: str = DEFAULT_STATUS
    body: str = ""
    verify: bool = True

    def __post_init__(self) -> None:
        """Refuse what no server could be asked, or could never answer.

        Raises:
            InvalidValueError: With the value, the reason and what to do.
        """
        if not self.path.startswith("/"):
            raise InvalidValueError(
                f"HTTP path {self.path!r} does not begin with a slash",
                f"write {'/' + self.path!r}",
            )
        if not _PATH.fullmatch(self.path) or "#" in self.path:
            raise InvalidValueError(
                f"HTTP path {self.path!r} has a character that no path has",
                "write spaces and others as %20 (RFC 3986), and leave out what follows a '#'",
            )
        if any(not "!" <= letter <= "~" or letter in "/?#@" for letter in self.host):
            raise InvalidValueError(
                f"HTTP host {self.host!r} has a character that no host has",
                "give a name or an address, with a port behind a colon if it needs one; "
                "a name of other letters in its xn-- form",
            )
        _status_ranges(self.status)

    @property
    def name(self) -> str:
        """The host without its port and brackets, which is what a certificate is made for."""
        if self.host.startswith("["):
            return self.host[1:].partition("]")[0]
        return self.host.partition(":")[0] if self.host.count(":") == 1 else self.host

    def accepts(self, status: int) -> bool:
        """Whether an answer with this code is a good one."""
        return any(status in codes for codes in _status_ranges(self.status))


def _status_ranges(text: str) -> tuple[range, ...]:
    """The codes that ``text`` names.

    Raises:
        InvalidValueError: It is no list of codes and ranges of them.
    """
    found = []
    for item in text.split(","):
        codes = _STATUS.fullmatch(item.strip())
        if codes is None:
            raise InvalidValueError(
                f"HTTP status {text!r} is no list of codes",
                "write 200, or 200-399, or several with commas: 200,301-302",
            )
        first, last = int(codes[1]), int(codes[2] or codes[1])
        for code in (first, last):
            if not FIRST_STATUS <= code <= LAST_STATUS:
                raise InvalidValueError(
                    f"HTTP status {code} is out of range", f"it is {FIRST_STATUS} to {LAST_STATUS}"
                )
        if first > last:
            raise InvalidValueError(
                f"HTTP status {first}-{last} is empty",
                f"write the lower code first: {last}-{first}",
            )
        found.append(range(first, last + 1))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class UdpCheck:
    """A datagram, and an answer to it that contains ``expect``; empty for any answer."""

    send: bytes
    expect: bytes = b""

    def __post_init__(self) -> None:
        """Refuse what is too long to be sent.

        Raises:
            InvalidValueError: It fits into no datagram.
        """
        if len(self.send) > MAX_DATAGRAM:
            raise InvalidValueError(
                f"{len(self.send)} bytes to send do not fit into a datagram",
                f"it carries up to {MAX_DATAGRAM}",
            )


@dataclass(frozen=True, slots=True)
class DnsCheck:
    """A question over UDP, which must be answered with NOERROR and at least one record."""

    name: str
    type: str = "A"

    def __post_init__(self) -> None:
        """Refuse what cannot be asked for.

        Raises:
            InvalidValueError: With the value, the reason and what to do.
        """
        if any(not "!" <= letter <= "~" for letter in self.name) or not self.name:
            raise InvalidValueError(
                f"DNS name {self.name!r} is no name",
                "give one such as example.org; one of other letters in its xn-- form",
            )
        labels = self.name.removesuffix(".").split(".")
        if self.name != "." and not all(1 <= len(label) <= MAX_LABEL for label in labels):
            raise InvalidValueError(
                f"DNS name {self.name!r} has a part that is empty or too long",
                f"each part between dots has 1 to {MAX_LABEL} characters",
            )
        if len(self.name.removesuffix(".")) > MAX_NAME:
            raise InvalidValueError(
                f"DNS name of {len(self.name)} characters is too long", f"it has up to {MAX_NAME}"
            )
        numbered = _NUMBERED_TYPE.fullmatch(self.type.upper())
        if self.type.upper() not in DNS_TYPES and not (
            numbered and 1 <= int(numbered[1]) <= LAST_DNS_TYPE
        ):
            raise InvalidValueError(
                f"DNS type {self.type!r} is not known",
                f"it is one of {', '.join(DNS_TYPES)}, or TYPE and a number (RFC 3597)",
            )


@dataclass(frozen=True, slots=True)
class ExecCheck:
    """A command that ends with 0.

    It finds ``XDPLB_ADDRESS``, ``XDPLB_PORT`` and ``XDPLB_PROTOCOL`` in its environment.
    """

    command: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be run.

        Raises:
            InvalidValueError: There is no command, or an argument that none can have.
        """
        if not self.command or not self.command[0]:
            raise InvalidValueError(
                "the command of an exec check is empty", "give a program and its arguments"
            )
        if any("\0" in word for word in self.command):
            raise InvalidValueError(
                f"the command {self.command[0]!r} of an exec check has a zero byte",
                "no argument can have one; leave it out",
            )


Check: TypeAlias = IcmpCheck | TcpCheck | HttpCheck | UdpCheck | DnsCheck | ExecCheck


@dataclass(frozen=True, slots=True)
class Health:
    """How the backends of a service are watched.

    Attributes:
        check: What is asked; None to judge by the traffic alone.
        port: Where; None for the port that the backend serves.
        interval: Seconds from one check of a backend to the next.
        timeout: Seconds until no answer is a bad one.
        rise: Good answers in a row after which a backend takes traffic again.
        fall: Bad ones after which it takes none.
        jitter: By what part of it an interval may be shorter or longer.
        passive: A backend that is asked and stays silent while others answer is checked at once.
        min_healthy: How many backends the service needs.
        below: What happens when it has fewer.
    """

    check: Check | None = None
    port: int | None = None
    interval: float = 2.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    jitter: float = 0.1
    passive: bool = True
    min_healthy: int = 1
    below: BelowMinimum = BelowMinimum.FAIL_OPEN

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InvalidValueError: With the value, the reason and what to do.
        """
        for name, value, least, most in (
            ("interval", self.interval, 0.1, 3600),
            ("timeout", self.timeout, 0.01, 3600),
            ("rise", self.rise, 1, 1000),
            ("fall", self.fall, 1, 1000),
            ("jitter", self.jitter, 0, 0.9),
            ("min-healthy", self.min_healthy, 0, 65535),
        ):
            if not least <= value <= most:
                raise InvalidValueError(
                    f"health {name} {value} is out of range", f"it is {least} to {most}"
                )
        if self.port is not None and not 1 <= self.port <= MAX_PORT:
            raise InvalidValueError(
                f"health port {self.port} is out of range", f"ports are 1 to {MAX_PORT}"
            )

    @property
    def needs_port(self) -> bool:
        """Whether a backend can only be asked at a port."""
        return isinstance(self.check, TcpCheck | HttpCheck | UdpCheck | DnsCheck)
