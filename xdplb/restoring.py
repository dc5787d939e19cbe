"""From saved flows to the records of a balancer. Pure: nothing here talks to the kernel.

A flow keeps its NAT port and its backend, so that the servers see no difference. Service,
backend and NAT address are found by what they are, whatever their numbers are now; the
interface is found by its name, or is the only one.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from xdplb import wire
from xdplb.errors import InvalidValueError
from xdplb.ports import NatPool
from xdplb.saved import FLOW, Lane, Skip
from xdplb.saving import STATE_NAMES, STATES, idle_ticks, side_of
from xdplb.stream import ENDED
from xdplb.wire import BackendCode, FlowCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.facts import Running
    from xdplb.model import PortRange
    from xdplb.saved import Part, Saved
    from xdplb.state import Side
    from xdplb.wire import BackendRecord

_NS_PER_MS: Final = 10**6
_MS_PER_S: Final = 1000
IDENTITY: Final = 0xFF00FFFF00000000
"""Backend and generation in an owner word."""


class _Spot(NamedTuple):
    """Where the flows of a lane to one port of the service go.

    Attributes:
        owner: Backend and generation, as they lie in the owner word.
        first: Of the backend's records; ``room`` is how many they are.
        service: The address that is dialled, packed.
        value: What follows the NAT port in ``client_port``.
        limits: Idle milliseconds, by the place of the state in the file.
    """

    owner: int
    first: int
    room: int
    service: bytes
    protocol: int
    number: int
    value: bytes
    limits: Sequence[float]


@dataclass(slots=True)
class Batch:
    """Flows as they go into the maps, side by side.

    Attributes:
        indexes: In ``reverse_lookup``.
        owners: The owner words. The ``flows`` have others: they are only claimed.
        flows: Records of ``reverse_lookup``.
        keys: Of ``client_port``, and ``values`` too.
        clients: Their packed addresses.
    """

    indexes: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    flows: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    clients: list[bytes] = field(default_factory=list)

    def take(self, other: Batch, at: int) -> None:
        """Add a flow of another batch."""
        self.indexes.append(other.indexes[at])
        self.owners.append(other.owners[at])
        self.flows.append(other.flows[at])
        self.keys.append(other.keys[at])
        self.values.append(other.values[at])
        self.clients.append(other.clients[at])


def claimed(owner: int, now: int) -> int:
    """The word of a record that is being filled in, and will have ``owner``."""
    return owner & IDENTITY | FlowCode.CLAIMED << 48 | now & 0xFFFFFFFF


class Moment(NamedTuple):
    """When flows are restored.

    Attributes:
        now: In ticks.
        away_s: How long ago they were saved, in seconds; below 0 the clock makes no sense.
    """

    now: int
    away_s: float


class Destination:
    """Where the flows of one IP version are to go."""

    def __init__(  # noqa: PLR0913 - what is restored, and where and when
        self,
        running: Running,
        interfaces: Sequence[str],
        saved: Saved,
        part: Part,
        moment: Moment,
        *,
        rules: bool = False,
    ) -> None:
        """Look at the balancer, and at what has been saved.

        Args:
            running: The balancer; it balances the IP version.
            interfaces: Their names, by slot.
            saved: The file.
            part: Of the file, the flows.
            moment: When it is.
            rules: The flows are a peer's, which says also which have ended; those become FREE.

        Raises:
            InvalidValueError: The file has states of flows that nobody knows here.
        """
        state = running.state
        self._side = side = side_of(state, part.version)
        self._part = part
        self._records = records = running.records[part.version]
        self._away_ms = max(round(moment.away_s * _MS_PER_S), 0)
        self._now = moment.now
        self._codes = _codes(saved.states, rules=rules)
        self._slots = _slots(saved.interfaces, interfaces)
        self._ports = _offsets(state.nat_ports)
        self._numbers = _numbers(side, records)
        self._limits = idle_ticks(side)
        self._spots: dict[tuple[int, bytes], _Spot | Skip] = {}
        self.skipped: Counter[Skip] = Counter()

    def place(self, first: int, count: int, claimed_at: int) -> Batch:
        """Decide where some of the flows go; those that go nowhere are counted in ``skipped``.

        Args:
            first: The first flow.
            count: How many, if there are so many.
            claimed_at: The time in ticks when the records are claimed.
        """
        layout = FLOW[self._part.version]
        layouts = wire.LAYOUTS[self._part.version]
        pack_flow, pack_key = layouts["flow"].pack, layouts["client_key"].pack
        spots, ports, slots, codes = self._spots, self._ports, self._slots, self._codes
        away, now, skipped = self._away_ms, self._now, self.skipped
        claim = FlowCode.CLAIMED << 48 | claimed_at & 0xFFFFFFFF
        batch = Batch()
        part = self._part.flows[first * layout.size : (first + count) * layout.size]
        for flow in layout.iter_unpack(part):
            client, client_port, port, nat_port, lane, idle, state, interface, mac, tags = flow
            spot = spots.get((lane, port)) or self._find(lane, port)
            if isinstance(spot, Skip):
                skipped[spot] += 1
                continue
            owner, start, room, service, protocol, number, value, limits = spot
            idle += away
            if idle > limits[state]:
                skipped[Skip.TIMED_OUT] += 1
                continue
            offset = ports.get(nat_port, room)
            if offset >= room:
                skipped[Skip.PORT_GONE] += 1
                continue
            slot = slots[interface]
            if slot is None:
                skipped[Skip.INTERFACE_GONE] += 1
                continue
            seen = now - (idle * _NS_PER_MS + wire.TICK_NS // 2) // wire.TICK_NS & 0xFFFFFFFF
            batch.indexes.append(start + offset)
            batch.owners.append(owner | codes[state] << 48 | seen)
            batch.flows.append(
                pack_flow(owner | claim, mac, slot, number, tags, client, client_port, port)
            )
            batch.keys.append(pack_key(client, service, client_port, port, protocol, number))
            batch.values.append(nat_port + value)
            batch.clients.append(client)
        return batch

    def _find(self, lane: int, port: bytes) -> _Spot | Skip:
        lanes = self._part.lanes
        spot = (
            self._spot(lanes[lane], int.from_bytes(port, "big"))
            if lane < len(lanes)
            else Skip.BACKEND_GONE
        )
        self._spots[lane, port] = spot
        return spot

    def _spot(self, lane: Lane, port: int) -> _Spot | Skip:
        number = next(
            (
                item.number
                for item in self._side.services
                if (item.service.dialled, item.service.protocol) == (lane.service, lane.protocol)
                and any(port in ports for ports in item.service.ports)
            ),
            None,
        )
        if number is None:
            return Skip.SERVICE_GONE
        backend = (number, lane.backend, lane.port)
        if backend not in self._numbers:
            return Skip.BACKEND_GONE
        place = self._numbers[backend].get(lane.nat_address)
        if place is None:
            return Skip.NAT_ADDRESS_GONE
        record = self._records[place]
        return _Spot(
            owner=wire.Owner(0, place, FlowCode.FREE, record.generation).word(),
            first=record.slot_first,
            room=record.slot_count,
            service=lane.service.packed,
            protocol=lane.protocol.number,
            number=number,
            value=wire.ClientValue(0, place).pack()[2:],
            limits=[
                self._limits.get(number << 8 | code, math.inf) * wire.TICK_NS / _NS_PER_MS
                for code in self._codes
            ],
        )


def _codes(names: Sequence[str], *, rules: bool) -> list[FlowCode]:
    """The states with these names; a peer's flows can be in one more.

    Raises:
        InvalidValueError: There is none of that name.
    """
    known = dict(zip(STATE_NAMES, STATES, strict=True))
    if rules:
        known[ENDED] = FlowCode.FREE
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidValueError(
            f"saved flows have the state {unknown[0]!r}, which this xdplb does not know",
            "use the xdplb that saved them; nothing was changed",
        )
    return [known[name] for name in names]


def _slots(old: Sequence[str], new: Sequence[str]) -> list[int | None]:
    """The new slots of the old interfaces."""
    only = 0 if len(new) == 1 else None
    places = {name: slot for slot, name in enumerate(new)}
    return [places.get(name, only) for name in old]


@lru_cache(maxsize=1)
def _offsets(ranges: tuple[PortRange, ...]) -> dict[bytes, int]:
    """The places of the NAT ports in the pool."""
    ports = (port for item in NatPool(ranges).ranges for port in range(item.first, item.last + 1))
    return {wire.port_bytes(port): offset for offset, port in enumerate(ports)}


def _numbers(
    side: Side, records: Sequence[BackendRecord]
) -> dict[tuple[object, ...], dict[object, int]]:
    """Backend numbers, by service, address and port, and then by NAT address."""
    found: dict[tuple[object, ...], dict[object, int]] = {}
    for number, record in enumerate(records):
        if record.state is BackendCode.UNUSED or record.local >= len(side.addresses):
            continue
        backend = (record.service, record.address, record.port)
        found.setdefault(backend, {})[side.addresses[record.local]] = number
    return found


def is_free(owner: int, service: int, limits: Mapping[int, int], now: int) -> bool:
    """Whether a record may be given to a restored flow: it has none, or one that has timed out.

    Args:
        owner: Its owner word.
        service: The number of its service.
        limits: As ``saving.idle_ticks`` makes them.
        now: The time in ticks.
    """
    code = owner >> 48 & 0xFF
    if code in {FlowCode.FREE, FlowCode.RESERVED}:
        return code == FlowCode.FREE
    idle = now - owner & 0xFFFFFFFF
    ahead = idle >> 31  # another CPU has seen it a tick later than now
    return not ahead and idle > limits.get(service << 8 | code, 0)
