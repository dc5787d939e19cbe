"""``apply``: from what runs to what is wanted, by the difference alone.

Where only backends differ, records and tables are written; else a new program takes over with
the maps of the old one. Either way a packet meets the old balancer or the new one, and flows stay
where they are, unless their backend or their service is gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from xdplb import live
from xdplb.model import Mode
from xdplb.plan import make_plan
from xdplb.startup import facts_of, running_on, start, survey
from xdplb.wire import BackendCode

if TYPE_CHECKING:
    from xdplb.facts import Running
    from xdplb.machine import Machine
    from xdplb.model import Backend
    from xdplb.plan import Plan
    from xdplb.request import Request, Service
    from xdplb.startup import Report, Scene


class Way(StrEnum):
    """How a balancer becomes what is wanted."""

    NOTHING = "nothing"
    WRITE = "write"
    REPLACE = "replace"
    START = "start"


@dataclass(frozen=True, slots=True)
class Preview:
    """What ``apply`` would do.

    Attributes:
        before: What runs; None for nothing.
        after: What is wanted, with all addresses.
        moving: Live flows whose backend goes: their next packet finds another one.
        ending: Live flows whose service goes.
        draining: What runs is to be taken down soon, and is not any more when this is applied.
    """

    way: Way
    before: Request | None
    after: Request
    moving: int = 0
    ending: int = 0
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """What ``apply`` did.

    Attributes:
        report: Where a program was attached, what ``up`` says of that.
        unresolved: Backends that nobody has answered for yet.
    """

    preview: Preview
    report: Report | None
    unresolved: tuple[Backend, ...]


def preview(machine: Machine, request: Request) -> Preview:
    """Find out what ``apply`` would do; change nothing.

    Raises:
        XdplbError: What is wanted cannot be had here.
    """
    machine.require_privileges()
    scene = survey(machine, request)
    if scene.old is None:
        return Preview(Way.START, None, scene.request)
    plans = [make_plan(scene.request, facts_of(scene, version)) for version in request.versions]
    moving, ending = _moves(machine, scene.old, plans)
    before = scene.old.state.request
    after = _like(scene.request, before)
    way = _way(scene, before, after)
    return Preview(way, before, after, moving, ending, scene.old.state.draining)


def _way(scene: Scene, before: Request, after: Request) -> Way:
    if _frame(before) != _frame(after) or has_moved(scene):
        return Way.REPLACE
    return Way.NOTHING if set(before.services) == set(after.services) else Way.WRITE


def has_moved(scene: Scene) -> bool:
    """Whether an interface or a way to a backend is another one than when the program began."""
    running = scene.old
    if running is None:
        return True
    for on, link in zip(running.state.interfaces, scene.links, strict=True):
        if (on.index, on.mac, on.mtu) != (link.index, link.mac.hex(":"), link.mtu):
            return True
    for records in running.records.values():
        for record in records:
            hop = scene.hops.get(record.address)
            if record.state is not BackendCode.UNUSED and hop is not None:
                was = (record.next_hop, record.interface, record.tag)
                if was != (hop.next_hop, hop.slot, hop.tag):
                    return True
    return False


def _like(after: Request, before: Request) -> Request:
    """What is wanted, with the words for "as it is" replaced by what that is."""
    return replace(
        after,
        mode=before.mode if after.mode is Mode.AUTO else after.mode,
        max_flows=after.max_flows or before.max_flows,
        nat_ports=tuple(sorted(after.nat_ports)) or before.nat_ports,
    )


def _frame(request: Request) -> tuple[object, ...]:
    """All that a program is compiled for, and its maps are made for."""
    return (
        frozenset(request.interfaces),
        request.mode,
        request.max_flows,
        request.nat_ports,
        request.vlan,
        request.max_client_flows,
        request.secret,
        request.virtual_mac,
        frozenset(map(_outside, request.services)),
    )


def _outside(service: Service) -> tuple[object, ...]:
    """A service without its backends."""
    return (
        service.address,
        service.protocol,
        service.ports,
        service.hash,
        service.timeouts,
        service.nat_addresses,
        service.reservations,
    )


def _moves(machine: Machine, old: Running, plans: list[Plan]) -> tuple[int, int]:
    """How many live flows have to go to another backend, and how many end with their service."""
    moving = ending = 0
    planned = {plan.version: plan for plan in plans}
    for side in old.state.sides:
        flows = machine.usage(old, side.version).flows
        plan = planned.get(side.version)
        removed = (
            {item.number for item in plan.removed}
            if plan
            else {item.number for item in side.services}
        )
        for number, record in enumerate(old.records[side.version]):
            if record.state is BackendCode.UNUSED:
                continue
            if record.service in removed:
                ending += flows.get(number, 0)
            elif plan and not _keeps(plan, number, record.generation):
                moving += flows.get(number, 0)
    return moving, ending


def _keeps(plan: Plan, number: int, generation: int) -> bool:
    """Whether the flows of a backend stay with it."""
    record = plan.records[number]
    stays = {BackendCode.UP, BackendCode.DRAIN, BackendCode.HELD}
    return record.state in stays and record.generation == generation


def apply(machine: Machine, request: Request, found: Preview, *, draining: bool = False) -> Applied:
    """Make what runs what is wanted.

    Args:
        machine: Where.
        request: What is wanted.
        found: What ``preview`` said of that; what another command has changed since then is seen.
        draining: It is still to be taken down soon, if it was.

    Raises:
        XdplbError: And then everything is as it was.
    """
    # With nothing to change, what an apply that was killed has left half done is put right.
    if found.way in {Way.WRITE, Way.NOTHING}:
        try:
            with machine.lock():
                running = running_on(machine, found.after.interfaces)
                if running is not None and running.state.request == found.before:
                    running = replace(running, state=replace(running.state, draining=draining))
                    unresolved = live.rewrite(machine, running, found.after, running.state.versions)
                    return Applied(found, None, tuple(dict.fromkeys(unresolved)))
        except live.NoRoomError:
            pass
    report = start(machine, request, draining=draining)
    return Applied(found, report, report.unresolved)
