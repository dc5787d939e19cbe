"""From the records of a balancer to saved flows. Pure: nothing here talks to the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from xdplb import wire
from xdplb.ports import NatPool
from xdplb.saved import FLOW, MAX_IDLE_MS, Lane
from xdplb.wire import BackendCode, FlowCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xdplb.model import PortRange
    from xdplb.state import Side, State
    from xdplb.wire import BackendRecord

STATES: Final = tuple(
    code for code in FlowCode if code not in {FlowCode.FREE, FlowCode.CLAIMED, FlowCode.RESERVED}
)
"""Those that are saved."""

STATE_NAMES: Final = tuple(code.name.lower() for code in STATES)

LISTED: Final = (*STATES, FlowCode.RESERVED)
"""Those that are shown; ``LISTED_NAMES`` are their names."""

LISTED_NAMES: Final = tuple(code.name.lower() for code in LISTED)

_NS_PER_MS: Final = 10**6
_NO_PORT: Final = bytes(2)
_NEVER: Final = 1 << 32


def side_of(state: State, version: int) -> Side:
    """What a balancer has of an IP version that it balances."""
    return next(item for item in state.sides if item.version == version)


def idle_ticks(side: Side) -> dict[int, int]:
    """After how many idle ticks a record may be taken over.

    Args:
        side: The services of one IP version.

    Returns:
        By the number of the service, times 256, plus the state.
    """
    return {
        item.number << 8 | code: ticks
        for item in side.services
        for code, ticks in wire.idle_ticks(item.service.timeouts).items()
    }


class _Way(NamedTuple):
    """What the records of a backend have in common."""

    lane: int
    generation: int
    service: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Origin:
    """What the records of a balancer mean, of one IP version.

    Attributes:
        ways: By the number of the backend.
        ports: The NAT ports in network order, by their places in the pool.
        limits: As ``idle_ticks`` makes them.
        interfaces: How many there are.
    """

    version: int
    lanes: tuple[Lane, ...]
    ways: Mapping[int, _Way]
    ports: Sequence[bytes]
    limits: Mapping[int, int]
    interfaces: int


def origin(state: State, side: Side, records: Sequence[BackendRecord]) -> Origin:
    """Read the records of a balancer.

    Args:
        state: What it knows of itself.
        side: The same for the IP version.
        records: Its ``backends`` map.
    """
    lanes: dict[Lane, int] = {}
    ways = {}
    for number, record in enumerate(records):
        service = side.service(record.service)
        if (
            record.state is BackendCode.UNUSED
            or service is None
            or record.local >= len(side.addresses)
        ):
            continue
        nat_address = side.addresses[record.local]
        lane = Lane(service.dialled, service.protocol, record.address, record.port, nat_address)
        ways[number] = _Way(
            lanes.setdefault(lane, len(lanes)),
            record.generation,
            record.service,
            record.slot_first,
            record.slot_first + record.slot_count - 1,
        )
    return Origin(
        version=side.version,
        lanes=tuple(lanes),
        ways=ways,
        ports=_ports(state.nat_ports),
        limits=idle_ticks(side),
        interfaces=len(state.interfaces),
    )


@lru_cache(maxsize=1)
def _ports(ranges: tuple[PortRange, ...]) -> list[bytes]:
    return [
        wire.port_bytes(port)
        for item in NatPool(ranges).ranges
        for port in range(item.first, item.last + 1)
    ]


def pick(
    data: bytes, indexes: Iterable[int], origin: Origin, now: int, states: Mapping[int, int]
) -> bytes:
    """Choose the flows that have not timed out, and pack them as in a file.

    A record that a program takes over meanwhile had timed out, so it is left out whatever of it
    was copied before and what after.

    Args:
        data: Records of ``reverse_lookup``, whole.
        indexes: Theirs.
        origin: What they mean.
        now: The time in ticks.
        states: Those that are meant, each with its place in the description; reservations only if
            they have had a packet.
    """
    newest = now + wire.AHEAD_TICKS
    pack = FLOW[origin.version].pack
    ways, ports, interfaces = origin.ways, origin.ports, origin.interfaces
    reserved = {limit >> 8 << 8 | FlowCode.RESERVED: _NEVER for limit in origin.limits}
    limits = {**origin.limits, **reserved}
    found = []
    unpack = wire.LAYOUTS[origin.version]["flow"].iter_unpack
    for index, flow in zip(indexes, unpack(data), strict=False):
        owner, mac, interface, service, tags, client, client_port, service_port = flow
        code = owner >> 48 & 0xFF
        if code not in states:
            continue
        idle = newest - owner & 0xFFFFFFFF
        limit = limits.get(service << 8 | code)
        way = ways.get(owner >> 32 & 0xFFFF)
        if limit is None or idle > limit + wire.AHEAD_TICKS or way is None:
            continue
        lane, generation, of_service, start, end = way
        if owner >> 56 != generation or service != of_service or not start <= index <= end:
            continue
        if code == FlowCode.RESERVED and service_port == _NO_PORT:
            continue
        idle = max(idle - wire.AHEAD_TICKS, 0) * wire.TICK_NS // _NS_PER_MS
        found.append(
            pack(
                client,
                client_port,
                service_port,
                ports[index - start],
                lane,
                min(idle, MAX_IDLE_MS),
                states[code],
                min(interface, interfaces),
                mac,
                tags,
            )
        )
    return b"".join(found)
