"""Requests of all kinds, for properties."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from xdplb.checks import (
    BelowMinimum,
    DnsCheck,
    ExecCheck,
    Health,
    HttpCheck,
    IcmpCheck,
    TcpCheck,
    UdpCheck,
)
from xdplb.errors import InvalidValueError
from xdplb.model import (
    ALL_PORTS,
    IPV4,
    IPV6,
    Backend,
    BackendState,
    Endpoint,
    Hash,
    Mode,
    OnDown,
    PortRange,
    Protocol,
    Reservation,
    Timeouts,
)
from xdplb.request import Request, Service

if TYPE_CHECKING:
    from xdplb.model import Address

PORTS = st.integers(1, 65535)
_SECONDS = st.integers(1, 86400)
_CODES = st.integers(100, 599).map(str)
_RANGES = st.tuples(_CODES, _CODES).map(lambda ends: "-".join(sorted(ends)))
_TEXT = st.text(max_size=8)
_ARGUMENTS = st.from_regex(r"/[!-~ ]{1,8}", fullmatch=True)
_PAYLOADS = (
    st.binary(max_size=8)
    | _TEXT.map(str.encode)
    | st.from_regex(rb"\\{0,3}0x[0-9a-g ]{0,4}", fullmatch=True)
)
_CHECKS = st.one_of(
    st.none(),
    st.just(IcmpCheck()),
    st.just(TcpCheck()),
    st.builds(
        HttpCheck,
        tls=st.booleans(),
        path=st.from_regex(r"/[a-z0-9?=&/._-]{0,8}", fullmatch=True),
        host=st.from_regex(r"[a-z0-9.]{0,8}", fullmatch=True),
        status=st.lists(_CODES | _RANGES, min_size=1, max_size=3).map(",".join),
        body=_TEXT,
        verify=st.booleans(),
    ),
    st.builds(UdpCheck, _PAYLOADS, _PAYLOADS),
    st.builds(
        DnsCheck,
        st.from_regex(r"[a-z0-9]{1,8}(\.[a-z]{1,4})?", fullmatch=True),
        st.sampled_from(["A", "AAAA", "TYPE65"]),
    ),
    st.builds(ExecCheck, st.lists(_ARGUMENTS, min_size=1, max_size=3).map(tuple)),
)
HEALTHS = st.builds(
    Health,
    check=_CHECKS,
    port=st.none() | PORTS,
    interval=st.floats(0.1, 3600) | st.integers(1, 3600),
    timeout=st.floats(0.01, 3600),
    rise=st.integers(1, 1000),
    fall=st.integers(1, 1000),
    jitter=st.floats(0, 0.9),
    passive=st.booleans(),
    min_healthy=st.integers(0, 65535),
    below=st.sampled_from(BelowMinimum),
)


def _hosts(version: int, network: int) -> st.SearchStrategy[Address]:
    """Addresses of a few hosts; those of different networks are never the same."""
    numbers = st.integers(1, 6)
    if version == IPV4:
        return numbers.map(lambda number: IPv4Address("192.0.2.0") + 16 * network + number)
    return numbers.map(lambda number: IPv6Address(f"2001:db8:{network}::") + number)


@st.composite
def _ports(draw: st.DrawFn) -> tuple[PortRange, ...]:
    """Ranges that do not overlap, in any order."""
    firsts = sorted(draw(st.sets(PORTS, min_size=1, max_size=3)))
    ranges = [
        PortRange(first, draw(st.just(first) | st.integers(first, after - 1)))
        for first, after in zip(firsts, [*firsts[1:], 65536], strict=True)
    ]
    return tuple(draw(st.permutations(ranges)))


@st.composite
def services(draw: st.DrawFn) -> Service:
    """One service."""
    version = draw(st.sampled_from([IPV4, IPV6]))
    protocol = draw(st.sampled_from(Protocol))
    some = _ports().filter(lambda ranges: ranges != ALL_PORTS)
    clients = st.builds(Endpoint, _hosts(version, 3), PORTS)
    return Service(
        backends=_backends(draw, version),
        address=draw(st.none() | _hosts(version, 0)),
        protocol=protocol,
        ports=draw(some if protocol is Protocol.TCP else st.just(ALL_PORTS) | some),
        hash=draw(st.sampled_from(Hash)),
        timeouts=draw(st.builds(Timeouts, _SECONDS, _SECONDS, _SECONDS, _SECONDS)),
        name=draw(st.sampled_from(["", "dns", "web"]) | _TEXT.filter(str.isprintable)),
        nat_addresses=tuple(draw(st.lists(_hosts(version, 2), max_size=2, unique=True))),
        reservations=tuple(
            draw(
                st.lists(
                    st.builds(Reservation, clients, PORTS),
                    max_size=2,
                    unique_by=(lambda item: item.client, lambda item: item.nat_port),
                )
            )
        ),
        on_down=draw(st.sampled_from(OnDown)),
        one_way=draw(st.booleans()),
        health=draw(st.none() | HEALTHS),
    )


def _backends(draw: st.DrawFn, version: int) -> tuple[Backend, ...]:
    some = st.builds(
        Backend,
        _hosts(version, 1),
        st.none() | PORTS,
        st.integers(0, 65535),
        st.sampled_from(BackendState),
    )
    return tuple(draw(st.lists(some, min_size=1, max_size=3, unique_by=lambda item: f"{item}")))


@st.composite
def _families(draw: st.DrawFn) -> list[Service]:
    """A service, and the same at other addresses, with the other protocol, or of the other kind."""
    first = draw(services())
    family = [first]
    for _ in range(draw(st.integers(0, 4))):
        like = draw(st.sampled_from(family))
        version = draw(st.sampled_from([IPV4, IPV6]))
        changes: dict[str, Any] = {} if version == like.version else _of_version(draw, version)
        address = None
        if first.address is not None:
            address = draw(_hosts(version, 0))
        protocol = draw(st.sampled_from(Protocol))
        if first.ports == ALL_PORTS:
            protocol = Protocol.UDP
        family.append(replace(like, address=address, protocol=protocol, **changes))
    return family


def _of_version(draw: st.DrawFn, version: int) -> dict[str, Any]:
    return {"backends": _backends(draw, version), "nat_addresses": (), "reservations": ()}


def _paths() -> st.SearchStrategy[Path]:
    """Absolute paths that can be printed."""
    return st.text().filter(str.isprintable).map(lambda text: Path("/" + text))


def _macs() -> st.SearchStrategy[str]:
    """MAC addresses of hosts."""
    return st.integers(1, (1 << 40) - 1).map(lambda number: (b"\x02" + number.to_bytes(5)).hex(":"))


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """A request whose services may be together, and are told apart by name."""
    chosen: list[Service] = []
    names: set[object] = set()
    for service in [one for family in draw(st.lists(_families(), max_size=3)) for one in family]:
        place = (service.name, service.version, service.address, service.protocol)
        if service.name and place in names:
            continue
        try:
            Request(("eth0",), (*chosen, service))
        except InvalidValueError:
            continue
        chosen.append(service)
        names.add(place)
    return Request(
        interfaces=tuple(draw(st.lists(st.text(min_size=1), min_size=1, max_size=2, unique=True))),
        services=tuple(chosen) or (draw(services()),),
        mode=draw(st.sampled_from(Mode)),
        max_flows=draw(st.none() | st.integers(1, 1 << 28)),
        nat_ports=draw(st.just(()) | _ports()),
        vlan=draw(st.booleans()),
        max_client_flows=draw(st.none() | st.integers(0, 1 << 28)),
        secret=draw(st.none() | _paths()),
        virtual_mac=tuple(draw(st.lists(_macs(), max_size=2, unique=True))),
    )
