"""From a request and the facts of the machine to everything that has to be written.

Pure: what comes out depends only on what goes in, so a plan can be made, looked at and
thrown away. Nothing here talks to the kernel.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from xdplb import wire
from xdplb.errors import InvalidValueError
from xdplb.matching import match_services
from xdplb.model import (
    DEFAULT_MAX_FLOWS,
    MAX_BACKENDS,
    MAX_PORT,
    Address,
    Backend,
    BackendState,
    Endpoint,
    Hash,
    Mode,
    OnDown,
    PortRange,
    Protocol,
    Timeouts,
)
from xdplb.ports import NatPool, SlotRange, assign_groups, cut_groups, make_pool
from xdplb.selection import address_hash, build_table, select_slot
from xdplb.state import Installed, Side
from xdplb.wire import BackendCode, BackendRecord, ClientKey, ClientValue, FlowCode

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping, Sequence

    from xdplb.facts import Neighbour
    from xdplb.model import Reservation
    from xdplb.request import Request, Service

_Item = TypeVar("_Item")

MIN_BACKENDS: Final = 256
MIN_CLIENT_COUNTERS: Final = 1024
FLOWS_PER_COUNTER: Final = 4
BUCKET_STEPS: Final = 8
LOCAL_STRIDE: Final = 40503
MAX_NEIGHBOURS: Final = 1024
TABLES_PER_SERVICE: Final = 2
HASH_NUMBERS: Final = {Hash.SRC_DST: 0, Hash.FIVE_TUPLE: 1, Hash.SRC: 2}

_CODES: Final = {BackendState.UP: BackendCode.UP, BackendState.DRAIN: BackendCode.DRAIN}
_STATES: Final = {
    BackendCode.UP: BackendState.UP,
    BackendCode.DRAIN: BackendState.DRAIN,
    BackendCode.DOWN: BackendState.DOWN,
    BackendCode.HELD: BackendState.DOWN,
}


def backend_code(state: BackendState, on_down: OnDown) -> BackendCode:
    """How a backend's state is written, where ``on_down`` says what its flows do without it."""
    without = BackendCode.HELD if on_down is OnDown.DROP else BackendCode.DOWN
    return _CODES.get(state, without)


def backend_state(code: BackendCode) -> BackendState:
    """The state that was written as ``code``, which is not UNUSED."""
    return _STATES[code]


def timeout_ticks(timeouts: Timeouts) -> tuple[int, int, int, int]:
    """Idle ticks of flows, in the program's order."""
    return (
        wire.ticks(timeouts.unreplied),
        wire.ticks(timeouts.answered),
        wire.ticks(timeouts.transitory),
        wire.ticks(timeouts.established),
    )


class Target(NamedTuple):
    """A backend as the program knows it: for one service, spoken to from one address.

    Attributes:
        service: The service's number.
        own: The balancer's address.
    """

    service: int
    backend: Backend
    own: Address


class Place(NamedTuple):
    """What has a part of ``reverse_lookup`` to itself; ``own`` is the balancer's address."""

    protocol: Protocol
    address: Address
    own: Address


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
        version: Of IP.
        hops: The way to each backend address.
        ephemeral: ``ip_local_port_range``.
        hash_keys: Two secret 64-bit numbers.
        side: What the balancer that is being replaced has of that version.
        records: Its ``backends`` map, by number.
        nat_ports: The NAT ports of that balancer.
        capacity: How many flows it has room for.
    """

    version: int
    ports: tuple[Port, ...]
    hops: Mapping[Address, Hop]
    ephemeral: PortRange
    hash_keys: tuple[int, int]
    side: Side | None = None
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
        services: Those of the IP version, with their numbers.
        addresses: The balancer's own, by number.
        records: The ``backends`` map, by number; numbers without a backend are UNUSED.
        capacity: Records of ``reverse_lookup``.
        room: Records of ``backends``.
        tables: The Maglev tables, by the numbers of the services.
    """

    request: Request
    facts: Facts
    services: tuple[Installed, ...]
    addresses: tuple[Address, ...]
    pool: NatPool
    capacity: int
    room: int
    records: tuple[BackendRecord, ...]
    slots: Mapping[Place, SlotRange]
    next_hops: Mapping[Address, int]
    tables: Mapping[int, array[int]]
    reserved: tuple[ReservedFlow, ...]
    numbers: Mapping[Target, int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The IP version."""
        return self.facts.version

    @property
    def side(self) -> Side:
        """What the balancer is to know of itself for this IP version."""
        return Side(self.version, self.room, self.addresses, self.services)

    @property
    def removed(self) -> tuple[Installed, ...]:
        """Services that run, and are no longer wanted: their flows end."""
        old = self.facts.side.services if self.facts.side else ()
        kept = match_services(
            [item.service for item in old], [item.service for item in self.services]
        ).values()
        return tuple(item for place, item in enumerate(old) if place not in kept)

    @property
    def has_many(self) -> bool:
        """Whether services are looked up; else all there is to know of them is a constant."""
        first = self.services[0].service
        return len(self.addresses) > 1 or any(
            item.number > 1
            or (item.service.ports, item.service.hash, item.service.timeouts)
            != (first.ports, first.hash, first.timeouts)
            for item in self.services
        )

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

    def service_records(self) -> dict[int, wire.ServiceRecord]:
        """The ``services`` map, by number, with the first Maglev table of each."""
        local = {address: number for number, address in enumerate(self.addresses)}
        return {
            item.number: wire.ServiceRecord(
                table=TABLES_PER_SERVICE * item.number,
                local=local[item.service.dialled],
                hash=HASH_NUMBERS[item.service.hash],
                timeouts=timeout_ticks(item.service.timeouts),
            )
            for item in self.services
        }

    def port_blocks(self) -> list[bytes]:
        """The ``service_ports`` map: for each address, and UDP and TCP, the services of ports."""
        blocks: list[bytes] = []
        for address in self.addresses:
            for protocol in (Protocol.UDP, Protocol.TCP):
                ports = bytearray([wire.NO_SERVICE]) * (MAX_PORT + 1)
                for item in self.services:
                    if (item.service.address, item.service.protocol) == (address, protocol):
                        for part in item.service.ports:
                            ports[part.first : part.last + 1] = bytes([item.number]) * part.count
                blocks += [
                    bytes(ports[at : at + wire.PORT_BLOCK])
                    for at in range(0, MAX_PORT + 1, wire.PORT_BLOCK)
                ]
        return blocks

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
        found: list[list[wire.BucketEntry]] = [[] for _ in range(self.room)]
        continues = [False] * self.room
        local = {address: number for number, address in enumerate(self.addresses)}
        for place, slots in self.slots.items():
            if place.own not in local:  # nobody answers to it any more
                continue
            address = place.address
            bucket = (address_hash(address) + local[place.own] * LOCAL_STRIDE) % self.room
            for _ in range(BUCKET_STEPS):
                if len(found[bucket]) < wire.BUCKET_SIZE:
                    found[bucket].append(
                        wire.BucketEntry(
                            address, place.protocol, local[place.own], slots.first, slots.count
                        )
                    )
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
    """Decide numbers, port ranges, the tables and the reserved flows.

    Services of another IP version than ``facts.version`` are left out.

    Args:
        request: Each of its services has an address.
        facts: What the machine says.

    Raises:
        InvalidValueError: The request does not fit the machine.
    """
    pool = make_pool(request.nat_ports or facts.nat_ports, facts.ephemeral)
    capacity = request.max_flows or facts.capacity or DEFAULT_MAX_FLOWS
    groups = cut_groups(capacity, pool.size)
    services = number_services(request.of(facts.version), facts.side.services if facts.side else ())
    addresses = _addresses(services, facts.side.addresses if facts.side else ())
    targets = [
        Target(item.number, backend, own)
        for item in services
        for backend in item.service.backends
        for own in item.service.own_addresses
    ]
    numbers = _number(targets, facts)
    kept = {
        Place(record.protocol, record.address, own): SlotRange(record.slot_first, record.slot_count)
        for record in facts.records
        if (own := _own_address(record, facts)) is not None
    }
    wanted = [
        Place(wire.protocol_of(item.service), item.backend.address, item.own) for item in targets
    ]
    slots = {**kept, **assign_groups(wanted, groups, kept)}
    records = _records(facts, services, addresses, numbers, slots)
    room = _room(len(records))
    tables = {item.number: _table(item, numbers) for item in services}
    reserved = tuple(
        _reserve(reservation, item, facts, pool, records, tables[item.number])
        for item in services
        for reservation in item.service.reservations
    )
    _refuse_shared(reserved)
    return Plan(
        request=request,
        facts=facts,
        services=services,
        addresses=addresses,
        pool=pool,
        capacity=capacity,
        room=room,
        records=records,
        slots=slots,
        next_hops=_heads(records),
        tables=tables,
        reserved=reserved,
        numbers=numbers,
    )


def _refuse_shared(reserved: Sequence[ReservedFlow]) -> None:
    """Let each reservation have its port to itself.

    Raises:
        InvalidValueError: Two have the same port toward backends that share their ports.
    """
    taken: dict[int, ReservedFlow] = {}
    for item in reserved:
        other = taken.setdefault(item.index, item)
        if other is not item:
            raise InvalidValueError(
                f"NAT port {item.value.nat_port} is reserved for {Endpoint(*item.key[:2])} and "
                f"for {Endpoint(*other.key[:2])}, and their backends share their ports",
                "reserve another port for one of them, or make room for more with --max-flows",
            )


def number_services(services: Sequence[Service], old: Sequence[Installed]) -> tuple[Installed, ...]:
    """Give services numbers: one that runs already keeps its own.

    Those of UDP are even, those of TCP are odd.

    Raises:
        InvalidValueError: There are more than there are numbers.
    """
    kept = match_services([item.service for item in old], services)
    numbers = {place: old[there].number for place, there in kept.items()}
    for place, service in enumerate(services):
        if place in numbers:
            continue
        taken = set(numbers.values())
        mine = range(1 if service.protocol is Protocol.TCP else 0, wire.MAX_SERVICES, 2)
        number = next((number for number in mine if number not in taken), None)
        if number is None:
            raise InvalidValueError(
                f"{len(services)} services are too many",
                f"one balancer has up to {len(mine)} {service.protocol} services of an IP version",
            )
        numbers[place] = number
    return tuple(Installed(numbers[place], service) for place, service in enumerate(services))


def _addresses(services: Sequence[Installed], old: Sequence[Address]) -> tuple[Address, ...]:
    """The balancer's own addresses by number.

    Datagrams in fragments remember by number which one they left from.

    Raises:
        InvalidValueError: They are too many for the program to tell apart quickly.
    """
    found = dict.fromkeys(
        address
        for item in services
        for address in (item.service.dialled, *item.service.own_addresses)
    )
    if len(found) > wire.MAX_ADDRESSES:
        raise InvalidValueError(
            f"{len(found)} addresses of services and for NAT are too many",
            f"one balancer has up to {wire.MAX_ADDRESSES} of each IP version",
        )
    return in_places(tuple(found), old)


def in_places(wanted: Sequence[_Item], old: Sequence[_Item]) -> tuple[_Item, ...]:
    """What is wanted, in the order of its numbers: what is there already keeps its own, if it can.

    Args:
        wanted: All that is to have a number, each once; there are as many numbers.
        old: What has one now.
    """
    kept = {place: item for place, item in enumerate(old[: len(wanted)]) if item in wanted}
    others = (item for item in wanted if item not in kept.values())
    return tuple(kept[place] if place in kept else next(others) for place in range(len(wanted)))


def _own_address(record: BackendRecord, facts: Facts) -> Address | None:
    """The address that a backend of the balancer that is replaced was spoken to from."""
    addresses = facts.side.addresses if facts.side else ()
    return addresses[record.local] if record.local < len(addresses) else None


def _table(item: Installed, numbers: Mapping[Target, int]) -> array[int]:
    """The Maglev table of a service."""
    own = item.service.own_addresses
    able = {
        number: target
        for target, number in numbers.items()
        if target.service == item.number and target.backend.state is BackendState.UP
    }
    return build_table(
        [(number, target.backend) for number, target in able.items()],
        lanes={number: own.index(target.own) for number, target in able.items()},
    )


def with_macs(plan: Plan, neighbours: Mapping[tuple[int, Address], Neighbour]) -> Plan:
    """The plan again, with the MAC addresses that the kernel knows by now.

    Args:
        plan: What is to run.
        neighbours: By interface index and address.
    """
    records = list(plan.records)
    for target, number in plan.numbers.items():
        record = records[number]
        hop = plan.facts.hops[target.backend.address]
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


def _identity(record: BackendRecord, facts: Facts) -> tuple[object, ...]:
    """What makes a record of the balancer that is replaced the same as a target."""
    return record.service, record.address, record.port, _own_address(record, facts)


def _number(targets: Sequence[Target], facts: Facts) -> dict[Target, int]:
    """Numbers for backends: an old one keeps its own, a new one takes the first that is unused."""
    old = {
        _identity(record, facts): number
        for number, record in enumerate(facts.records)
        if record.state is not BackendCode.UNUSED
    }
    numbers = {}
    for target in targets:
        backend = target.backend
        number = old.get((target.service, backend.address, backend.port, target.own))
        if number is not None:
            numbers[target] = number
    taken = set(numbers.values())
    free = (number for number in range(len(facts.records) + len(targets)) if number not in taken)
    for target in targets:
        if target not in numbers:
            numbers[target] = next(free)
    return {target: numbers[target] for target in targets}


def _records(
    facts: Facts,
    services: Sequence[Installed],
    addresses: Sequence[Address],
    numbers: Mapping[Target, int],
    slots: Mapping[Place, SlotRange],
) -> tuple[BackendRecord, ...]:
    """The ``backends`` map. A number that changes hands gets another generation."""
    by_service = {item.number: item.service for item in services}
    local = {address: number for number, address in enumerate(addresses)}
    by_number = {number: target for target, number in numbers.items()}
    count = max([*by_number, len(facts.records) - 1]) + 1
    records: list[BackendRecord] = []
    for number in range(count):
        old = facts.records[number] if number < len(facts.records) else None
        target = by_number.get(number)
        if target is None:
            gone = facts.records[number]
            own = _own_address(gone, facts)
            still = wire.NO_ADDRESS if own is None else local.get(own, wire.NO_ADDRESS)
            records.append(gone._replace(state=BackendCode.UNUSED, local=still))
            continue
        backend = target.backend
        service = by_service[target.service]
        hop = facts.hops[backend.address]
        group = slots[Place(service.protocol, backend.address, target.own)]
        wanted = (target.service, backend.address, backend.port, target.own)
        # One that was away meanwhile is another one: its flows have gone elsewhere.
        is_same = (
            old is not None
            and old.state is not BackendCode.UNUSED
            and _identity(old, facts) == wanted
        )
        generation = 0 if old is None else old.generation + (0 if is_same else 1)
        records.append(
            BackendRecord(
                mac=old.mac if is_same and old is not None else None,
                address=backend.address,
                port=backend.port,
                state=backend_code(backend.state, service.on_down),
                generation=generation & 0xFF,
                slot_first=group.first,
                slot_count=group.count,
                interface=hop.slot,
                weight=backend.weight,
                next_hop=hop.next_hop,
                next_neighbour=wire.NO_INDEX,
                mac_is_fixed=False,
                service=target.service,
                local=local[target.own],
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
    installed: Installed,
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
    service = installed.service
    client = (item.client.address, item.client.port)
    dialled = (service.dialled, 0)
    number = table[select_slot(service.hash, facts.hash_keys, client, dialled, service.protocol)]
    record = records[number]
    if offset >= record.slot_count:
        raise InvalidValueError(
            f"--client {item}: room for {record.slot_count} flows is too few for port "
            f"{item.nat_port}",
            f"this port needs --max-flows {offset + 1} or more",
        )
    return ReservedFlow(
        key=ClientKey(*client, *dialled, installed.number),
        value=ClientValue(item.nat_port, number),
        index=record.slot_first + offset,
        flow=wire.FlowRecord(
            owner=wire.Owner(0, number, FlowCode.RESERVED, record.generation),
            client=item.client.address,
            client_port=item.client.port,
            service_port=0,
            client_mac=None,
            interface=0,
            service=installed.number,
        ),
    )
