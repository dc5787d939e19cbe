"""What is not as it should be with a balancer that runs, and what to do about it.

Nothing is found out here: what is known of the balancer and of what is around it goes in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from xdplb import __version__
from xdplb.model import Advice, BackendState
from xdplb.quantities import count, percent
from xdplb.verdicts import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from xdplb.facts import Presence
    from xdplb.model import Address, BackendStatus, BalancerStatus, ServiceStatus
    from xdplb.state import AttachedTo, State

ALMOST_FULL: Final = 0.8
"""From which part on it is told that the room of flows or NAT ports comes to an end."""

ENOUGH_FLOWS: Final = 100
"""How many flows a service needs to have before it means something how they are spread."""

FAR: Final = 0.1
"""How far a share is from what is expected when it is worth a word; and at least twice as much,
or half as much."""

SILENT: Final = 3
"""Packets without an answer from which on somebody would have answered."""

_OFF_TABLE: Final = 0.02
"""How far the part of the table may be from what is expected; it is built to fit."""

_NAMED: Final = 3
"""How many backends are named; of others, how many there are."""

_FOLLOW: Final = "'xdplb up' again follows, and flows stay; 'xdplb run' does so by itself"


@dataclass(frozen=True, slots=True)
class Around:
    """What is around a balancer.

    Attributes:
        presences: What its interfaces are now, by index; None for one that is not here.
        strangers: Words for programs on them that are not the balancer's, by index.
        lost: Its addresses that are not this host's.
        traced_for: For how many seconds it tells what it does; None where it does not.
    """

    presences: Mapping[int, Presence | None]
    strangers: Mapping[int, str]
    lost: Sequence[Address] = ()
    traced_for: float | None = None

    @property
    def has_agent(self) -> bool:
        """Whether an agent looks after the balancer."""
        return any(item is not None and item.has_agent for item in self.presences.values())

    def carries(self, index: int, program_id: int) -> bool:
        """Whether an interface carries a program."""
        there = self.presences.get(index)
        return there is not None and there.program_id == program_id


def warnings(status: BalancerStatus, state: State, around: Around) -> tuple[Advice, ...]:
    """What a person should know of, the worst first.

    Args:
        status: The balancer as it runs.
        state: What it knows of itself.
        around: What is around it.
    """
    is_watched = around.has_agent and any(item.health for item in state.services)
    return tuple(
        chain(
            _of_draining(state),
            _of_interfaces(status, state, around),
            (_lost(address, state) for address in around.lost),
            _of_services(status),
            _of_backends(status.services, is_watched=is_watched),
            _of_answers(status.services, state),
            _of_room(status),
            _of_tables(status.services),
            _of_flows(status.services),
            _of_agent(state, around),
            _of_trace(around),
            _of_version(status),
        )
    )


def expected_shares(backends: Sequence[tuple[BackendState, int]]) -> list[float]:
    """The part of new flows that each backend of a service should get, by state and weight."""
    weights = [weight if state is BackendState.UP else 0 for state, weight in backends]
    total = sum(weights)
    return [weight / total if total else 0.0 for weight in weights]


def _of_draining(state: State) -> Iterator[Advice]:
    if state.draining:
        yield Advice(
            "it is draining: 'xdplb health' says unhealthy, so that clients are sent elsewhere",
            "'xdplb down --drain' takes it down when they are; 'xdplb up' or 'xdplb apply' again "
            "lets them come back",
        )


def _of_interfaces(status: BalancerStatus, state: State, around: Around) -> Iterator[Advice]:
    for item in state.interfaces:
        presence = around.presences.get(item.index)
        stranger = around.strangers.get(item.index, "")
        yield from of_passage(item, presence, status.program_id, stranger)
        if presence is not None and presence.program_id == status.program_id:
            yield from _of_names(item, presence)


def of_passage(
    item: AttachedTo, presence: Presence | None, program_id: int, stranger: str = ""
) -> Iterator[Advice]:
    """Why packets that come by an interface are not balanced, or cannot come.

    Args:
        item: What it was when the program was attached.
        presence: What it is now; None where it is not here.
        program_id: The balancer's program.
        stranger: Words for a program in its place.
    """
    if presence is None:
        yield Advice(
            f"{item.name} is not in this network namespace any more",
            "when it is back, 'xdplb up' again takes it in; 'xdplb run' does so by itself",
        )
        return
    name = presence.name
    if presence.program_id != program_id:
        yield _carries_another(presence, stranger)
    elif not presence.is_up:
        yield Advice(f"{name} is down", f"'ip link set dev {name} up'")
    elif not presence.has_carrier:
        yield Advice(f"{name} has no carrier", "look at the cable, or at what is at its other end")
    elif item.mac and presence.mac.hex(":") != item.mac:
        yield Advice(f"{name} has another MAC address than the program was made for", _FOLLOW)


def _carries_another(presence: Presence, stranger: str) -> Advice:
    name = presence.name
    if stranger:
        return Advice(
            f"{name} carries {stranger} in place of the balancer's program",
            f"'ip link set dev {name} xdp off' takes it off, and 'xdplb up' again balances there",
        )
    return Advice(
        f"{name} does not carry the balancer's program any more",
        "'xdplb up' again balances there; who took it off, 'ip link' or another tool?",
    )


def _of_names(item: AttachedTo, presence: Presence) -> Iterator[Advice]:
    """What else has changed about an interface that carries the program."""
    name = presence.name
    if name != item.name:
        yield Advice(f"{item.name} is called {name} now", _FOLLOW)
    if item.mtu and presence.mtu != item.mtu:
        yield Advice(
            f"the MTU of {name} is {presence.mtu}, and the program was made for {item.mtu}", _FOLLOW
        )


def _lost(address: Address, state: State) -> Advice:
    on = state.interfaces[0].name
    return Advice(
        f"{address} is not an address of this host",
        f"'ip address add {address}/LENGTH dev {on}'; nothing to do where a router sends it here",
    )


def unanswered(status: BalancerStatus) -> list[ServiceStatus]:
    """The services of which no backend takes new flows."""
    return [
        item
        for item in status.services
        if not any(backend.takes_traffic for backend in item.backends)
    ]


def short_of_ports(status: BalancerStatus) -> list[BackendStatus]:
    """The backends, each once, toward which NAT ports come to an end."""
    short = {
        item.backend.place: item
        for item in status.backends
        if item.state is not BackendState.DOWN and item.nat_ports_fill >= ALMOST_FULL
    }
    return list(short.values())


def _of_services(status: BalancerStatus) -> Iterator[Advice]:
    mute = unanswered(status)
    if mute:
        yield Advice(
            f"nobody answers {some(mute)}: no backend takes new flows",
            VERDICTS["drop_no_backend"].hint,
        )


def _of_backends(services: Sequence[ServiceStatus], *, is_watched: bool) -> Iterator[Advice]:
    """Backends that take no traffic; services that have the same ones are told together."""
    for of, down in _alike(services, lambda item: item.state is BackendState.DOWN):
        hint = "the agent lets it back when it is healthy; its log says what is wrong"
        if not is_watched:
            hint = f"'xdplb backend undrain {down[0].backend}' lets it have new flows again"
        yield Advice(f"{_named(down)} of {some(of)} {_are(down)} down", hint)
    for of, lost in _alike(
        services, lambda item: item.mac is None and item.state is not BackendState.DOWN
    ):
        hops = list(dict.fromkeys(item.next_hop for item in lost))
        yield Advice(
            f"{_named(lost)} of {some(of)} {_are(lost)} not resolved: nobody answers for "
            f"{some(hops)} on {lost[0].interface}",
            "see that it is on, and on this network: "
            f"'ip neighbour show {hops[0]}', 'xdplb doctor'",
        )
    for of, drained in _alike(services, lambda item: item.state is BackendState.DRAIN):
        left = count(sum(item.flows for item in drained), "flow")
        yield Advice(
            f"{_named(drained)} of {some(of)} {_are(drained)} drained, with {left} left",
            f"'xdplb backend undrain {drained[0].backend}' lets it have new flows again",
        )


def _of_answers(services: Sequence[ServiceStatus], state: State) -> Iterator[Advice]:
    """Backends from which nothing has ever come back."""
    one_way = {(item.dialled, item.protocol, item.ports) for item in state.services if item.one_way}
    asked = [item for item in services if (item.address, item.protocol, item.ports) not in one_way]
    for of, silent in _alike(asked, _is_silent):
        yield Advice(
            f"{_named(silent)} of {some(of)} {_have(silent)} answered nothing so far",
            "see that the server runs, and answers from the address and port where it was asked; "
            "'xdplb doctor' says more",
        )


def _is_silent(item: BackendStatus) -> bool:
    is_asked = item.state is not BackendState.DOWN and item.packets_in >= SILENT
    return is_asked and not item.packets_out


def _alike(
    services: Sequence[ServiceStatus], is_meant: Callable[[BackendStatus], bool]
) -> Iterator[tuple[list[ServiceStatus], list[BackendStatus]]]:
    """Services that have the same backends of which something is so, and those backends.

    Each backend is there once, with its flows of all these services.
    """
    groups: dict[tuple[object, ...], list[tuple[ServiceStatus, list[BackendStatus]]]] = {}
    for service in services:
        found = [item for item in service.backends if is_meant(item)]
        if found:
            same = groups.setdefault(tuple(item.backend.place for item in found), [])
            same.append((service, found))
    for group in groups.values():
        every = [found for _, found in group]
        yield (
            [service for service, _ in group],
            [
                replace(one[0], flows=sum(item.flows for item in one))
                for one in zip(*every, strict=True)
            ],
        )


def _of_tables(services: Sequence[ServiceStatus]) -> Iterator[Advice]:
    """Whether new flows are spread by weight."""
    wrong = [
        service
        for service in services
        if any(
            abs(item.share - item.expected_share) > _OFF_TABLE
            for item in service.backends
            if item.state is BackendState.UP
        )
    ]
    if wrong:
        yield Advice(
            f"new flows of {some(wrong)} are not spread by the weights of the backends",
            "a change was interrupted; run it again, or 'xdplb up'",
        )


def _of_flows(services: Sequence[ServiceStatus]) -> Iterator[Advice]:
    """Whether the flows that there are are spread by weight: the one that is farthest from it."""
    far = [found for service in services for found in _far(service)]
    if far:
        part, worst, service = max(far, key=lambda it: abs(it[0] - it[1].expected_share))
        expected = percent(worst.expected_share)
        yield Advice(
            f"backend {worst.backend} of {service} has {percent(part)} of the flows, "
            f"its share is {expected}",
            "flows stay where they are after a change, and clients are few or unequal; "
            "--hash 5-tuple spreads also those of one client",
        )


def _far(service: ServiceStatus) -> Iterator[tuple[float, BackendStatus, ServiceStatus]]:
    """Backends whose part of the flows is far from their share, and that part."""
    able = [item for item in service.backends if item.state is BackendState.UP]
    total = sum(item.flows for item in able)
    for item in able if total >= ENOUGH_FLOWS else ():
        if _is_far(item.flows / total, item.expected_share):
            yield item.flows / total, item, service


def _is_far(share: float, expected: float) -> bool:
    return abs(share - expected) >= FAR and not expected / 2 < share < expected * 2


def _of_room(status: BalancerStatus) -> Iterator[Advice]:
    if status.flows_fill >= ALMOST_FULL:
        yield Advice(
            f"the flow table is {percent(status.flows_fill)} full", VERDICTS["drop_table_full"].hint
        )
    short = short_of_ports(status)
    if short:
        most = percent(max(item.nat_ports_fill for item in short))
        yield Advice(
            f"NAT ports toward {_named(short)} are {most} used",
            VERDICTS["drop_no_port"].hint,
        )


def _of_agent(state: State, around: Around) -> Iterator[Advice]:
    if not around.has_agent and any(item.health for item in state.services):
        yield Advice(
            "nobody checks the health of backends: the agent is not running",
            "'xdplb run' starts it; under systemd 'systemctl status xdplb-agent@NAME'",
        )


def _of_trace(around: Around) -> Iterator[Advice]:
    if around.traced_for is not None and around.traced_for <= 0:
        yield Advice(
            "a trace is on that nobody reads, and makes each packet slower",
            "its 'xdplb trace' was killed, or stopped; 'xdplb trace --seconds 1' ends it for good",
        )


def _of_version(status: BalancerStatus) -> Iterator[Advice]:
    if status.version != __version__:
        yield Advice(
            f"xdplb {status.version} has started it, and this is {__version__}",
            "'xdplb up' again takes this version's program; flows stay",
        )


def _named(backends: Sequence[BackendStatus]) -> str:
    """Some backends by name, and how many others there are."""
    noun = "backend" if len(backends) == 1 else "backends"
    return f"{noun} {some([item.backend for item in backends])}"


def some(things: Sequence[object]) -> str:
    """A list in a sentence, not too long."""
    words = [f"{item}" for item in things]
    more = len(words) - _NAMED
    *first, last = words if more <= 1 else [*words[:_NAMED], f"{more} more"]
    return f"{', '.join(first)} and {last}" if first else last


def _are(items: Sequence[object]) -> str:
    return "is" if len(items) == 1 else "are"


def _have(items: Sequence[object]) -> str:
    return "has" if len(items) == 1 else "have"
