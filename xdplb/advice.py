"""What is not as it should be with a balancer that runs, and what to do about it.

Nothing is found out here: what is known of the balancer and of what is around it goes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from xdplb import __version__
from xdplb.model import Advice, BackendState
from xdplb.quantities import count, percent
from xdplb.verdicts import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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

_OFF_TABLE: Final = 0.02
"""How far the part of the table may be from what is expected; it is built to fit."""

_NAMED: Final = 3
"""How many backends are named; of others, how many there are."""


@dataclass(frozen=True, slots=True)
class Around:
    """What is around a balancer.

    Attributes:
        presences: What its interfaces are now, by index; None for one that is not here.
        strangers: Words for programs on them that are not the balancer's, by index.
        lost: Its addresses that are not this host's.
    """

    presences: Mapping[int, Presence | None]
    strangers: Mapping[int, str]
    lost: Sequence[Address] = ()

    @property
    def has_agent(self) -> bool:
        """Whether an agent looks after the balancer."""
        return any(item is not None and item.has_agent for item in self.presences.values())


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
            _of_interfaces(status, state, around),
            (_lost(address, state) for address in around.lost),
            *(_of_service(service, is_watched=is_watched) for service in status.services),
            _of_room(status),
            _of_agent(state, around),
            _of_version(status),
        )
    )


def expected_shares(backends: Sequence[tuple[BackendState, int]]) -> list[float]:
    """The part of new flows that each backend of a service should get, by state and weight."""
    weights = [weight if state is BackendState.UP else 0 for state, weight in backends]
    total = sum(weights)
    return [weight / total if total else 0.0 for weight in weights]


def _of_interfaces(status: BalancerStatus, state: State, around: Around) -> Iterator[Advice]:
    for item in state.interfaces:
        presence = around.presences.get(item.index)
        if presence is None:
            yield Advice(
                f"{item.name} is not in this network namespace any more",
                "when it is back, 'xdplb up' again takes it in; 'xdplb run' does so by itself",
            )
        elif presence.program_id != status.program_id:
            yield _carries_another(presence, around.strangers.get(item.index, ""))
        else:
            yield from _of_interface(item, presence)


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


def _of_interface(item: AttachedTo, presence: Presence) -> Iterator[Advice]:
    """What has changed about an interface that carries the program."""
    name = presence.name
    follow = "'xdplb up' again follows, and flows stay; 'xdplb run' does so by itself"
    if name != item.name:
        yield Advice(f"{item.name} is called {name} now", follow)
    if not presence.is_up:
        yield Advice(f"{name} is down", f"'ip link set dev {name} up'")
    elif not presence.has_carrier:
        yield Advice(f"{name} has no carrier", "look at the cable, or at what is at its other end")
    if item.mac and presence.mac.hex(":") != item.mac:
        yield Advice(f"{name} has another MAC address than the program was made for", follow)
    if item.mtu and presence.mtu != item.mtu:
        yield Advice(
            f"the MTU of {name} is {presence.mtu}, and the program was made for {item.mtu}", follow
        )


def _lost(address: Address, state: State) -> Advice:
    on = state.interfaces[0].name
    return Advice(
        f"{address} is not an address of this host",
        f"'ip address add {address}/LENGTH dev {on}'; nothing to do where a router sends it here",
    )


def _of_service(service: ServiceStatus, *, is_watched: bool) -> Iterator[Advice]:
    if not any(item.takes_traffic for item in service.backends):
        yield Advice(
            f"nobody answers {service}: no backend takes new flows",
            VERDICTS["drop_no_backend"].hint,
        )
    down = [item for item in service.backends if item.state is BackendState.DOWN]
    if down:
        yield Advice(f"{_named(down)} of {service} {_are(down)} down", _let_back(down, is_watched))
    lost = [item for item in service.backends if item.mac is None and item not in down]
    if lost:
        hops = list(dict.fromkeys(f"{item.next_hop}" for item in lost))
        yield Advice(
            f"{_named(lost)} of {service} {_are(lost)} not resolved: nobody answers for "
            f"{_some(hops)} on {lost[0].interface}",
            "see that it is on, and on this network: "
            f"'ip neighbour show {hops[0]}', 'xdplb doctor'",
        )
    drained = [item for item in service.backends if item.state is BackendState.DRAIN]
    if drained:
        left = sum(item.flows for item in drained)
        yield Advice(
            f"{_named(drained)} of {service} {_are(drained)} drained, with {count(left, 'flow')} "
            "left",
            f"'xdplb backend undrain {drained[0].backend}' lets it have new flows again",
        )
    yield from _of_shares(service)


def _let_back(down: Sequence[BackendStatus], is_watched: bool) -> str:  # noqa: FBT001 - read where it is called
    if is_watched:
        return "the agent lets it back when it is healthy; its log says what is wrong"
    return f"'xdplb backend undrain {down[0].backend}' lets it have new flows again"


def _of_shares(service: ServiceStatus) -> Iterator[Advice]:
    """Whether each backend gets what its weight says, of new flows and of those there are."""
    able = [item for item in service.backends if item.state is BackendState.UP]
    if any(abs(item.share - item.expected_share) > _OFF_TABLE for item in able):
        yield Advice(
            f"the table of {service} does not fit the weights of its backends",
            "a change was interrupted; run it again, or 'xdplb up'",
        )
        return
    total = sum(item.flows for item in able)
    if total < ENOUGH_FLOWS:
        return
    far = [item for item in able if _is_far(item.flows / total, item.expected_share)]
    if far:
        worst = max(far, key=lambda item: abs(item.flows / total - item.expected_share))
        has, expected = percent(worst.flows / total), percent(worst.expected_share)
        yield Advice(
            f"backend {worst.backend} of {service} has {has} of the flows, its share is {expected}",
            "flows stay where they are after a change, and clients are few or unequal; "
            "--hash 5-tuple spreads also those of one client",
        )


def _is_far(share: float, expected: float) -> bool:
    return abs(share - expected) >= FAR and not expected / 2 < share < expected * 2


def _of_room(status: BalancerStatus) -> Iterator[Advice]:
    if status.flows_fill >= ALMOST_FULL:
        yield Advice(
            f"the flow table is {percent(status.flows_fill)} full", VERDICTS["drop_table_full"].hint
        )
    full = {
        item.backend.place: item
        for item in status.backends
        if item.state is not BackendState.DOWN and item.nat_ports_fill >= ALMOST_FULL
    }
    if full:
        most = percent(max(item.nat_ports_fill for item in full.values()))
        yield Advice(
            f"NAT ports toward {_named(list(full.values()))} are {most} used",
            VERDICTS["drop_no_port"].hint,
        )


def _of_agent(state: State, around: Around) -> Iterator[Advice]:
    if not around.has_agent and any(item.health for item in state.services):
        yield Advice(
            "nobody checks the health of backends: the agent is not running",
            "'xdplb run' starts it; under systemd 'systemctl status xdplb-agent@NAME'",
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
    return f"{noun} {_some([f'{item.backend}' for item in backends])}"


def _some(words: Sequence[str]) -> str:
    """A list in a sentence, not too long."""
    more = len(words) - _NAMED
    *first, last = words if more <= 1 else [*words[:_NAMED], f"{more} more"]
    return f"{', '.join(first)} and {last}" if first else last


def _are(items: Sequence[object]) -> str:
    return "is" if len(items) == 1 else "are"
