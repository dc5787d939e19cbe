"""From a request to the text of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import tomli_w
from msgspec import NODEFAULT, Struct, structs, to_builtins

from xdplb.checks import DnsCheck, ExecCheck, HttpCheck, IcmpCheck, TcpCheck, UdpCheck
from xdplb.config import tables
from xdplb.config.checking import NO_CHECK
from xdplb.config.payload import format_payload
from xdplb.model import ALL_PORTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from xdplb.checks import Health
    from xdplb.model import Backend, PortRange, Protocol
    from xdplb.request import Request, Service

_HEADER: Final = "# The configuration of xdplb, the UDP and TCP load balancer.\n\n"
_WIDTH: Final = 100


def dump(request: Request) -> str:
    """The text of a file that makes ``request``; what it does not say is the default.

    Services that one table can say become one.
    """
    groups = _groups(request.services)
    file = tables.File(
        balancer=tables.BalancerTable(
            interfaces=list(request.interfaces),
            mode=request.mode,
            max_flows=request.max_flows,
            max_client_flows=request.max_client_flows,
            nat_ports=_ports(request.nat_ports),
            vlan=request.vlan,
            secret=None if request.secret is None else f"{request.secret}",
            virtual_mac=_one_or_several(request.virtual_mac),
        ),
        service=[_service(group) for group in groups],
    )
    return _HEADER + _joined_lists(tomli_w.dumps(_sparse(file)))


def write_service(service: Service) -> dict[str, Any]:
    """The table of one service as plain values; what it does not say is the default."""
    return _sparse(_service((service,)))


def _sparse(table: Struct) -> dict[str, Any]:
    """A table without what is the default."""
    config = table.__struct_config__
    sparse: dict[str, Any] = {}
    if config.tag_field and config.tag != NO_CHECK:
        sparse[config.tag_field] = config.tag
    for field in structs.fields(table):
        value = getattr(table, field.name)
        default = field.default
        if field.default_factory is not NODEFAULT:
            default = field.default_factory()
        if value == default:
            continue
        if isinstance(value, Struct):
            sparse[field.encode_name] = _sparse(value)
        elif isinstance(value, list) and value and isinstance(value[0], Struct):
            sparse[field.encode_name] = [_sparse(one) for one in value]
        else:
            sparse[field.encode_name] = to_builtins(value)
    return sparse


def _joined_lists(text: str) -> str:
    """Put lists of plain values on one line each, where they are short enough.

    A line break inside of text is written as an escape, so that lines are never parts of text.
    """
    lines: list[str] = []
    rest = iter(text.removesuffix("\n").split("\n"))
    for line in rest:
        lines.append(line)
        if line.endswith(" = ["):
            items = _until_bracket(rest)
            short = f"{line}{', '.join(items)}]"
            if len(short) <= _WIDTH and not items[0].startswith("{"):
                lines[-1] = short
            else:
                lines += [*(f"    {one}," for one in items), "]"]
    return "\n".join(lines) + "\n"


def _until_bracket(lines: Iterator[str]) -> list[str]:
    """The items of a list, without the comma that ends each."""
    items = []
    for line in lines:
        if line == "]":
            break
        items.append(line.strip().removesuffix(","))
    return items


def _groups(services: Sequence[Service]) -> Iterator[Sequence[Service]]:
    """Cut services into runs that one table each can say."""
    start = 0
    while start < len(services):
        first, second = services[start], services[min(start + 1, len(services) - 1)]
        both = (first.protocol, second.protocol)
        length = max(_length(services, start, protocols) for protocols in (both[:1], both))
        yield services[start : start + length]
        start += length


def _length(services: Sequence[Service], start: int, protocols: tuple[Protocol, ...]) -> int:
    """How many services from ``start`` on are the same but for address, protocol and version."""
    if len(set(protocols)) < len(protocols):
        return 0
    common = _common(services[start])
    of_version: dict[int, tuple[object, ...]] = {}
    addresses: set[object] = set()
    at = start
    while at + len(protocols) <= len(services):
        part = services[at : at + len(protocols)]
        address = part[0].address or part[0].version
        own = of_version.setdefault(part[0].version, _own(part[0]))
        if (
            address in addresses
            or any(
                (one.address or one.version, _common(one), _own(one)) != (address, common, own)
                for one in part
            )
            or tuple(one.protocol for one in part) != protocols
        ):
            break
        addresses.add(address)
        at += len(protocols)
    return at - start


def _own(service: Service) -> tuple[object, ...]:
    """What one table says for each IP version."""
    return service.backends, service.nat_addresses, service.reservations


def _common(service: Service) -> tuple[object, ...]:
    """What one table says once for all its services."""
    return (
        service.name,
        service.address is None,
        service.ports,
        service.hash,
        service.timeouts,
        service.on_down,
        service.one_way,
        service.health,
    )


def _service(group: Sequence[Service]) -> tables.ServiceTable:
    first = group[0]
    of_version = {one.version: one for one in reversed(group)}
    versions = dict.fromkeys(one.version for one in group)
    each = [of_version[version] for version in versions]
    addresses = list(dict.fromkeys(f"{one.address}" for one in group if one.address is not None))
    protocols = list(dict.fromkeys(one.protocol for one in group))
    return tables.ServiceTable(
        name=first.name,
        address=_one_or_several(addresses),
        protocol=protocols if len(protocols) > 1 else protocols[0],
        ports=None if first.ports == ALL_PORTS else _ports(first.ports),
        hash=first.hash,
        on_down=first.on_down,
        one_way=first.one_way,
        nat_addresses=[f"{address}" for one in each for address in one.nat_addresses],
        clients=[f"{client}" for one in each for client in one.reservations],
        timeouts=tables.TimeoutsTable(
            unreplied=first.timeouts.unreplied,
            answered=first.timeouts.answered,
            transitory=first.timeouts.transitory,
            established=first.timeouts.established,
        ),
        backend=[_backend(backend) for one in each for backend in one.backends],
        health=None if first.health is None else _health(first.health),
    )


def _one_or_several(values: Sequence[str]) -> str | list[str] | None:
    """A value that may stand alone, where it does."""
    if not values:
        return None
    return list(values) if len(values) > 1 else values[0]


def _ports(ranges: Iterable[PortRange]) -> list[int | str]:
    return [one.first if one.first == one.last else f"{one}" for one in ranges]


def _backend(backend: Backend) -> tables.BackendTable:
    return tables.BackendTable(
        address=f"{backend.address}",
        port=backend.port,
        weight=backend.weight,
        state=backend.state.value,
    )


def _health(health: Health) -> tables.AnyHealth:  # noqa: PLR0911 - one for each kind
    common: dict[str, Any] = {
        "port": health.port,
        "interval": _number(health.interval),
        "timeout": _number(health.timeout),
        "rise": health.rise,
        "fall": health.fall,
        "jitter": _number(health.jitter),
        "passive": health.passive,
        "min_healthy": health.min_healthy,
        "below_min": health.below,
    }
    match health.check:
        case None:
            return tables.NoCheckTable(**common)
        case IcmpCheck():
            return tables.IcmpTable(**common)
        case TcpCheck():
            return tables.TcpTable(**common)
        case HttpCheck(tls=tls, path=path, host=host, status=status, body=body, verify=verify):
            kind = tables.HttpsTable if tls else tables.HttpTable
            return kind(
                path=path,
                host=host,
                status=int(status) if status.isdecimal() else status,
                body=body,
                verify=verify,
                **common,
            )
        case UdpCheck(send=send, expect=expect):
            return tables.UdpTable(
                send=format_payload(send), expect=format_payload(expect), **common
            )
        case DnsCheck(name=name, type=kind):
            return tables.DnsTable(query=name, type=kind, **common)
        case ExecCheck(command=command):
            return tables.ExecTable(command=list(command), **common)


def _number(value: float) -> float:
    """A number without a fraction as a whole one."""
    return int(value) if float(value).is_integer() else value
