"""Every check in its turn: what is asked, and who judges the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from xdplb.doctor import addresses, backend, balancer, host, interface, native
from xdplb.doctor.collecting import Findings
from xdplb.doctor.findings import BACKEND, Done, Result
from xdplb.doctor.interface import UNUSED, Use
from xdplb.errors import XdplbError
from xdplb.model import Mode
from xdplb.wire import NO_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from xdplb.doctor.evidence import Case, Examiner, Interface, Peer
    from xdplb.doctor.findings import Finding, Opinion
    from xdplb.facts import Link
    from xdplb.model import Address, BackendStatus

_Evidence = TypeVar("_Evidence")

MACHINE: Final = "machine"


def examine(examiner: Examiner, interfaces: Sequence[str] = ()) -> list[Finding]:
    """Look at the machine, at interfaces, and at the balancers on them; change nothing.

    Args:
        examiner: Who answers.
        interfaces: Those to look at, and the balancers on them; empty for all balancers.
    """
    findings = Findings()
    _machine(examiner, findings)
    cases: tuple[Case, ...] = ()
    carriers: tuple[str, ...] = ()
    with findings.guard("balancers", MACHINE):
        carriers = examiner.carriers()
        with findings.guard("balancers", MACHINE, is_fatal=True):
            cases = examiner.cases()
    if interfaces:
        cases = tuple(item for item in cases if set(interfaces) & set(item.names))
    uses = {name: use for item in cases for name, use in _uses(item).items() if name}
    names = [*interfaces, *uses, *(() if interfaces else carriers)]
    for name in dict.fromkeys(names):
        _interface(examiner, name, uses.get(name, UNUSED), findings)
    for item in cases:
        _balancer(examiner, item, findings)
    return findings.found


def mend(examiner: Examiner, findings: Sequence[Finding]) -> list[Done]:
    """Do what can be done without harm to traffic, each thing once."""
    repairs = {
        item.opinion.fix.repair: item
        for item in findings
        if item.opinion.fix is not None and item.opinion.fix.repair is not None
    }
    done = [Done(item, examiner.repair(repair)) for repair, item in repairs.items()]
    if done:
        examiner.settle()
    return done


def _machine(examiner: Examiner, findings: Findings) -> None:
    def check(name: str, judge: Callable[[], Opinion | list[Opinion]]) -> None:
        findings.check(name, MACHINE, judge)

    check("privileges", lambda: host.privileges(examiner.lacking()))
    check("kernel", lambda: host.kernel(examiner.kernel(), examiner.too_old()))
    check("bcc", lambda: host.bcc(examiner.bcc()))
    check("libbpf", lambda: host.libbpf(examiner.libbpf()))
    with findings.guard("program", MACHINE):
        trial = examiner.trial()
        check("program", lambda: host.program(trial))
        check("jit", lambda: host.jit(trial))
    for name, setting, judge in _SETTINGS:
        check(name, lambda setting=setting, judge=judge: judge(examiner.setting(setting)))  # type: ignore[misc]
    check("memlock", lambda: host.memlock(examiner.kernel(), examiner.memlock()))
    check("lockdown", lambda: host.lockdown(examiner.lockdown()))
    check("firewall", lambda: host.firewall(examiner.chains()))
    check("leftovers", lambda: host.leftovers(examiner.leftovers()))


_SETTINGS: Final = (
    ("jit-hardening", "net/core/bpf_jit_harden", host.hardening),
    ("statistics", "kernel/bpf_stats_enabled", host.statistics),
    ("unprivileged-bpf", "kernel/unprivileged_bpf_disabled", host.unprivileged),
)


def _uses(case: Case) -> dict[str, Use]:
    """What a balancer makes of its interfaces, by their names of now."""
    state = case.running.state
    return {
        name: Use(
            mode=item.mode,
            before=item,
            program_id=case.running.program_id,
            several=len(state.interfaces) > 1,
            has_tags=any(
                record.tag != NO_TAG and record.interface == slot
                for records in case.running.records.values()
                for record in records
            ),
        )
        for slot, (item, name) in enumerate(zip(state.interfaces, case.names, strict=True))
    }


def _interface(examiner: Examiner, name: str, use: Use, findings: Findings) -> None:
    scope = f"interface {name}"

    def check(what: str, judge: Callable[[], Opinion]) -> None:
        findings.check(what, scope, judge)

    found: Interface | None = None
    with findings.guard("link", scope, is_fatal=True):
        found = examiner.interface(name)
    if found is None:
        return
    here, link = found, found.link
    features = _or_none(lambda: examiner.features(link.index))
    queues = _or_none(lambda: examiner.queues(name))
    peer: Peer | None = None
    if link.peer_index is not None:
        with findings.guard("peer", scope):
            peer = examiner.peer(link)
            findings.add("peer", scope, native.peer(link, peer, features, use))
    check("link", lambda: interface.link(here, peer))
    check("program", lambda: interface.program(name, examiner.program(link.index), use))
    check("mode", lambda: native.mode(link, features, peer, queues, use))
    check("mtu", lambda: interface.width(link, peer, use))
    check("mac", lambda: interface.mac(link, use))
    with findings.guard("offloads", scope):
        on = examiner.offloads(name)
        check("offloads", lambda: interface.offloads(link, on, use))
        check("vlan", lambda: interface.vlan(here, on, use))
    if use.mode is None:
        check("address", lambda: interface.address(name, examiner.addresses(link.index)))


def _or_none(ask: Callable[[], _Evidence | None]) -> _Evidence | None:
    """An answer that others only refine."""
    try:
        return ask()
    except (XdplbError, OSError):
        return None


def _balancer(examiner: Examiner, case: Case, findings: Findings) -> None:
    state, status = case.running.state, case.status
    names = [name or item.name for item, name in zip(state.interfaces, case.names, strict=True)]
    scope = f"balancer {','.join(names)}"
    on = {item.index: name for item, name in zip(state.interfaces, case.names, strict=True) if name}

    def check(what: str, judge: Callable[[], Opinion | list[Opinion]]) -> None:
        findings.check(what, scope, judge)

    check("interfaces", lambda: balancer.interfaces(case, examiner.namespace()))
    check("version", lambda: balancer.version(case))
    check("secret", lambda: balancer.secret(case))
    if len(on) > 1:
        _several(examiner, list(on.values()), state.interfaces[0].mode, scope, findings)
    _ports(examiner, case, scope, findings)
    if on:
        with findings.guard("address", scope):
            _addresses(examiner, case, on, scope, findings)
    check("services", lambda: balancer.services(status))
    check("room", lambda: balancer.room(status))
    check("macs", lambda: balancer.macs(status))
    check("agent", lambda: balancer.agent(case, examiner.agents(), _problems(examiner, case)))
    check("trace", lambda: balancer.trace(case))
    check("drops", lambda: balancer.drops(status.verdicts))
    _backends(examiner, case, on, findings)


def _several(
    examiner: Examiner, names: Sequence[str], mode: Mode, scope: str, findings: Findings
) -> None:
    """What matters only where a packet leaves by another interface than it came by."""
    links: list[Link] = []
    with findings.guard("widths", scope):
        links = [examiner.interface(name).link for name in names]
        findings.add("widths", scope, balancer.widths(links))
    for link in links:
        if mode is Mode.NATIVE and link.peer_index is None:
            features = _or_none(lambda link=link: examiner.features(link.index))  # type: ignore[misc]
            findings.add("redirect", scope, balancer.sends(link, features))


def _ports(examiner: Examiner, case: Case, scope: str, findings: Findings) -> None:
    """The ports that the host could want, too."""
    state = case.running.state
    with findings.guard("nat-ports", scope):
        ephemeral = examiner.ephemeral()
        text = (examiner.setting("net/ipv4/ip_local_reserved_ports") or "").strip()
        reserved = addresses.port_ranges(text)
        findings.add(
            "nat-ports",
            scope,
            addresses.nat_ports(state.nat_ports, ephemeral, reserved, text),
        )
        with findings.guard("sockets", scope):
            sockets = examiner.sockets()
            backends = {
                (item.address, service.protocol)
                for service in state.services
                for item in service.backends
            }
            findings.add("sockets", scope, addresses.sockets(state.services, sockets, ephemeral))
            findings.add(
                "host-connections", scope, addresses.talking(sockets, backends, state.nat_ports)
            )


def _addresses(
    examiner: Examiner, case: Case, on: Mapping[int, str], scope: str, findings: Findings
) -> None:
    """The addresses of services and for NAT."""
    mine = tuple(dict.fromkeys(it for side in case.running.state.sides for it in side.addresses))
    owners = examiner.owners(mine, tuple(on))
    ignore = {
        name: {
            setting: int(examiner.setting(setting) or 0)
            for setting in (f"net/ipv4/conf/{it}/arp_ignore" for it in ("all", name))
        }
        for name in on.values()
    }
    for item in mine:
        findings.add("address", scope, addresses.address(item, owners[item], on, ignore))


def _problems(examiner: Examiner, case: Case) -> list[str]:
    """Why checks that services ask for cannot be made here."""
    found = (
        examiner.check_problem(service.health.check, service.dialled)
        for service in case.running.state.services
        if service.health is not None
    )
    return [problem for problem in dict.fromkeys(found) if problem]


def _backends(examiner: Examiner, case: Case, on: Mapping[int, str], findings: Findings) -> None:
    """Each backend once, whatever number of services it answers."""
    one_way = {
        (service.dialled, service.protocol, service.ports): service.one_way
        for service in case.running.state.services
    }
    by_address: dict[Address, list[BackendStatus]] = {}
    is_one_way: dict[Address, bool] = {}
    for service in case.status.services:
        for item in service.backends:
            address = item.backend.address
            by_address.setdefault(address, []).append(item)
            place = (service.address, service.protocol, service.ports)
            is_one_way[address] = is_one_way.get(address, True) and one_way.get(place, False)
    release = _or_none(examiner.kernel)
    is_kept = release is None or host.keeps_next_hops(release)
    for address, items in by_address.items():
        scope = f"{BACKEND}{address}"
        _way(examiner, items[0], set(on), is_kept=is_kept, scope=scope, findings=findings)
        findings.add("answers", scope, backend.answers(items, one_way=is_one_way[address]))


def _way(  # noqa: PLR0913 - all that the way depends on
    examiner: Examiner,
    item: BackendStatus,
    indexes: Collection[int],
    *,
    is_kept: bool,
    scope: str,
    findings: Findings,
) -> None:
    with findings.guard("route", scope):
        route = examiner.route(item.backend.address)
        judged = backend.route(item, route, indexes)
        findings.add("route", scope, judged)
        if route.way is None or judged.result is Result.FAIL:
            return
        way, name = route.way, route.interface
        findings.check(
            "next-hop",
            scope,
            lambda: backend.next_hop(
                item,
                examiner.next_hop(way.ifindex, item.next_hop),
                name,
                way.ifindex,
                is_kept=is_kept,
            ),
        )
