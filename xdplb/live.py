"""Change the backends of a balancer while it runs: nothing is compiled, no flow is touched.

The new plan is made like that of ``up``, from what the running balancer knows of itself; only
what differs is written, so that each packet sees the old table or the new one.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdplb.errors import InvalidValueError, NotReadyError
from xdplb.model import BackendState
from xdplb.plan import Facts, Hop, Port, make_plan, with_macs
from xdplb.startup import find_hop, watch
from xdplb.wire import NO_TAG, BackendCode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xdplb.facts import Running
    from xdplb.machine import Machine
    from xdplb.model import Address, Backend, PortRange
    from xdplb.plan import Plan
    from xdplb.request import Request, Service
    from xdplb.state import Side, State
    from xdplb.wire import BackendRecord


@dataclass(frozen=True, slots=True)
class Change:
    """What came of a change.

    Attributes:
        services: All of them, as they are now.
        resolved: Somebody has answered for the next hop of the one that was added.
    """

    services: tuple[Service, ...]
    resolved: bool = True


def add(machine: Machine, running: Running, new: Backend, service: str | None = None) -> Change:
    """Give services another backend; or finish that, where it was interrupted.

    Args:
        machine: Where.
        running: The balancer.
        new: The backend.
        service: Name or address of the services; None for all of the backend's IP version,
            where they have the same backends.

    Raises:
        XdplbError: One has that backend already, or there is no way to it, or no room, or no
            telling which service is meant. Nothing is changed.
    """
    mine = _of_version(running, new, service)
    sets = {frozenset(one.place for one in item.backends) for item in mine}
    if service is None and len(sets) > 1:
        raise InvalidValueError(
            "the balancer has several services", "say which one with --service NAME"
        )
    there = [item for item in mine if _find(item, new) is not None]
    finished = [item for item in there if _has_share(machine, running, item, new)]
    if there and finished == there:
        raise InvalidValueError(
            f"backend {new} is there already", "'xdplb backend list' shows all of them"
        )
    lacking = [item for item in mine if item not in finished]
    return _apply(machine, running, new, lacking, lambda item: (*_others(item, new), new))


def remove(machine: Machine, running: Running, gone: Backend, service: str | None = None) -> Change:
    """Take a backend away: its flows find another one with their next packet.

    Also one whose adding was interrupted.

    Args:
        machine: Where.
        running: The balancer.
        gone: The backend.
        service: Name or address of the services; None for all that have it.

    Raises:
        XdplbError: There is no such backend, or a service has no other one.
    """
    mine = _with_backend(running, gone, service)
    if not all(_others(item, gone) for item in mine):
        raise InvalidValueError(
            f"backend {gone} is the only one of its service",
            "add another one first; 'xdplb down' ends the balancer",
        )
    return _apply(machine, running, gone, mine, lambda item: _others(item, gone))


def edit(
    machine: Machine,
    running: Running,
    which: Backend,
    how: Callable[[Backend], Backend],
    service: str | None = None,
) -> Change:
    """Change the state or the weight of a backend; its flows stay.

    Args:
        machine: Where.
        running: The balancer.
        which: The backend.
        how: What it becomes.
        service: Name or address of the services; None for all that have it.

    Raises:
        XdplbError: There is no such backend.
    """
    return _apply(
        machine,
        running,
        which,
        _with_backend(running, which, service),
        lambda item: tuple(how(one) if one.place == which.place else one for one in item.backends),
    )


def set_states(
    machine: Machine, running: Running, state_of: Callable[[Service, Backend], BackendState]
) -> Request:
    """Give every backend of every service a state; only what differs is written.

    Args:
        machine: Where.
        running: The balancer.
        state_of: The state of a backend of a service.

    Returns:
        What runs afterwards.

    Raises:
        XdplbError: And then nothing is changed.
    """
    before = running.state.request
    after = before.with_states(state_of)
    versions = [item for item in before.versions if before.of(item) != after.of(item)]
    if versions:
        rewrite(machine, running, after, versions, ask=False)
    return after


def drain(backend: Backend) -> Backend:
    """Without new flows."""
    return replace(backend, state=BackendState.DRAIN)


def undrain(backend: Backend) -> Backend:
    """With new flows again."""
    return replace(backend, state=BackendState.UP)


def _find(service: Service, which: Backend) -> Backend | None:
    return next((item for item in service.backends if item.place == which.place), None)


def _others(service: Service, which: Backend) -> tuple[Backend, ...]:
    return tuple(item for item in service.backends if item.place != which.place)


def _records(running: Running, service: Service, which: Backend) -> dict[int, BackendRecord]:
    """What is written of a backend of a service, by number."""
    side = running.state.side(which.address.version)
    numbers = {item.number for item in (side.services if side else ()) if item.service == service}
    return {
        number: record
        for number, record in enumerate(running.records[which.address.version] if side else ())
        if record.service in numbers
        and (record.address, record.port) == which.place
        and record.state is not BackendCode.UNUSED
    }


def _has_share(machine: Machine, running: Running, service: Service, which: Backend) -> bool:
    """Whether new flows of a service go to a backend of it, if they should."""
    known = _find(service, which)
    if known is None or known.state is not BackendState.UP or not known.weight:
        return True
    shares = machine.usage(running, which.address.version).shares
    return any(
        record.state is not BackendCode.UP or shares.get(number)
        for number, record in _records(running, service, which).items()
    )


def _of_version(running: Running, backend: Backend, service: str | None) -> list[Service]:
    """The services that a backend could be one of.

    Raises:
        InvalidValueError: There are none.
    """
    version = backend.address.version
    found = [item for item in running.state.services if item.version == version]
    if not found:
        raise InvalidValueError(
            f"backend {backend} is IPv{version}, and the balancer has no IPv{version} service",
            "run 'xdplb up' again with a --service and backends of both",
        )
    if service is not None:
        found = [item for item in found if item.is_called(service)]
        if not found:
            raise InvalidValueError(
                f"there is no IPv{version} service {service}", "'xdplb status' shows all of them"
            )
    return found


def _with_backend(running: Running, which: Backend, service: str | None) -> list[Service]:
    """The services that have a backend, if only half.

    Raises:
        InvalidValueError: There are none.
    """
    every = [item for item in running.state.services if service is None or item.is_called(service)]
    found = [
        item for item in every if _find(item, which) is not None or _records(running, item, which)
    ]
    if not found:
        raise InvalidValueError(
            f"there is no backend {which}", "'xdplb backend list' shows the ones there are"
        )
    return found


def _apply(
    machine: Machine,
    running: Running,
    about: Backend,
    mine: Sequence[Service],
    backends: Callable[[Service], tuple[Backend, ...]],
) -> Change:
    """Write what is different when ``mine`` of the services have other ``backends``."""
    before = running.state.request
    request = replace(
        before,
        services=tuple(
            replace(item, backends=backends(item)) if item in mine else item
            for item in before.services
        ),
    )
    unresolved = rewrite(machine, running, request, (about.address.version,))
    return Change(request.services, about not in unresolved)


def rewrite(
    machine: Machine,
    running: Running,
    request: Request,
    versions: Sequence[int],
    *,
    ask: bool = True,
) -> list[Backend]:
    """Write what is different, where only backends are.

    Args:
        machine: Where.
        running: The balancer.
        request: What it is to be; its services are those that run, with other backends.
        versions: The IP versions of these.
        ask: Let the kernel ask for their next hops, which it cannot where an interface is down.

    Returns:
        The backends that nobody has answered for yet.

    Raises:
        XdplbError: And then nothing is changed.
    """
    with ExitStack() as undo:
        changes = []
        state = running.state
        for version in versions:
            plan, state = _plan(machine, running, state, request, version, undo if ask else None)
            changes.append(plan)
        machine.change(running, changes, state)
        undo.pop_all()
    return [
        target.backend
        for plan in changes
        for target, number in plan.numbers.items()
        if plan.records[number].mac is None
    ]


def _plan(  # noqa: PLR0913 - all that a plan depends on
    machine: Machine,
    running: Running,
    state: State,
    request: Request,
    version: int,
    undo: ExitStack | None,
) -> tuple[Plan, State]:
    """What is to be written for one IP version, and ``state`` with that.

    The kernel is let ask for the next hops if there is an ``undo`` for that.
    """
    side = running.state.side(version)
    if side is None:
        raise AssertionError(version)
    hops = _hops(machine, running, request, version)
    watched = [] if undo is None else watch(machine, hops, running, undo)
    plan = make_plan(request, _facts(running, side, hops, machine.ephemeral_ports()))
    if len(plan.records) > side.room:
        raise NoRoomError(side.room)
    known = machine.neighbours([hop.ifindex for hop in hops.values()])
    plan = with_macs(replace(plan, room=side.room), known)
    kept = [item for item in state.restore if item not in watched]
    return plan, replace(
        state,
        sides=tuple(plan.side if item.version == version else item for item in state.sides),
        restore=(*kept, *watched),
    )


class NoRoomError(NotReadyError):
    """The running balancer has no room for so many backends."""

    def __init__(self, room: int) -> None:
        super().__init__(
            f"the balancer has room for {room} backends and protocols",
            "run 'xdplb up' again with all of them: it makes more room and keeps the flows",
        )


def _facts(
    running: Running, side: Side, hops: Mapping[Address, Hop], ephemeral: PortRange
) -> Facts:
    """What ``up`` would find out, as far as a change of backends depends on it."""
    state = running.state
    return Facts(
        version=side.version,
        ports=tuple(
            Port(item.name, item.index, b"", item.mode, redirect=False) for item in state.interfaces
        ),
        hops=hops,
        ephemeral=ephemeral,
        hash_keys=state.hash_keys,
        side=side,
        records=running.records[side.version],
        nat_ports=state.nat_ports,
        capacity=state.capacity,
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
