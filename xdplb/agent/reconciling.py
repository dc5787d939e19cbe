"""What the agent does to a balancer, step by step; each step looks at the whole first.

Everything here runs in a thread, one step at a time: the kernel may take its time, and the
compiler takes most of a second.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from xdplb import applying, live
from xdplb.agent.watching import adopt, counters, in_state, key_of, with_down
from xdplb.errors import NotReadyError
from xdplb.facts import only
from xdplb.machine import interface_names
from xdplb.model import BackendState
from xdplb.startup import addressed, running_on, start_alone, survey
from xdplb.wire import BackendCode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from xdplb.agent.watching import Key
    from xdplb.applying import Applied
    from xdplb.facts import Neighbour, Running
    from xdplb.health.passive import Counters
    from xdplb.machine import Machine
    from xdplb.model import Address, Backend
    from xdplb.request import Request, Service
    from xdplb.startup import Scene


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    Attributes:
        request: What runs, its interfaces as they are called now; None where nothing does.
        indexes: Those of its interfaces.
        counted: The traffic of each backend.
        missing: Interfaces that are not there.
        stranger: An interface that carries a program of somebody else; empty for none.
        renewed: Interfaces that have another index than those that the balancer was on.
        draining: What runs is to be taken down soon.
    """

    request: Request | None
    indexes: Mapping[str, int] = field(default_factory=dict)
    counted: Mapping[Key, Counters] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    stranger: str = ""
    renewed: tuple[str, ...] = ()
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """What was made of a file.

    Attributes:
        fixed: The backends that it wants down, whatever their health.
        drained: Those that are down, and that it wants drained when they are not.
        down: All that are down.
    """

    applied: Applied
    fixed: frozenset[Key]
    drained: frozenset[Key]
    down: frozenset[Key]


def find(machine: Machine, iface: str | None) -> Request:
    """The balancer to look after, its interfaces as they are called now.

    Args:
        machine: Where.
        iface: One of its interfaces; None where there is only one balancer.

    Raises:
        NotReadyError: There is none, or no telling which.
    """
    machine.require_privileges()
    found = [_request(machine, item) for item in machine.running()]
    if iface is not None:
        found = [item for item in found if iface in item.interfaces]
    none = NotReadyError(
        "no balancer is up" + (f" on {iface}" if iface else ""),
        "start one with 'xdplb up', or name a file with --config",
    )
    return only(found, none)


def absent(machine: Machine, interfaces: Iterable[str]) -> tuple[str, ...]:
    """Those of some interfaces that are not there.

    Raises:
        PrivilegeError: Nothing could be done with the others.
    """
    machine.require_privileges()
    return tuple(name for name in interfaces if machine.interface_index(name) is None)


def look(machine: Machine, interfaces: Iterable[str], indexes: Mapping[str, int]) -> Look:
    """See what is there; change nothing.

    Args:
        machine: Where.
        interfaces: The balancer's.
        indexes: What they were when the balancer was seen on them.
    """
    there = {name: machine.interface_index(name) for name in interfaces}
    present = {name: index for name, index in there.items() if index is not None}
    running = _running(machine, {*present.values(), *indexes.values()})
    if running is not None:
        request = _request(machine, running)
        every = [on.index for on in running.state.interfaces]
        return Look(
            request,
            dict(zip(request.interfaces, every, strict=True)),
            counters(running, machine.traffic(running)),
            missing=absent(machine, request.interfaces),
            draining=running.state.draining,
        )
    return Look(
        None,
        missing=tuple(name for name in there if name not in present),
        stranger=next((name for name, index in present.items() if machine.attached(index)), ""),
        renewed=tuple(name for name, index in present.items() if indexes.get(name, index) != index),
    )


def _running(machine: Machine, indexes: AbstractSet[int]) -> Running | None:
    """The balancer on some of these interfaces."""
    for item in machine.running():
        if indexes & {on.index for on in item.state.interfaces}:
            return item
    return None


def _request(machine: Machine, running: Running) -> Request:
    """What runs, with the names that its interfaces have now."""
    state = running.state
    return replace(state.request, interfaces=interface_names(machine, state))


def begin(machine: Machine, wanted: Request) -> Begun:
    """Make what is wanted run; what runs already keeps the states of its backends.

    If it is to be taken down soon, that is so afterwards, too.

    Raises:
        XdplbError: And then everything is as it was.
    """
    complete = addressed(machine, wanted, machine.link(wanted.interfaces[0]))
    running = running_on(machine, wanted.interfaces)
    if running is None:
        return _begun(machine, complete, complete)
    adopted = adopt(complete, running.state.request)
    return _begun(machine, complete, adopted, draining=running.state.draining)


def reload(machine: Machine, wanted: Request, unhealthy: AbstractSet[Key]) -> Begun:
    """Make what is wanted run, but for backends that are known to be down.

    Raises:
        XdplbError: And then everything is as it was.
    """
    complete = addressed(machine, wanted, machine.link(wanted.interfaces[0]))
    partly = with_down(complete, unhealthy)
    return _begun(machine, complete, partly)


def _begun(machine: Machine, complete: Request, runs: Request, *, draining: bool = False) -> Begun:
    found = applying.preview(machine, runs)
    applied = applying.apply(machine, runs, found, draining=draining)
    down = in_state(runs, BackendState.DOWN)
    return Begun(
        applied,
        fixed=in_state(complete, BackendState.DOWN),
        drained=in_state(complete, BackendState.DRAIN) & down,
        down=down,
    )


def renew(machine: Machine, request: Request) -> None:
    """Attach again what was lost with an interface, unless somebody else was faster.

    Raises:
        XdplbError: And then everything is as it was.
    """
    with machine.lock():
        if running_on(machine, request.interfaces) is None:
            start_alone(machine, request)


def follow(machine: Machine, interfaces: tuple[str, ...]) -> bool:
    """Follow an interface, a way or a neighbour that is not what it was; whether there was any.

    An interface that is not there is waited for.

    Raises:
        XdplbError: And then everything is as it was.
    """
    if absent(machine, interfaces):
        return False
    seen = _scene(machine, interfaces)
    if seen is None:
        return False
    if not (_has_moved(*seen) or _lost(machine, seen[1]) or _told(machine, *seen)):
        return False
    with machine.lock():  # somebody else's command may have been at it in between
        seen = _scene(machine, interfaces)
        return seen is not None and _catch_up(machine, *seen)


def _catch_up(machine: Machine, running: Running, scene: Scene) -> bool:
    """Make the balancer what it would be if it was started now; whether it is another one then."""
    if _has_moved(running, scene):
        start_alone(machine, _as_it_is(scene.request), draining=running.state.draining)
        return True
    lost = _lost(machine, scene)
    remembered = {(item.ifindex, item.address) for item in running.state.restore}
    if _told(machine, running, scene) or not remembered.issuperset(
        (index, f"{address}") for index, address in lost
    ):
        live.rewrite(machine, running, running.state.request, running.state.versions)
        return True
    for index, address in lost:
        machine.manage(index, address)
    return False


def _scene(machine: Machine, interfaces: tuple[str, ...]) -> tuple[Running, Scene] | None:
    """The balancer, and what there is for it now."""
    running = running_on(machine, interfaces)
    if running is None:
        return None
    return running, survey(machine, _as_it_is(_request(machine, running)))


def _as_it_is(request: Request) -> Request:
    """What runs, its keys as they are, whatever has become of the file that they came of."""
    return replace(request, secret=None)


def _has_moved(running: Running, scene: Scene) -> bool:
    """Whether only another program will do."""
    names = tuple(on.name for on in running.state.interfaces)
    return applying.has_moved(scene) or scene.request.interfaces != names


def _lost(machine: Machine, scene: Scene) -> list[tuple[int, Address]]:
    """The next hops that the kernel does not ask for any more: it forgets when a link goes down."""
    known = _neighbours(machine, scene)
    return [
        place
        for place in dict.fromkeys((hop.ifindex, hop.next_hop) for hop in scene.hops.values())
        if not ((there := known.get(place)) and (there.is_managed or there.is_permanent))
    ]


def _told(machine: Machine, running: Running, scene: Scene) -> bool:
    """Whether an administrator has told the kernel another MAC address; no packet shows that."""
    known = _neighbours(machine, scene)
    for record in itertools.chain.from_iterable(running.records.values()):
        hop = scene.hops.get(record.address)
        there = known.get((hop.ifindex, hop.next_hop)) if hop else None
        is_used = record.state is not BackendCode.UNUSED
        if is_used and there and there.is_permanent and there.mac != record.mac:
            return True
    return False


def _neighbours(machine: Machine, scene: Scene) -> Mapping[tuple[int, Address], Neighbour]:
    return machine.neighbours(list({hop.ifindex for hop in scene.hops.values()}))


def set_states(
    machine: Machine,
    indexes: AbstractSet[int],
    states: Mapping[Key, tuple[BackendState, BackendState]],
) -> Request | None:
    """Give backends other states; who is not in the state any more that it was seen in keeps it.

    Args:
        machine: Where.
        indexes: The balancer's interfaces.
        states: What they were seen in, and what they are to be in.

    Returns:
        What runs afterwards; None where nothing does.

    Raises:
        XdplbError: And then nothing is changed.
    """

    def state_of(service: Service, backend: Backend) -> BackendState:
        seen, decided = states.get(key_of(service, backend), (None, backend.state))
        return decided if seen is backend.state else backend.state

    with machine.lock():
        running = _running(machine, indexes)
        if running is None:
            return None
        after = live.set_states(machine, running, state_of)
        return replace(after, interfaces=_request(machine, running).interfaces)
