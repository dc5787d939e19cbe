"""From a request and the facts of the machine to everything that has to be written.

Pure: what comes out depends only on what goes in, so a plan can be made, looked at and
thrown away. Nothing here talks to the kernel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from xdplb import wire
from xdplb.errors import InvalidValueError
from xdplb.model import (
    ALL_PORTS,
    DEFAULT_MAX_FLOWS,
    IPV4,
    MAX_BACKENDS,
    Address,
    Backend,
    BackendState,
    Hash,
    Mode,
    PortRange,
    Protocol,
)
from xdplb.ports import NatPool, SlotRange, assign_groups, cut_groups, make_pool
from xdplb.selection import MAGLEV_SIZE, address_hash, build_table, select_slot
from xdplb.wire import BackendCode, BackendRecord, ClientKey, ClientValue, FlowCode

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping, Sequence

    from xdplb.facts import Neighbour
    from xdplb.model import Request, Reservation

MIN_BACKENDS: Final = 256
MIN_CLIENT_COUNTERS: Final = 1024
FLOWS_PER_COUNTER: Final = 4
_REFRESH_TICKS: Final = 16
BUCKET_STEPS: Final = 8
MAX_NEIGHBOURS: Final = 1024
BACKEND_CODES: Final = {
    BackendState.UP: BackendCode.UP,
    BackendState.DRAIN: BackendCode.DRAIN,
    BackendState.DOWN: BackendCode.DOWN,
}
_HASH_NUMBER: Final = {Hash.SRC_DST: 0, Hash.FIVE_TUPLE: 1, Hash.SRC: 2}


Target: TypeAlias = tuple[Protocol, Backend]
"""A backend as the one that answers a protocol."""

Place: TypeAlias = tuple[Protocol, Address]
"""What has a part of ``reverse_lookup`` to itself."""


@dataclass(frozen=True, slots=True)
class Port:
    """An interface that the program is to sit on.

    Attributes:
        mac: Six bytes.
        redirect: A packet leaves by bpf_redirect(), not XDP_TX.
        mtu: Bytes of the largest IP packet that leaves.
    """

    name: str
    index: int
    mac: bytes
    mode: Mode
    redirect: bool
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class Hop:
    """The way to a backend.

    Attributes:
        slot: Which of the balancer's interfaces, from 0.
        ifindex: Where the kernel asks for the next hop: that interface, or a VLAN on it.
        tag: That of the VLAN.
    """

    next_hop: Address
    slot: int
    ifindex: int = 0
    tag: bytes = wire.NO_TAG


@dataclass(frozen=True, slots=True)
class Facts:
    """What the machine says, for one IP version.

    Attributes:
        service: The address that clients dial, of that version.
        hops: The way to each backend address.
        ephemeral: ``ip_local_port_range``.
        hash_keys: Two secret 64-bit numbers.
        records: The ``backends`` map of the balancer that is being replaced, by number.
        nat_ports: The NAT ports of that balancer.
        capacity: How many flows it has room for.
    """

    service: Address
    ports: tuple[Port, ...]
    hops: Mapping[Address, Hop]
    ephemeral: PortRange
    hash_keys: tuple[int, int]
    records: Sequence[BackendRecord] = ()
    nat_ports: tuple[PortRange, ...] = ()
    capacity: int | None = None


@dataclass(frozen=True, slots=True)
class ReservedFlow:
    """A reservation as it goes into the two maps."""

    key: ClientKey
    value: ClientValue
    index: int
    flow: wire.FlowRecord


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the maps and the compiler are to get, for one IP version.

    Attributes:
        records: The ``backends`` map, by number; numbers without a backend are UNUSED.
        capacity: Records of ``reverse_lookup``.
        room: Records of ``backends``.
    """

    request: Request
    facts: Facts
    pool: NatPool
    capacity: int
    room: int
    records: tuple[BackendRecord, ...]
    slots: Mapping[Place, SlotRange]
    next_hops: Mapping[Address, int]
    tables: Mapping[Protocol, array[int]]
    reserved: tuple[ReservedFlow, ...]
    numbers: Mapping[Target, int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The IP version."""
        return self.facts.service.version

    @property
    def client_limit(self) -> int:
        """How many flows one client may have; 0 for as many as it likes."""
        asked = self.request.max_client_flows
        return self.pool.size // 2 if asked is None else asked

    @property
    def client_counters(self) -> int:
        """Counters in each row of ``client_flows``, a power of two.

        It depends on nothing that ``up`` can change: the counters of a running balancer go on.
        """
        return max(MIN_CLIENT_COUNTERS, 1 << (self.capacity // FLOWS_PER_COUNTER - 1).bit_length())

    @property
    def client_window(self) -> int:
        """How many records a client's flows are spread over; 0 for all of a backend's."""
        window = 2 * self.client_limit
        return window if window < min(self.pool.size, self.capacity) - 1 else 0

    def interface_records(self) -> list[bytes]:
        """The ``interfaces`` map, by slot."""
        return [
            wire.InterfaceRecord(port.mac, port.index, port.redirect, port.mtu).pack()
            for port in self.facts.ports
        ]

    def buckets(self) -> list[wire.AddressBucket]:
        """The ``backend_ports`` map: where the program looks an address up.

        Raises:
            InvalidValueError: So many addresses share a hash that it would not find one.
        """
        found: list[list[tuple[Address, Protocol, int, int]]] = [[] for _ in range(self.room)]
        continues = [False] * self.room
        for (protocol, address), slots in self.slots.items():
            bucket = address_hash(address) % self.room
            for _ in range(BUCKET_STEPS):
                if len(found[bucket]) < wire.BUCKET_SIZE:
                    found[bucket].append((address, protocol, slots.first, slots.count))
                    break
                continues[bucket] = True
                bucket = (bucket + 1) % self.room
            else:
                raise InvalidValueError(
                    f"backend {address} has no place in a table of {self.room} buckets",
                    "its hash is that of too many others; give it another address",
                )
        return [
            wire.AddressBucket(tuple(entries), more, self.version)
            for entries, more in zip(found, continues, strict=True)
        ]


def make_plan(request: Request, facts: Facts) -> Plan:
    """Decide numbers, port ranges, the table and the reserved flows.

    What in the request is of another IP version than ``facts.service`` is left out.

    Raises:
        InvalidValueError: The request does not fit the machine.
    """
    pool = make_pool(request.nat_ports or facts.nat_ports, facts.ephemeral)
    capacity = request.max_flows or facts.capacity or DEFAULT_MAX_FLOWS
    groups = cut_groups(capacity, pool.size)
    version = facts.service.version
    targets = [
        (protocol, backend)
        for protocol in request.protocols
        for backend in request.backends
        if backend.address.version == version
    ]
    numbers = _number(targets, facts.records)
    kept = {
        (record.protocol, record.address): SlotRange(record.slot_first, record.slot_count)
        for record in facts.records
    }
    wanted = [(protocol, backend.address) for protocol, backend in targets]
    slots = {**kept, **assign_groups(wanted, groups, kept)}
    records = _records(facts, numbers, slots)
    room = _room(len(records))
    tables = {
        protocol: build_table(
            [
                (number, backend)
                for (one, backend), number in numbers.items()
                if one is protocol and backend.state is BackendState.UP
            ]
        )
        for protocol in request.protocols
    }
    return Plan(
        request=request,
        facts=facts,
        pool=pool,
        capacity=capacity,
        room=room,
        records=records,
        slots=slots,
        next_hops=_heads(records),
        tables=tables,
        reserved=tuple(
            _reserve(item, protocol, request, facts, pool, records, table)
            for protocol, table in tables.items()
            for item in request.reservations
            if item.client.address.version == version
        ),
        numbers=numbers,
    )


def with_macs(plan: Plan, neighbours: Mapping[tuple[int, Address], Neighbour]) -> Plan:
    """The plan again, with the MAC addresses that the kernel knows by now.

    Args:
        plan: What is to run.
        neighbours: By interface index and address.
    """
    records = list(plan.records)
    for (_, backend), number in plan.numbers.items():
        record = records[number]
        hop = plan.facts.hops[backend.address]
        there = neighbours.get((hop.ifindex, record.next_hop))
        if there is not None and there.mac is not None:
            records[number] = record._replace(mac=there.mac, mac_is_fixed=there.is_permanent)
    return replace(plan, records=tuple(records))


def _room(wanted: int) -> int:
    """How many backends to make room for: twice as many as there are, at least 256.

    Raises:
        InvalidValueError: More than there can be.
    """
    if wanted > MAX_BACKENDS:
        raise InvalidValueError(
            f"{wanted} backends are too many", f"one balancer serves up to {MAX_BACKENDS}"
        )
    room = MIN_BACKENDS
    while room < min(2 * wanted, MAX_BACKENDS):
        room *= 2
    return room


def _number(targets: Sequence[Target], records: Sequence[BackendRecord]) -> dict[Target, int]:
    """Numbers for backends: an old one keeps its own, a new one takes the first that is unused."""
    old = {
        (record.protocol, record.address, record.port): number
        for number, record in enumerate(records)
        if record.state is not BackendCode.UNUSED
    }
    numbers = {}
    for target in targets:
        protocol, backend = target
        number = old.get((protocol, backend.address, backend.port))
        if number is not None:
            numbers[target] = number
    taken = set(numbers.values())
    free = (number for number in range(len(records) + len(targets)) if number not in taken)
    for target in targets:
        if target not in numbers:
            numbers[target] = next(free)
    return {target: numbers[target] for target in targets}


def _records(
    facts: Facts,
    numbers: Mapping[Target, int],
    slots: Mapping[Place, SlotRange],
) -> tuple[BackendRecord, ...]:
    """The ``backends`` map. A number that changes hands gets another generation."""
    by_number = {number: target for target, number in numbers.items()}
    count = max([*by_number, len(facts.records) - 1]) + 1
    records: list[BackendRecord] = []
    for number in range(count):
        old = facts.records[number] if number < len(facts.records) else None
        target = by_number.get(number)
        if target is None:
            records.append(facts.records[number]._replace(state=BackendCode.UNUSED))
            continue
        protocol, backend = target
        hop = facts.hops[backend.address]
        group = slots[protocol, backend.address]
        wanted = (protocol, backend.address, backend.port)
        # One that was away meanwhile is another one: its flows have gone elsewhere.
        is_same = (
            old is not None
            and old.state is not BackendCode.UNUSED
            and (old.protocol, old.address, old.port) == wanted
        )
        generation = 0 if old is None else old.generation + (0 if is_same else 1)
        records.append(
            BackendRecord(
                mac=old.mac if is_same and old is not None else None,
                address=backend.address,
                port=backend.port,
                state=BACKEND_CODES[backend.state],
                generation=generation & 0xFF,
                slot_first=group.first,
                slot_count=group.count,
                interface=hop.slot,
                weight=backend.weight,
                next_hop=hop.next_hop,
                next_neighbour=wire.NO_INDEX,
                mac_is_fixed=False,
                protocol=protocol,
                tag=hop.tag,
            )
        )
    return tuple(_chain(records))


def _chain(records: list[BackendRecord]) -> list[BackendRecord]:
    """Link the backends behind each next hop, the highest number first.

    Raises:
        InvalidValueError: More backends are behind one than the program follows.
    """
    hops = Counter(record.next_hop for record in records if record.state is not BackendCode.UNUSED)
    for hop, count in hops.items():
        if count > MAX_NEIGHBOURS:
            raise InvalidValueError(
                f"{count} backends behind the next hop {hop} are too many",
                f"one next hop serves up to {MAX_NEIGHBOURS}",
            )
    last: dict[Address, int] = {}
    chained = []
    for number, record in enumerate(records):
        if record.state is BackendCode.UNUSED:
            chained.append(record)
            continue
        chained.append(record._replace(next_neighbour=last.get(record.next_hop, wire.NO_INDEX)))
        last[record.next_hop] = number
    return chained


def _heads(records: Sequence[BackendRecord]) -> dict[Address, int]:
    """Where the chain of each next hop starts."""
    return {
        record.next_hop: number
        for number, record in enumerate(records)
        if record.state is not BackendCode.UNUSED
    }


def _reserve(  # noqa: PLR0913 - all that a reservation depends on
    item: Reservation,
    protocol: Protocol,
    request: Request,
    facts: Facts,
    pool: NatPool,
    records: Sequence[BackendRecord],
    table: array[int],
) -> ReservedFlow:
    """The two records of a reservation.

    Raises:
        InvalidValueError: Its port is not one that flows can get.
    """
    offset = pool.offset(item.nat_port)
    if offset is None:
        raise InvalidValueError(
            f"--client {item}: port {item.nat_port} is not one of the NAT ports",
            f"they are {pool}; --nat-ports changes that",
        )
    client = (item.client.address, item.client.port)
    slot = select_slot(request.hash, facts.hash_keys, client, (facts.service, 0), protocol)
    number = table[slot]
    record = records[number]
    if offset >= record.slot_count:
        raise InvalidValueError(
            f"--client {item}: room for {record.slot_count} flows is too few for port "
            f"{item.nat_port}",
            f"this port needs --max-flows {offset + 1} or more",
        )
    return ReservedFlow(
        key=ClientKey(item.client.address, item.client.port, facts.service, 0, protocol),
        value=ClientValue(item.nat_port, number),
        index=record.slot_first + offset,
        flow=wire.FlowRecord(
            owner=wire.Owner(0, number, FlowCode.RESERVED, record.generation),
            client=item.client.address,
            client_port=item.client.port,
            service_port=0,
            client_mac=None,
            interface=0,
        ),
    )


def constants(plan: Plan, *, shares_ports: bool) -> list[str]:
    """The compiler's ``-D`` flags: only numbers, and ranges of numbers.

    Args:
        plan: What is to run.
        shares_ports: Some of the service's ports may be the host's own.
    """
    request, ports = plan.request, plan.facts.ports
    service_ports = " ".join(f"RANGE({item.first}, {item.last})" for item in request.ports)
    if request.ports == ALL_PORTS:
        service_ports = "RANGE(0, 65535)"
    ranges = []
    start = 0
    for item in plan.pool.ranges:
        ranges.append(f"RANGE({item.first}, {item.last}, {start})")
        start += item.count
    timeouts = request.timeouts
    unreplied, answered, transitory, established = (
        max(round(seconds * wire.TICKS_PER_S), 1)
        for seconds in (
            timeouts.unreplied,
            timeouts.answered,
            timeouts.transitory,
            timeouts.established,
        )
    )
    shortest = min(unreplied, answered, transitory, established)
    values = {
        "MODE_GENERIC": int(ports[0].mode is Mode.GENERIC),
        "TRANSMIT_REDIRECT": int(ports[0].redirect),
        "INTERFACE_COUNT": len(ports),
        "HAVE_UDP": int(Protocol.UDP in request.protocols),
        "HAVE_TCP": int(Protocol.TCP in request.protocols),
        **_service_words(plan.facts.service),
        "SERVICE_PORTS(RANGE)": service_ports,
        "SERVICE_SHARES_PORTS": int(shares_ports),
        "SERVICE_HASH": _HASH_NUMBER[request.hash],
        "HASH_KEY_0": f"{plan.facts.hash_keys[0]}ULL",
        "HASH_KEY_1": f"{plan.facts.hash_keys[1]}ULL",
        "MAGLEV_SIZE": MAGLEV_SIZE,
        "NAT_PORTS(RANGE)": " ".join(ranges),
        "HAVE_VLAN": int(request.vlan),
        "HAVE_RESERVATIONS": int(bool(plan.reserved)),
        "MAX_BACKENDS": plan.room,
        "UNREPLIED_TICKS": unreplied,
        "ANSWERED_TICKS": answered,
        "TRANSITORY_TICKS": transitory,
        "ESTABLISHED_TICKS": established,
        "CLIENT_LIMIT": plan.client_limit,
        "CLIENT_COUNTERS": plan.client_counters,
        "CLIENT_WINDOW": plan.client_window,
        "REFRESH_TICKS": max(min(_REFRESH_TICKS, shortest // 4), 1),
    }
    return [f"-D{name}={value}" for name, value in values.items()]


def _service_words(service: Address) -> dict[str, str]:
    """The service's address as the program loads it: one word of 32 bits, or two of 64."""
    size = 4 if service.version == IPV4 else 8
    packed = service.packed
    return {
        f"SERVICE_WORD_{at // size}": f"{int.from_bytes(packed[at : at + size], 'little')}ULL"
        for at in range(0, len(packed), size)
    }


def shares_ports(ports: Sequence[PortRange], ephemeral: PortRange) -> bool:
    """Whether the host's own connections may have one of the service's ports."""
    return any(item.first <= ephemeral.last and ephemeral.first <= item.last for item in ports)
