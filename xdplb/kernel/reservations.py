"""Reserved flows: written to ``client_port`` and ``reverse_lookup`` together, record first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xdplb import wire
from xdplb.errors import NotReadyError
from xdplb.kernel import libbpf, tables
from xdplb.wire import ClientKey, ClientValue, FlowCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.facts import Running
    from xdplb.kernel.program import Descriptors
    from xdplb.plan import Plan, ReservedFlow
    from xdplb.state import State
    from xdplb.wire import BackendRecord

_FREE: Final = bytes(wire.SIZES["flow"])


def reserve(maps: Descriptors, plan: Plan, old: Running | None) -> None:
    """Make the two maps hold the plan's reservations and no others.

    Args:
        maps: Where they are written.
        plan: What is wanted.
        old: The balancer that wrote what the maps hold now.

    Raises:
        NotReadyError: A flow has the NAT port of a reservation. Nothing is changed then.
    """
    wanted = {item.key: item for item in plan.reserved}
    records = old.records if old else ()
    keys = reservation_keys(old.state) if old else []
    there = {key: value for key in keys if (value := _value(maps, key)) is not None}
    changed = [item for item in plan.reserved if there.get(item.key) != item.value]
    gone = [key for key in there if key not in wanted or wanted[key] in changed]
    _refuse_taken(maps, changed)
    for key in gone:
        _end(maps, plan, key, there[key], records)
    for item in changed:
        libbpf.update(maps["reverse_lookup"], wire.U32.pack(item.index), item.flow.pack())
        libbpf.update(maps["client_port"], item.key.pack(), item.value.pack())


def reservation_keys(state: State) -> list[ClientKey]:
    """What a balancer's reservations are found by."""
    return [
        ClientKey(item.client.address, item.client.port, state.service, 0, protocol)
        for protocol in state.protocols
        for item in state.reservations
    ]


def _value(maps: Descriptors, key: ClientKey) -> ClientValue | None:
    """Where a reservation leads."""
    data = libbpf.lookup(maps["client_port"], key.pack(), wire.SIZES["client_value"])
    return ClientValue.unpack(data) if data else None


def _refuse_taken(maps: Descriptors, items: Sequence[ReservedFlow]) -> None:
    for item in items:
        flow = tables.read_flow(maps, item.index)
        if flow.owner.state in {FlowCode.FREE, FlowCode.RESERVED}:
            continue
        raise NotReadyError(
            f"NAT port {item.value.nat_port} belongs to a flow of "
            f"{flow.client}:{flow.client_port} already",
            "reserve another port, or start anew: 'xdplb down', then 'up' with the reservation",
        )


def _end(
    maps: Descriptors,
    plan: Plan,
    key: ClientKey,
    value: ClientValue,
    records: Sequence[BackendRecord],
) -> None:
    """Free one reservation, index first."""
    libbpf.delete(maps["client_port"], key.pack())
    offset = plan.pool.offset(value.nat_port)
    if offset is None or value.backend >= len(records):
        return
    index = records[value.backend].slot_first + offset
    flow = tables.read_flow(maps, index)
    if flow.owner.state is FlowCode.RESERVED and flow.client == key.client:
        libbpf.update(maps["reverse_lookup"], wire.U32.pack(index), _FREE)
