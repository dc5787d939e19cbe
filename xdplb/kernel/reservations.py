"""Reserved flows: written to ``client_port`` and ``reverse_lookup`` together, record first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdplb import wire
from xdplb.errors import NotReadyError
from xdplb.kernel import libbpf, tables
from xdplb.model import Endpoint
from xdplb.wire import ClientKey, ClientValue, FlowCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.facts import Running
    from xdplb.kernel.program import Descriptors, Maps
    from xdplb.plan import Plan, ReservedFlow
    from xdplb.state import State
    from xdplb.wire import BackendRecord


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to become of one IP version's reservations."""

    maps: Maps
    plan: Plan
    changed: list[ReservedFlow]
    gone: dict[ClientKey, ClientValue]
    records: Sequence[BackendRecord]


def reserve(maps: Descriptors, plans: Sequence[Plan], old: Running | None) -> None:
    """Make the maps hold the plans' reservations and no others.

    Args:
        maps: Where they are written.
        plans: What is wanted, one for each IP version.
        old: The balancer that wrote what the maps hold now.

    Raises:
        NotReadyError: A flow has the NAT port of a reservation. Nothing is changed then.
    """
    changes = [_change(maps.of(plan.version), plan, old) for plan in plans]
    for change in changes:
        _refuse_taken(change.maps, change.changed)
    for change in changes:
        for key, value in change.gone.items():
            _end(change, key, value)
        for item in change.changed:
            index = wire.U32.pack(item.index)
            libbpf.update(change.maps["reverse_lookup"], index, item.flow.pack())
            libbpf.update(change.maps["client_port"], item.key.pack(), item.value.pack())


def _change(maps: Maps, plan: Plan, old: Running | None) -> _Change:
    wanted = {item.key: item for item in plan.reserved}
    keys = reservation_keys(old.state, plan.version) if old else []
    there = {key: value for key in keys if (value := _value(maps, key)) is not None}
    changed = [
        item
        for item in plan.reserved
        if there.get(item.key) != item.value
        or tables.read_flow(maps, item.index).owner.generation != item.flow.owner.generation
    ]
    return _Change(
        maps=maps,
        plan=plan,
        changed=changed,
        gone={
            key: value
            for key, value in there.items()
            if key not in wanted or wanted[key] in changed
        },
        records=old.records.get(plan.version, ()) if old else (),
    )


def reservation_keys(state: State, version: int) -> list[ClientKey]:
    """What a balancer's reservations of one IP version are found by."""
    side = state.side(version)
    return [
        ClientKey(item.client.address, item.client.port, one.service.dialled, 0, one.number)
        for one in (side.services if side else ())
        for item in one.service.reservations
    ]


def _value(maps: Maps, key: ClientKey) -> ClientValue | None:
    """Where a reservation leads."""
    size = wire.SIZES[maps.version]["client_value"]
    data = libbpf.lookup(maps["client_port"], key.pack(), size)
    return ClientValue.unpack(data) if data else None


def _refuse_taken(maps: Maps, items: Sequence[ReservedFlow]) -> None:
    for item in items:
        flow = tables.read_flow(maps, item.index)
        if flow.owner.state in {FlowCode.FREE, FlowCode.RESERVED}:
            continue
        raise NotReadyError(
            f"NAT port {item.value.nat_port} belongs to a flow of "
            f"{Endpoint(flow.client, flow.client_port)} already",
            "reserve another port, or start anew: 'xdplb down', then 'up' with the reservation",
        )


def _end(change: _Change, key: ClientKey, value: ClientValue) -> None:
    """Free one reservation, index first."""
    maps = change.maps
    libbpf.delete(maps["client_port"], key.pack())
    offset = change.plan.pool.offset(value.nat_port)
    if offset is None or value.backend >= len(change.records):
        return
    index = change.records[value.backend].slot_first + offset
    flow = tables.read_flow(maps, index)
    if flow.owner.state is FlowCode.RESERVED and flow.client == key.client:
        free = bytes(wire.SIZES[maps.version]["flow"])
        libbpf.update(maps["reverse_lookup"], wire.U32.pack(index), free)
