"""``up``: one transaction, from the request to the attached program.

Survey, plan, compile, load, attach. Until the program is attached nothing that a packet
could meet has changed; whatever a step changes outside is undone when a later one fails.
"""

from __future__ import annotations

import os
import secrets
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xdplb.errors import AttachError, BusyError, InvalidValueError, UnreachableError
from xdplb.facts import Running
from xdplb.flags import flags, shares_ports
from xdplb.model import IPV6, Mode
from xdplb.plan import Facts, Hop, Port, in_places, make_plan, with_macs
from xdplb.secret import hash_keys
from xdplb.source import verdicts
from xdplb.state import AttachedTo, Restore, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.facts import Link
    from xdplb.machine import Machine
    from xdplb.model import Address, Backend, PortRange
    from xdplb.plan import Plan
    from xdplb.request import Request, Service
    from xdplb.saved import Restored, Saved


@dataclass(frozen=True, slots=True)
class Report:
    """What ``up`` did.

    Attributes:
        replaced: A running balancer was replaced, and its flows kept.
        unresolved: Backends that nobody has answered for yet.
        notes: What a person should know, one sentence each.
        restored: What became of the saved flows, if there were any to go on with.
    """

    interfaces: tuple[AttachedTo, ...]
    services: tuple[Service, ...]
    replaced: bool
    unresolved: tuple[Backend, ...]
    notes: tuple[str, ...]
    restored: Restored | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What ``up`` found before it changed anything.

    Attributes:
        request: With an address for each service, and the secret of what runs.
        old: The balancer that runs on these interfaces.
        hash_keys: Two secret 64-bit numbers, the same for all services.
        hops: The way to each backend address.
        draining: The new balancer is to be taken down soon, like the one that it replaces.
    """

    request: Request
    links: tuple[Link, ...]
    old: Running | None
    hash_keys: tuple[int, int]
    hops: Mapping[Address, Hop]
    ephemeral: PortRange
    draining: bool = False


def start(
    machine: Machine, request: Request, saved: Saved | None = None, *, draining: bool = False
) -> Report:
    """Start a balancer, or replace the one that runs and keep its flows.

    Args:
        machine: Where.
        request: What is to run.
        saved: Flows that it is to go on with.
        draining: It is to be taken down soon, like the one that it replaces.

    Raises:
        XdplbError: And then everything is as it was.
    """
    machine.require_privileges()
    if saved is not None:
        saved.refuse_others(request.versions)
    with machine.lock():
        return start_alone(machine, request, saved, draining=draining)


def start_alone(
    machine: Machine, request: Request, saved: Saved | None = None, *, draining: bool = False
) -> Report:
    """The same, for a caller that has the lock.

    Raises:
        XdplbError: And then everything is as it was.
    """
    with ExitStack() as undo:
        scene = replace(survey(machine, request), draining=draining)
        watched = watch(machine, scene.hops, scene.old, undo)
        notes = []
        for mode in (modes := _modes(scene)):
            try:
                report, state, ending = _start_in(machine, scene, mode, watched, saved)
            except BusyError:
                raise
            except AttachError as error:
                if mode is modes[-1]:
                    raise
                notes.append(f"{error}; using generic mode")
                continue
            undo.pop_all()  # from here on the new program runs, and what it needs stays
            for program_id, plan in ending:
                machine.end_services(program_id, plan)
            _let_go(machine, scene, state)
            return replace(report, notes=(*notes, *report.notes))
    raise AssertionError(modes)  # the last mode returned or raised


# Survey


def survey(machine: Machine, request: Request) -> Scene:
    """Look at the machine; change nothing.

    Raises:
        XdplbError: The request does not fit what is there.
    """
    asked_links = tuple(machine.link(name) for name in request.interfaces)
    old = _running_on(machine, asked_links)
    links = _in_places(asked_links, old)
    keys = _hash_keys(request, old)
    if old is not None:
        _refuse_resize(request, old.state)
        request = replace(request, secret=request.secret or old.state.secret)
    if IPV6 in request.versions:
        for link in links:
            machine.settle(link)
    request = addressed(machine, request, asked_links[0])
    return Scene(
        request=request,
        links=links,
        old=old,
        hash_keys=keys,
        hops=_hops(machine, request, links),
        ephemeral=machine.ephemeral_ports(),
    )


def addressed(machine: Machine, request: Request, link: Link) -> Request:
    """The request with an address for each service: the interface's own where none is named.

    Raises:
        XdplbError: The interface has none, or it does not fit.
    """
    asked = dict.fromkeys(item.version for item in request.services if item.address is None)
    return request.with_addresses({version: machine.address(link, version) for version in asked})


def _running_on(machine: Machine, links: Sequence[Link]) -> Running | None:
    """The balancer that these interfaces carry already, if any."""
    by_id = {item.program_id: item for item in machine.running()}
    found: dict[int, Running] = {}
    for link in links:
        there = machine.attached(link.index)
        if there is None:
            continue
        if there.program_id not in by_id:
            raise AttachError(
                f"{link.name} already carries XDP {machine.describe(there.program_id)}, "
                "which is not xdplb's",
                f"if nobody needs it, 'ip link set dev {link.name} xdp off' removes it",
            )
        found[there.program_id] = by_id[there.program_id]
    if len(found) > 1:
        raise InvalidValueError(
            "these interfaces belong to different balancers",
            "'xdplb status' shows them; take one down first",
        )
    return next(iter(found.values()), None)


def _in_places(links: Sequence[Link], old: Running | None) -> tuple[Link, ...]:
    """The interfaces in the order of their numbers: those that run keep theirs.

    Flows and datagrams in fragments remember by number where their client is.
    """
    by_index = {link.index: link for link in links}
    running = [item.index for item in old.state.interfaces] if old else []
    return tuple(by_index[index] for index in in_places(list(by_index), running))


def _refuse_resize(request: Request, state: State) -> None:
    """Flows cannot move to another table; what shapes it stays until ``down``."""
    shape = (
        ("--max-flows", request.max_flows or state.capacity, state.capacity),
        ("--nat-ports", tuple(sorted(request.nat_ports or state.nat_ports)), state.nat_ports),
    )
    for option, wanted, is_now in shape:
        if wanted != is_now:
            text = is_now if isinstance(is_now, int) else " ".join(f"{item}" for item in is_now)
            raise InvalidValueError(
                f"{option} cannot change while the balancer runs with {text}",
                "leave it as it is, or 'xdplb down' first; live flows end with it",
            )
    if request.mode not in {Mode.AUTO, state.interfaces[0].mode}:
        raise InvalidValueError(
            f"the balancer runs in {state.interfaces[0].mode} mode, and the kernel does not "
            "exchange a program for one in another mode",
            "'xdplb down' first; live flows end with it",
        )


def _hash_keys(request: Request, old: Running | None) -> tuple[int, int]:
    """The keys that run; where nothing does, those of the secret that is named, or new ones.

    Raises:
        InvalidValueError: Others run: where flows lie, and how clients are counted, is of these.
        NotReadyError: The secret cannot be used.
    """
    asked = None if request.secret is None else hash_keys(request.secret)
    if old is None:
        return asked or (secrets.randbits(64), secrets.randbits(64))
    if asked not in {None, old.state.hash_keys}:
        is_now = old.state.secret
        whose = "keys of its own" if is_now is None else f"another secret, once read from {is_now}"
        raise InvalidValueError(
            f"--secret {request.secret} cannot take effect while the balancer runs with {whose}",
            "'xdplb save FILE', 'xdplb down', and 'up' again with the secret and --restore FILE: "
            "flows keep their backends and NAT ports",
        )
    return old.state.hash_keys


def _hops(machine: Machine, request: Request, links: Sequence[Link]) -> dict[Address, Hop]:
    slots = {link.index: slot for slot, link in enumerate(links)}
    hops: dict[Address, Hop] = {}
    for backend in request.backends:
        if backend.address not in hops:
            hops[backend.address] = find_hop(machine, request, backend, slots)
    return hops


def find_hop(machine: Machine, request: Request, backend: Backend, slots: Mapping[int, int]) -> Hop:
    """The way to a backend, by one of the balancer's interfaces or a VLAN on one.

    Args:
        machine: Where.
        request: What is to run.
        backend: Of that.
        slots: The balancer's interfaces: their places by their indexes.

    Raises:
        UnreachableError: The way is by another interface, or there is none.
        InvalidValueError: It is by a VLAN, and those are not wanted.
    """
    way = machine.way(backend.address)
    if way.ifindex in slots:
        return Hop(way.next_hop, slots[way.ifindex], way.ifindex)
    name = machine.interface_name(way.ifindex) or f"interface {way.ifindex}"
    vlan = machine.link(name)
    if vlan.lower is not None and vlan.lower in slots:
        if not request.vlan:
            raise InvalidValueError(
                f"backend {backend} is reached through the VLAN {name}, and --no-vlan is given",
                "leave --no-vlan out",
            )
        return Hop(way.next_hop, slots[vlan.lower], way.ifindex, vlan.tag)
    raise UnreachableError(
        f"backend {backend} is reached through {name}, which is not the balancer's",
        f"add --iface {name}, or correct the route",
    )


def _modes(scene: Scene) -> list[Mode]:
    """The modes to try, in order."""
    if scene.old is not None:
        return [scene.old.state.interfaces[0].mode]
    is_one = len(scene.links) == 1
    hidden = [link.name for link in scene.links if not (is_one or link.is_told_apart)]
    if hidden and scene.request.mode is Mode.NATIVE:
        raise InvalidValueError(
            f"{hidden[0]} is a bond, and native mode does not tell it from other interfaces",
            "leave --mode native out, or give the bond a balancer of its own",
        )
    if scene.request.mode is not Mode.AUTO:
        return [scene.request.mode]
    if hidden or any(link.is_generic_only for link in scene.links):
        return [Mode.GENERIC]
    return [Mode.NATIVE, Mode.GENERIC]


# Changes


def watch(
    machine: Machine, hops: Mapping[Address, Hop], old: Running | None, undo: ExitStack
) -> list[Restore]:
    """Let the kernel ask for every next hop; returns what ``down`` has to undo.

    Args:
        machine: Where.
        hops: The way to each backend address.
        old: A balancer that runs and has asked for some of them.
        undo: What to do when a later step fails.
    """
    places = dict.fromkeys((hop.ifindex, hop.next_hop) for hop in hops.values())
    known = machine.neighbours([index for index, _ in places])
    ours = {
        (item.ifindex, item.address): item
        for item in (old.state.restore if old else ())
        if item.what == "neighbour"
    }
    others = {
        (item.ifindex, item.address)
        for found in machine.found()
        for item in found.restore
        if item.what == "neighbour"
    }
    restore = []
    for index, address in places:
        place = (index, f"{address}")
        there = known.get((index, address))
        item = ours.get(place) or Restore(
            "neighbour",
            machine.namespace(),
            *place,
            existed=there is not None and not there.is_managed,
        )
        if there is not None and (there.is_permanent or there.is_managed):
            is_left = there.is_ours and place not in others  # by a command that was killed
            if place in ours or is_left:
                restore.append(item)
            continue
        undo.callback(machine.restore, item)
        machine.manage(index, address)
        restore.append(item)
    return restore


def _start_in(
    machine: Machine,
    scene: Scene,
    mode: Mode,
    watched: Sequence[Restore],
    saved: Saved | None,
) -> tuple[Report, State, list[tuple[int, Plan]]]:
    """Compile, load and attach in one mode; returns also whose services' flows have to end."""
    with ExitStack() as held, ExitStack() as undo:
        ground = _prepare(machine, scene, mode, undo)
        plans = [
            make_plan(scene.request, _facts(scene, ground.ports, version))
            for version in scene.request.versions
        ]
        share = shares_ports(scene.request.services, scene.ephemeral)
        constants = {plan.version: tuple(flags(plan, shares_ports=share)) for plan in plans}
        code = machine.compile(constants)
        known = machine.neighbours([hop.ifindex for hop in scene.hops.values()])
        plans = [with_macs(plan, known) for plan in plans]
        state = describe(plans, machine.namespace(), [*watched, *ground.changed], constants)
        state = replace(state, draining=scene.draining)
        program_fd = machine.load(code, plans, state, scene.old)
        held.callback(os.close, program_fd)
        old_fd = machine.hold(scene.old.program_id) if scene.old else None
        if old_fd is not None:
            held.callback(os.close, old_fd)
        program_id = machine.program_id(program_fd)
        restored = None
        if scene.old is None:  # the first packet is to meet its flow
            restored = _restore(machine, program_id, state, plans, saved)
        notes = [*ground.notes, *_switch_gro(machine, scene, ground, undo)]
        _attach(machine, scene, ground.ports, (program_fd, old_fd), undo)
        if scene.old is not None:  # the old program would not know these flows
            restored = _restore(machine, program_id, state, plans, saved)
        plans = _resolve_late(machine, plans, program_id)
        undo.pop_all()
    report = Report(
        interfaces=state.interfaces,
        services=scene.request.services,
        replaced=scene.old is not None,
        unresolved=tuple(
            dict.fromkeys(
                target.backend
                for plan in plans
                for target, number in plan.numbers.items()
                if plan.records[number].mac is None
            )
        ),
        notes=tuple(notes),
        restored=restored,
    )
    return report, state, [(program_id, plan) for plan in plans if plan.removed]


def _restore(
    machine: Machine, program_id: int, state: State, plans: Sequence[Plan], saved: Saved | None
) -> Restored | None:
    """Let a loaded program go on with saved flows, if there are any."""
    if saved is None:
        return None
    records = {plan.version: plan.records for plan in plans}
    names = [item.name for item in state.interfaces]
    return machine.restore_flows(Running(program_id, "", state, records), names, saved)


@dataclass(frozen=True, slots=True)
class _Ground:
    """How to leave by each interface, and what that takes.

    Attributes:
        changed: What ``down`` has to put back.
        gro: Those of them that are still to be switched.
        notes: What a person must know.
    """

    ports: tuple[Port, ...]
    changed: list[Restore]
    gro: list[Restore]
    notes: list[str]


def _prepare(machine: Machine, scene: Scene, mode: Mode, undo: ExitStack) -> _Ground:
    """Find out how to leave by each interface; only packets that come in are seen to at once."""
    ports, gro = [], []
    changed, notes = _split(machine, scene, mode, undo)
    changed += [
        item for item in (scene.old.state.restore if scene.old else ()) if item.what == "gro"
    ]
    for link in scene.links:
        redirect = False
        if mode is Mode.NATIVE:
            prepared = machine.prepare(link)
            redirect = prepared.redirect
            if prepared.restore is not None:
                gro.append(prepared.restore)
                if prepared.restore not in changed:
                    changed.append(prepared.restore)
            if prepared.warning:
                notes.append(prepared.warning)
        ports.append(Port(link.name, link.index, link.mac, mode, redirect, link.mtu))
    return _Ground(tuple(ports), changed, gro, notes)


def _switch_gro(machine: Machine, scene: Scene, ground: _Ground, undo: ExitStack) -> list[str]:
    """Let the peers take what the program will send; returns what a person must know.

    That is done last: from then on until the program is attached, which knows how to put it
    back, nobody but this process knows.
    """
    old = scene.old.state.restore if scene.old else ()
    notes = []
    for item in ground.gro:
        if item not in old:
            undo.callback(machine.restore, item)
        notes.append(machine.switch_gro(item))
    return [note for note in notes if note]


def _split(
    machine: Machine, scene: Scene, mode: Mode, undo: ExitStack
) -> tuple[list[Restore], list[str]]:
    """Let packets come one by one where the kernel takes no larger ones.

    A generic program meets TCP and UDP in super-packets of up to 64 KB, and the kernel sends
    what is larger than the MTU back by the interface it came in by, but by no other one.
    """
    if mode is not Mode.GENERIC or len(scene.links) == 1:
        return [], []
    old = scene.old.state.restore if scene.old else ()
    changed: list[Restore] = []
    notes: list[str] = []
    for link in scene.links:
        split = machine.split(link)
        changed += [item for item in old if item in split.off and item not in changed]
        for item in split.changed:
            undo.callback(machine.restore, item)
            if item not in changed:
                changed.append(item)
        notes += split.warnings
    return changed, notes


def facts_of(scene: Scene, version: int) -> Facts:
    """What a plan for one IP version depends on, as long as no mode is chosen."""
    mode = scene.old.state.interfaces[0].mode if scene.old else Mode.NATIVE
    ports = tuple(
        Port(link.name, link.index, link.mac, mode, redirect=False, mtu=link.mtu)
        for link in scene.links
    )
    return _facts(scene, ports, version)


def running_on(machine: Machine, interfaces: Sequence[str]) -> Running | None:
    """The balancer that these interfaces carry, if any.

    Raises:
        XdplbError: They carry something else, or several.
    """
    return _running_on(machine, [machine.link(name) for name in interfaces])


def _facts(scene: Scene, ports: tuple[Port, ...], version: int) -> Facts:
    old = scene.old
    return Facts(
        version=version,
        ports=ports,
        hops=scene.hops,
        ephemeral=scene.ephemeral,
        hash_keys=scene.hash_keys,
        side=old.state.side(version) if old else None,
        records=old.records.get(version, ()) if old else (),
        nat_ports=old.state.nat_ports if old else (),
        capacity=old.state.capacity if old else None,
    )


def describe(
    plans: Sequence[Plan],
    namespace: int,
    restore: Sequence[Restore],
    constants: Mapping[int, Sequence[str]],
) -> State:
    """What the balancer is to know of itself.

    Args:
        plans: What runs, one for each IP version.
        namespace: Inode of the network namespace.
        restore: What ``down`` has to undo.
        constants: What the program is compiled with, by IP version.
    """
    plan = plans[0]
    request, facts = plan.request, plan.facts
    return State(
        netns=namespace,
        interfaces=tuple(
            AttachedTo(port.name, port.index, port.mode, port.mac.hex(":"), port.mtu)
            for port in facts.ports
        ),
        sides=tuple(item.side for item in plans),
        hash_keys=facts.hash_keys,
        capacity=plan.capacity,
        nat_ports=plan.pool.ranges,
        vlan=request.vlan,
        max_client_flows=request.max_client_flows,
        secret=request.secret,
        virtual_mac=request.virtual_mac,
        verdicts=verdicts(),
        restore=tuple(restore),
        flags=constants,
    )


def _attach(
    machine: Machine,
    scene: Scene,
    ports: Sequence[Port],
    descriptors: tuple[int, int | None],
    undo: ExitStack,
) -> None:
    """Attach to every interface, or to none: new ones first, then those that are replaced.

    Of these, the ones that backends are behind come first: a new backend's answer must not meet
    the old program, which does not know it, while requests meet the new one.
    """
    old_id = scene.old.program_id if scene.old else None
    program_fd, old_fd = descriptors
    new_id = machine.program_id(program_fd)
    replaced = []
    of_backends = {ports[hop.slot].index for hop in scene.hops.values()}
    for port in sorted(ports, key=lambda port: port.index not in of_backends):
        there = machine.attached(port.index)
        if there is not None and there.program_id == old_id:
            replaced.append(port)
            continue
        machine.attach(port.index, port.name, program_fd, port.mode, None)
        undo.callback(machine.detach, port.index, port.name, new_id, port.mode)
    for port in replaced:
        machine.attach(port.index, port.name, program_fd, port.mode, old_id)
        if old_fd is not None:
            undo.callback(machine.attach, port.index, port.name, old_fd, port.mode, new_id)


def _resolve_late(machine: Machine, plans: Sequence[Plan], program_id: int) -> list[Plan]:
    """Write the MAC addresses of next hops that answered before the program listened."""
    known = machine.neighbours([hop.ifindex for hop in plans[0].facts.hops.values()])
    resolved = []
    for plan in plans:
        later = with_macs(plan, known)
        for number, record in enumerate(later.records):
            if plan.records[number].mac is None and record.mac is not None:
                machine.set_backend(program_id, number, record)
        resolved.append(later)
    return resolved


def _let_go(machine: Machine, scene: Scene, state: State) -> None:
    """Leave interfaces and next hops that the replaced balancer had and this one has not."""
    if scene.old is None:
        return
    indexes = {item.index for item in state.interfaces}
    for item in scene.old.state.interfaces:
        if item.index not in indexes:
            name = machine.interface_name(item.index) or item.name
            machine.detach(item.index, name, scene.old.program_id, item.mode)
    for restore in scene.old.state.restore:
        if restore not in state.restore:
            machine.restore(restore)
