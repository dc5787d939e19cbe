"""Everything that is known of a balancer that runs, summed up for a person or a program."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdplb import advice
from xdplb.machine import interface_names
from xdplb.model import (
    Backend,
    BackendStatus,
    BalancerStatus,
    InterfaceStatus,
    MapStatus,
    ServiceStatus,
)
from xdplb.plan import backend_state
from xdplb.wire import NO_TRAFFIC, BackendCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.facts import Running, Usage
    from xdplb.machine import Machine
    from xdplb.model import Address
    from xdplb.state import Installed, Side
    from xdplb.wire import BackendRecord


@dataclass(frozen=True, slots=True)
class _Side:
    """What is summed up over the IP versions."""

    services: tuple[ServiceStatus, ...]
    flows: int
    nat_ports: int
    maps: tuple[MapStatus, ...]


@dataclass(frozen=True, slots=True)
class _Live:
    """The backends of one IP version, and their counters.

    Attributes:
        names: What their interfaces are called now.
        records: By number, without those that are unused.
        ports: NAT ports in use, by the place of the group that they are of.
    """

    names: Sequence[str]
    records: Mapping[int, BackendRecord]
    usage: Usage
    ports: Mapping[tuple[int, int], int]


def read(machine: Machine, running: Running) -> BalancerStatus:
    """Sum up a balancer.

    Raises:
        BusyError: It has gone meanwhile.
    """
    state = running.state
    verdicts = machine.verdicts(running)
    names = interface_names(machine, state)
    sides = [_side(machine, running, side, names) for side in state.sides]
    flows = sum(side.flows for side in sides)
    around = _around(machine, running)
    status = BalancerStatus(
        interfaces=tuple(
            InterfaceStatus(
                name, item.index, item.mode, attached=around.carries(item.index, running.program_id)
            )
            for name, item in zip(names, state.interfaces, strict=True)
        ),
        program_id=running.program_id,
        program_tag=running.tag,
        version=state.version,
        services=tuple(service for side in sides for service in side.services),
        flows=flows,
        capacity=state.capacity * len(sides),
        nat_ports_used=flows,
        nat_ports_total=sum(side.nat_ports for side in sides),
        verdicts=verdicts,
        maps=tuple(item for side in sides for item in side.maps),
        secret=state.secret,
        draining=state.draining,
    )
    return replace(status, warnings=advice.warnings(status, state, around))


def _around(machine: Machine, running: Running) -> advice.Around:
    """What can be known in a moment of what a balancer needs to be there."""
    presences = {item.index: machine.presence(item.index) for item in running.state.interfaces}
    strangers = {
        index: machine.describe(item.program_id)
        for index, item in presences.items()
        if item is not None and item.program_id and item.program_id != running.program_id
    }
    own = dict.fromkeys(address for side in running.state.sides for address in side.addresses)
    lost = tuple(address for address in own if not machine.has_address(address))
    return advice.Around(presences, strangers, lost, machine.traced_for(running))


def _side(machine: Machine, running: Running, side: Side, names: Sequence[str]) -> _Side:
    """The services of one IP version."""
    usage = machine.usage(running, side.version)
    records = {
        number: record
        for number, record in enumerate(running.records[side.version])
        if record.state is not BackendCode.UNUSED
    }
    ports: Counter[tuple[int, int]] = Counter()
    for number, record in records.items():
        ports[_group(record)] += usage.flows.get(number, 0)
    live = _Live(names, records, usage, ports)
    return _Side(
        services=tuple(
            ServiceStatus(
                name=item.service.name,
                address=item.service.dialled,
                protocol=item.service.protocol,
                ports=item.service.ports,
                hash=item.service.hash,
                backends=_backends(item, live),
            )
            for item in side.services
        ),
        flows=sum(usage.flows.values()),
        nat_ports=sum(count for _, count in ports),
        maps=(
            MapStatus(side.version, "reverse_lookup", usage.records, running.state.capacity),
            MapStatus(side.version, "backends", len(records), side.room),
        ),
    )


def _group(record: BackendRecord) -> tuple[int, int]:
    """The NAT ports toward a backend: where they begin, and how many there are."""
    return record.slot_first, record.slot_count


def _backends(installed: Installed, live: _Live) -> tuple[BackendStatus, ...]:
    """The backends of a service; those that are spoken to from several addresses, once."""
    lanes: dict[tuple[Address, int | None], list[int]] = {}
    for number, record in live.records.items():
        if record.service == installed.number:
            lanes.setdefault((record.address, record.port), []).append(number)
    found = [_backend(numbers, live) for numbers in lanes.values()]
    expected = advice.expected_shares([(item.state, item.backend.weight) for item in found])
    total = sum(item.share for item in found)
    return tuple(
        replace(item, share=item.share / total if total else 0.0, expected_share=share)
        for item, share in zip(found, expected, strict=True)
    )


def _backend(numbers: Sequence[int], live: _Live) -> BackendStatus:
    """A backend; its share is still in entries of the table."""
    record, usage = live.records[numbers[0]], live.usage
    traffic = [usage.traffic.get(number, NO_TRAFFIC) for number in numbers]
    packets_in, bytes_in, packets_out, bytes_out, refused = map(sum, zip(*traffic, strict=True))
    groups = {_group(live.records[number]) for number in numbers}
    return BackendStatus(
        number=numbers[0],
        backend=Backend(record.address, record.port, record.weight),
        state=backend_state(record.state),
        mac=record.mac.hex(":") if record.mac else None,
        next_hop=record.next_hop,
        interface=live.names[record.interface],
        share=sum(usage.shares.get(number, 0) for number in numbers),
        flows=sum(usage.flows.get(number, 0) for number in numbers),
        packets_in=packets_in,
        bytes_in=bytes_in,
        packets_out=packets_out,
        bytes_out=bytes_out,
        refused=refused,
        nat_ports_used=sum(live.ports[group] for group in groups),
        nat_ports_total=sum(count for _, count in groups),
    )
