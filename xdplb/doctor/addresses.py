"""What is to be thought of a balancer's addresses and ports, which the host could want, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xdplb.doctor.findings import Fix, Opinion, bad, good, poor
from xdplb.flags import shares_ports
from xdplb.model import IPV4, PortRange

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from xdplb.doctor.evidence import HostSocket, Owner
    from xdplb.model import Address, Protocol
    from xdplb.request import Service

_NEVER: Final = 8
"""arp_ignore: answer nobody; 1 and 2: only for addresses of the interface that is asked at."""

_ELSEWHERE: Final = frozenset({1, 2, _NEVER})
_ENOUGH_LEFT: Final = 4096
_MOST_NAMED: Final = 5


def address(
    item: Address,
    owner: Owner,
    on: Mapping[int, str],
    arp_ignore: Mapping[str, Mapping[str, int]],
) -> Opinion:
    """Whether packets to an address of the balancer come here.

    Args:
        item: The address.
        owner: Who has it.
        on: The balancer's interfaces, by their indexes.
        arp_ignore: The settings of that name that count for each of them, by the interface's name.
    """
    if owner.is_duplicate or (owner.other and owner.interface):
        return bad(
            f"another host has {item}, too" + (f", at {owner.other}" if owner.other else ""),
            hint="take it away from that host, or give the service another address",
        )
    if not owner.interface:
        return _absent(item, owner, next(iter(on.values())))
    for name in on.values():
        settings = {key: value for key, value in arp_ignore.get(name, {}).items() if value}
        if item.version == IPV4 and _is_deaf(max(settings.values(), default=0), owner, on):
            words = " ".join(f"{key}={value}" for key, value in settings.items())
            return bad(
                f"nobody who asks on {name} hears who has {item}: {words}",
                Fix(f"sysctl -w {' '.join(f'{key}=0' for key in settings)}", f"sysctl -w {words}"),
            )
    return good(f"{item} is on {owner.interface}")


def _is_deaf(value: int, owner: Owner, on: Mapping[int, str]) -> bool:
    return value == _NEVER or (value in _ELSEWHERE and owner.index not in on)


def _absent(item: Address, owner: Owner, name: str) -> Opinion:
    """An address that no interface of this host has."""
    if owner.other:
        return poor(
            f"another host has {item}, at {owner.other}, and this one has not",
            hint="that is right for a spare balancer, which gets the address when it takes over",
        )
    if owner.has_route:
        return poor(
            f"no interface has {item}, so only what a router sends here comes",
            hint=f"'ip address add {item}/LEN dev {name}' if clients are on the same network",
        )
    length = "LEN" if owner.length is None else owner.length
    return bad(
        f"no interface has {item} any more, and nobody answers for it",
        Fix(
            f"ip address add {item}/{length} dev {name}",
            f"ip address del {item}/{length} dev {name}",
        ),
    )


def nat_ports(
    pool: Sequence[PortRange], ephemeral: PortRange, reserved: Sequence[PortRange], text: str
) -> Opinion:
    """Whether the host takes NAT ports for its own connections.

    Args:
        pool: The balancer's.
        ephemeral: What the host takes.
        reserved: What it does not take of that (``ip_local_reserved_ports``).
        text: How that is written.
    """
    shared = _without(_common(pool, ephemeral), reserved)
    if not shared:
        return good(f"the host takes none of them, but {ephemeral}")
    words = ",".join(f"{item}" for item in shared)
    left = sum(item.count for item in _without((ephemeral,), [*reserved, *shared]))
    setting = "net.ipv4.ip_local_reserved_ports"
    fix = Fix(
        f"sysctl -w {setting}={','.join(filter(None, (text, words)))}",
        f"sysctl -w {setting}={text or chr(34) * 2}",
    )
    return poor(
        f"NAT ports {words} are also the host's own: answers to its connections with backends may "
        "go to clients",
        fix if left >= _ENOUGH_LEFT else None,
        hint="" if left >= _ENOUGH_LEFT else "take down the balancer and leave out --nat-ports",
    )


def _common(ranges: Iterable[PortRange], other: PortRange) -> list[PortRange]:
    return [
        PortRange(max(item.first, other.first), min(item.last, other.last))
        for item in ranges
        if item.first <= other.last and other.first <= item.last
    ]


def _without(ranges: Sequence[PortRange], holes: Iterable[PortRange]) -> list[PortRange]:
    left = list(ranges)
    for hole in holes:
        parts = []
        for item in left:
            if item.first < hole.first:
                parts.append(PortRange(item.first, min(item.last, hole.first - 1)))
            if item.last > hole.last:
                parts.append(PortRange(max(item.first, hole.last + 1), item.last))
        left = parts
    return left


def port_ranges(text: str) -> list[PortRange]:
    """Ranges as sysctls have them: ``8080,9148-9150``."""
    ends = [part.split("-") for part in text.strip().split(",") if part]
    return [PortRange(int(part[0]), int(part[-1])) for part in ends]


def talking(
    sockets: Iterable[HostSocket],
    backends: Collection[tuple[Address, Protocol]],
    pool: Sequence[PortRange],
) -> Opinion:
    """Whether the host itself talks with a backend from a port that flows may get."""
    for item in sockets:
        if item.remote is None or (item.remote.address, item.protocol) not in backends:
            continue
        if any(item.port in ports for ports in pool):
            return poor(
                f"a connection of the host with backend {item.remote} has the NAT port "
                f"{item.port}: if a flow gets that, the answers are mixed up",
                hint="let that program take its port from net.ipv4.ip_local_port_range",
            )
    return good("the host talks with no backend from a NAT port")


def sockets(
    services: Sequence[Service], found: Sequence[HostSocket], ephemeral: PortRange
) -> Opinion:
    """Whether programs of the host wait at ports that are balanced."""
    shared = shares_ports(services, ephemeral)
    ports = sorted(
        {
            (item.port, f"{service.protocol}")
            for service in services
            for item in found
            if item.port not in ephemeral and _waits_at(item, service)
        }
    )
    if not ports:
        return good("no program of the host waits at a port that is balanced")
    words = [f"{protocol} {port}" for port, protocol in ports[:_MOST_NAMED]]
    if len(ports) > _MOST_NAMED:
        words.append(f"{len(ports) - _MOST_NAMED} more")
    who = f"a program of the host waits at {', '.join(words)}, which is balanced"
    port, protocol = ports[0]
    return poor(
        f"{who}: it gets what comes there, no backend does"
        if shared
        else f"{who}: clients reach a backend, and no longer that program",
        hint=f"'ss -ln{protocol[0]}p sport = :{port}' tells which; let it wait elsewhere, or say "
        "which ports to balance with --port",
    )


def _waits_at(item: HostSocket, service: Service) -> bool:
    address = service.dialled
    is_mine = item.address == address or (
        item.address is None and (item.version == address.version or item.is_dual)
    )
    return (
        is_mine
        and item.remote is None
        and item.protocol is service.protocol
        and any(item.port in ports for ports in service.ports)
    )
