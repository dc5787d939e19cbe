"""Change the backends of a balancer while it runs: nothing is compiled, no flow is touched.

The new plan is made like that of ``up``, from what the running balancer knows of itself; only
what differs is written, so that each packet sees the old table or the new one.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdplb.errors import InvalidValueError, NotReadyError
from xdplb.model import Backend, BackendState, Request
from xdplb.plan import BACKEND_CODES, Facts, Hop, Port, make_plan, with_macs
from xdplb.startup import find_hop, watch
from xdplb.wire import NO_TAG, BackendCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xdplb.facts import Running
    from xdplb.machine import Machine
    from xdplb.model import Address, PortRange
    from xdplb.plan import Plan
    from xdplb.state import Side

_STATES = {code: state for state, code in BACKEND_CODES.items()}


@dataclass(frozen=True, slots=True)
class Change:
    """What came of a change.

    Attributes:
        backends: All of them, as they are now.
        resolved: Somebody has answered for the next hop of the one that was added.
    """

    backends: tuple[Backend, ...]
    resolved: bool = True


def backends_of(running: Running) -> list[Backend]:
    """The backends of a running balancer, each once, in the order of their numbers."""
    found: dict[tuple[Address, int | None], Backend] = {}
    for version in running.state.versions:
        for record in running.records[version]:
            if record.state is not BackendCode.UNUSED:
                key = (record.address, record.port)
                found.setdefault(key, Backend(*key, record.weight, _STATES[record.state]))
    return list(found.values())


def add(machine: Machine, running: Running, new: Backend) -> Change:
    """Give the balancer another backend.

    Raises:
        XdplbError: It has that one already, or no way to it, or no room. Nothing is changed.
    """
    there = backends_of(running)
    if _find(there, new) is not None:
        raise InvalidValueError(
            f"backend {new} is there already", "'xdplb backend list' shows all of them"
        )
    return _apply(machine, running, [*there, new], new)


def remove(machine: Machine, running: Running, gone: Backend) -> Change:
    """Take a backend away: its flows find another one with their next packet.

    Raises:
        XdplbError: There is no such backend, or no other one of its IP version.
    """
    there = backends_of(running)
    mine = _require(there, gone)
    left = [item for item in there if item is not mine]
    if not any(item.address.version == mine.address.version for item in left):
        raise InvalidValueError(
            f"backend {mine} is the only one of its service",
            "add another one first; 'xdplb down' ends the balancer",
        )
    return _apply(machine, running, left, mine)


def edit(
    machine: Machine, running: Running, which: Backend, how: Callable[[Backend], Backend]
) -> Change:
    """Change the state or the weight of a backend; its flows stay.

    Raises:
        XdplbError: There is no such backend.
    """
    there = backends_of(running)
    mine = _require(there, which)
    return _apply(machine, running, [how(item) if item is mine else item for item in there], mine)


def drain(backend: Backend) -> Backend:
    """Without new flows."""
    return replace(backend, state=BackendState.DRAIN)


def undrain(backend: Backend) -> Backend:
    """With new flows again."""
    return replace(backend, state=BackendState.UP)


def _find(backends: Sequence[Backend], which: Backend) -> Backend | None:
    return next(
        (item for item in backends if (item.address, item.port) == (which.address, which.port)),
        None,
    )


def _require(backends: Sequence[Backend], which: Backend) -> Backend:
    found = _find(backends, which)
    if found is None:
        raise InvalidValueError(
            f"there is no backend {which}", "'xdplb backend list' shows the ones there are"
        )
    return found


def _apply(
    machine: Machine, running: Running, backends: Sequence[Backend], about: Backend
) -> Change:
    """Write what is different with these ``backends``, of which one is new, gone or changed."""
    version = about.address.version
    side = running.state.side(version)
    if side is None:
        raise InvalidValueError(
            f"backend {about} is IPv{version}, and the balancer has no IPv{version} service",
            "run 'xdplb up' again with a --service and backends of both",
        )
    request = _request(running, backends)
    with ExitStack() as undo:
        hops = _hops(machine, running, request, version)
        watched = watch(machine, hops, running, undo)
        facts = _facts(running, side, hops, machine.ephemeral_ports())
        plan = make_plan(request, facts)
        if len(plan.records) > side.room:
            raise NotReadyError(
                f"the balancer has room for {side.room} backends and protocols",
                "run 'xdplb up' again with all of them: it makes more room and keeps the flows",
            )
        known = machine.neighbours([hop.ifindex for hop in hops.values()])
        plan = with_macs(replace(plan, room=side.room), known)
        kept = [item for item in running.state.restore if item not in watched]
        state = replace(running.state, restore=(*kept, *watched))
        machine.change(running, plan, state)
        undo.pop_all()
    return Change(tuple(backends), _is_resolved(plan, about))


def _facts(
    running: Running, side: Side, hops: Mapping[Address, Hop], ephemeral: PortRange
) -> Facts:
    """What ``up`` would find out, as far as a change of backends depends on it."""
    state = running.state
    return Facts(
        service=side.service,
        ports=tuple(
            Port(item.name, item.index, b"", item.mode, redirect=False) for item in state.interfaces
        ),
        hops=hops,
        ephemeral=ephemeral,
        hash_keys=state.hash_keys,
        records=running.records[side.service.version],
        nat_ports=state.nat_ports,
        capacity=state.capacity,
    )


def _is_resolved(plan: Plan, about: Backend) -> bool:
    numbers = [number for (_, backend), number in plan.numbers.items() if backend == about]
    return all(plan.records[number].mac is not None for number in numbers)


def _request(running: Running, backends: Sequence[Backend]) -> Request:
    """What ``up`` would have to be asked for to get the running balancer with ``backends``."""
    state = running.state
    return Request(
        interfaces=tuple(item.name for item in state.interfaces),
        backends=tuple(backends),
        services=tuple(side.service for side in state.sides),
        protocols=state.protocols,
        ports=state.ports,
        hash=state.hash,
        reservations=state.reservations,
        max_flows=state.capacity,
        nat_ports=state.nat_ports,
        timeouts=state.timeouts,
    )


def _hops(
    machine: Machine, running: Running, request: Request, version: int
) -> Mapping[Address, Hop]:
    """The way to each backend: of one that is there, as it is known; of a new one, as routed."""
    interfaces = running.state.interfaces
    slots = {item.index: slot for slot, item in enumerate(interfaces)}
    hops: dict[Address, Hop] = {}
    for record in running.records[version]:
        if record.state is not BackendCode.UNUSED and record.tag == NO_TAG:
            index = interfaces[record.interface].index
            hops[record.address] = Hop(record.next_hop, record.interface, index)
    for backend in request.backends:
        if backend.address.version == version and backend.address not in hops:
            hops[backend.address] = find_hop(machine, request, backend, slots)
    return hops
