"""What the agent does to a balancer, step by step; each step looks at the whole first.

Everything here runs in a thread, one step at a time: the kernel may take its time, and the
compiler takes most of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from xdplb import applying, live
from xdplb.agent.watching import Key, adopt, counters, key_of
from xdplb.errors import NotReadyError
from xdplb.model import BackendState
from xdplb.startup import addressed, running_on, start

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from xdplb.applying import Applied
    from xdplb.facts import Running
    from xdplb.health.passive import Counters
    from xdplb.machine import Machine
    from xdplb.model import Backend
    from xdplb.request import Request, Service


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    Attributes:
        request: What runs; None where nothing does.
        interfaces: What its interfaces are called now; and their ``indexes``.
        counted: The traffic of each backend.
        missing: Interfaces that are not there.
        stranger: An interface that carries a program of somebody else; empty for none.
        renewed: Interfaces that have another index than those that the balancer was on.
    """

    request: Request | None
    interfaces: tuple[str, ...] = ()
    indexes: Mapping[str, int] = field(default_factory=dict)
    counted: Mapping[Key, Counters] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    stranger: str = ""
    renewed: tuple[str, ...] = ()


def find(machine: Machine, iface: str | None) -> tuple[str, ...]:
    """The interfaces of the balancer to look after.

    Args:
        machine: Where.
        iface: One of them; None where there is only one balancer.

    Raises:
        NotReadyError: There is none, or no telling which.
    """
    machine.require_privileges()
    found = [
        tuple(machine.interface_name(on.index) or on.name for on in item.state.interfaces)
        for item in machine.running()
    ]
    if iface is not None:
        found = [names for names in found if iface in names]
    if not found:
        raise NotReadyError(
            "no balancer is up" + (f" on {iface}" if iface else ""),
            "start one with 'xdplb up', or name a file with --config",
        )
    if len(found) > 1:
        raise NotReadyError("several balancers are up", "say which one with --iface NAME")
    return found[0]


def look(machine: Machine, interfaces: tuple[str, ...], indexes: Mapping[str, int]) -> Look:
    """See what is there; change nothing.

    Args:
        machine: Where.
        interfaces: The balancer's.
        indexes: What they were when the balancer was seen on them.
    """
    there = {
        name: index for name in interfaces if (index := machine.interface_index(name)) is not None
    }
    missing = tuple(name for name in interfaces if name not in there)
    running = _running(machine, {*there.values(), *indexes.values()})
    if running is not None:
        names = {
            machine.interface_name(on.index) or on.name: on.index for on in running.state.interfaces
        }
        return Look(
            running.state.request,
            tuple(names),
            names,
            counters(running, machine.traffic(running)),
        )
    stranger = next((name for name, index in there.items() if machine.attached(index)), "")
    renewed = tuple(name for name, index in there.items() if indexes.get(name, index) != index)
    return Look(None, missing=missing, stranger=stranger, renewed=renewed)


def _running(machine: Machine, indexes: set[int]) -> Running | None:
    """The balancer on some of these interfaces."""
    for item in machine.running():
        if indexes & {on.index for on in item.state.interfaces}:
            return item
    return None


def begin(machine: Machine, wanted: Request) -> tuple[Request, Applied]:
    """Make what is wanted run; what runs already keeps the states of its backends.

    Returns:
        What is wanted, with all addresses; and what was done.

    Raises:
        XdplbError: And then everything is as it was.
    """
    complete = addressed(machine, wanted, machine.link(wanted.interfaces[0]))
    running = running_on(machine, wanted.interfaces)
    adopted = adopt(complete, running.state.request) if running is not None else complete
    return complete, applying.apply(machine, adopted)


def reload(
    machine: Machine, wanted: Request, unhealthy: AbstractSet[Key]
) -> tuple[Request, Applied]:
    """Make what is wanted run, but for backends that are known to be down.

    Returns:
        What is wanted, with all addresses; and what was done.

    Raises:
        XdplbError: And then everything is as it was.
    """
    complete = addressed(machine, wanted, machine.link(wanted.interfaces[0]))
    services = tuple(
        replace(
            service,
            backends=tuple(
                replace(item, state=BackendState.DOWN)
                if key_of(service, item) in unhealthy
                else item
                for item in service.backends
            ),
        )
        for service in complete.services
    )
    return complete, applying.apply(machine, replace(complete, services=services))


def renew(machine: Machine, request: Request) -> None:
    """Attach again what was lost with an interface.

    Raises:
        XdplbError: And then everything is as it was.
    """
    start(machine, request)


def follow(machine: Machine, interfaces: tuple[str, ...]) -> bool:
    """Follow an interface or a way that has become another one; whether there was any.

    Raises:
        XdplbError: And then everything is as it was.
    """
    running = running_on(machine, interfaces)
    if running is None:
        return False
    found = applying.preview(machine, running.state.request)
    if found.way is not applying.Way.REPLACE:
        return False
    start(machine, running.state.request)
    return True


def set_states(
    machine: Machine, interfaces: tuple[str, ...], states: Mapping[Key, BackendState]
) -> None:
    """Give backends the states that were decided on; others keep theirs.

    Raises:
        XdplbError: And then nothing is changed.
    """

    def state_of(service: Service, backend: Backend) -> BackendState:
        return states.get(key_of(service, backend), backend.state)

    with machine.lock():
        running = running_on(machine, interfaces)
        if running is not None:
            live.set_states(machine, running, state_of)
