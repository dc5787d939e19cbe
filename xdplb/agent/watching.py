"""Whom the agent watches, and what follows for the states of backends. Nothing is done here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from xdplb.health.monitor import Watched
from xdplb.health.passive import Counters, Passive
from xdplb.health.probes import Target, require
from xdplb.health.verdict import Member, decide
from xdplb.model import ALL_PORTS, BackendState, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from xdplb.checks import Health
    from xdplb.facts import Running
    from xdplb.health.passive import Findings
    from xdplb.model import Address, Backend
    from xdplb.request import Request, Service
    from xdplb.wire import StatsRecord


class Key(NamedTuple):
    """A backend of a service, whatever else of the two changes."""

    dialled: Address
    protocol: Protocol
    first_port: int
    address: Address
    port: int | None


def key_of(service: Service, backend: Backend) -> Key:
    """What a backend of a running service is known by."""
    first = min(item.first for item in service.ports)
    return Key(service.dialled, service.protocol, first, backend.address, backend.port)


def members(request: Request) -> Iterator[tuple[Service, Backend, Key]]:
    """All backends of all services."""
    for service in request.services:
        for backend in service.backends:
            yield service, backend, key_of(service, backend)


def watched(request: Request) -> list[Watched[Key]]:
    """The backends that are to be asked."""
    return [
        Watched(
            key,
            Target(backend.address, _asked_at(service, backend), service.protocol, f"{service}"),
            service.health,
            healthy=backend.state is not BackendState.DOWN,
        )
        for service, backend, key in members(request)
        if service.health is not None
    ]


def _asked_at(service: Service, backend: Backend) -> int | None:
    """The port that a check goes to, if it goes to one."""
    health = service.health
    if health is not None and health.port is not None:
        return health.port
    if backend.port is not None or service.ports == ALL_PORTS:
        return backend.port
    return service.ports[0].first


def judged(request: Request) -> Iterator[tuple[Service, Health]]:
    """The services whose traffic says something about their backends."""
    for service in request.services:
        if service.health is not None and service.protocol is Protocol.UDP:
            yield service, service.health


def counters(
    running: Running, traffic: Mapping[int, Mapping[int, StatsRecord]]
) -> dict[Key, Counters]:
    """What has gone to each backend and come from it, over all addresses it is spoken to from."""
    found: dict[Key, Counters] = {}
    for side in running.state.sides:
        services = {item.number: item.service for item in side.services}
        for number, record in enumerate(running.records[side.version]):
            service = services.get(record.service)
            stats = traffic.get(side.version, {}).get(number)
            if service is None or stats is None:
                continue
            for backend in service.backends:
                if backend.place == (record.address, record.port):
                    key = key_of(service, backend)
                    before = found.get(key, Counters(0, 0))
                    found[key] = Counters(
                        before.packets_in + stats.packets_in,
                        before.packets_out + stats.packets_out,
                        before.unreachable + stats.refused,
                    )
    return found


@dataclass(frozen=True, slots=True)
class States:
    """What the states of all backends are to be.

    Attributes:
        held: Backends that are not healthy, and stay since their service needs them.
        drained: Those that are down and were drained before, to be drained again.
    """

    states: Mapping[Key, BackendState]
    held: frozenset[Key]
    drained: frozenset[Key]


def decide_states(
    request: Request, unhealthy: Iterable[Key], drained: frozenset[Key], fixed: frozenset[Key]
) -> States:
    """Decide about all backends of all services.

    Args:
        request: What runs, with the states that the backends have.
        unhealthy: Those that are not healthy.
        drained: Those that are down and were drained before.
        fixed: Those that an operator took down, whatever their health.
    """
    sick = set(unhealthy)
    states: dict[Key, BackendState] = {}
    held: set[Key] = set()
    still_drained: set[Key] = set()
    for service in request.services:
        mine = {key_of(service, backend): backend for backend in service.backends}
        if service.health is None:
            states.update({key: backend.state for key, backend in mine.items()})
            continue
        decision = decide(
            [
                Member(key, key not in sick, _is_available(backend, key, drained, fixed))
                for key, backend in mine.items()
            ],
            {key for key, backend in mine.items() if backend.state is BackendState.DOWN},
            service.health.min_healthy,
            service.health.below,
        )
        held |= decision.held
        for key, backend in mine.items():
            is_drained = _is_drained(backend, key, drained)
            if key in decision.down or key in fixed:
                states[key] = BackendState.DOWN
            else:
                states[key] = BackendState.DRAIN if is_drained else BackendState.UP
            if is_drained and BackendState.DOWN in {states[key], backend.state}:
                still_drained.add(key)
    return States(states, frozenset(held), frozenset(still_drained))


def _is_drained(backend: Backend, key: Key, drained: frozenset[Key]) -> bool:
    """Whether an operator drains it; one that was down and is up has been undrained."""
    return backend.state is BackendState.DRAIN or (
        key in drained and backend.state is BackendState.DOWN
    )


def _is_available(
    backend: Backend, key: Key, drained: frozenset[Key], fixed: frozenset[Key]
) -> bool:
    return backend.weight > 0 and not _is_drained(backend, key, drained) and key not in fixed


def adopt(wanted: Request, running: Request) -> Request:
    """What is wanted, with the states that backends have where they run already.

    A process that starts anew does not know why a backend is drained or down; it will find out,
    and one that is down stays down as long as somebody will.
    """
    states = {key: backend.state for _, backend, key in members(running)}

    def state_of(service: Service, backend: Backend) -> BackendState:
        both = {backend.state, states.get(key_of(service, backend), BackendState.UP)}
        if service.health is None and backend.state is not BackendState.DOWN:
            both.discard(BackendState.DOWN)
        return max(both, key=_GRAVITY.index, default=backend.state)

    return wanted.with_states(state_of)


_GRAVITY: Final = (BackendState.UP, BackendState.DRAIN, BackendState.DOWN)


def with_down(wanted: Request, unhealthy: AbstractSet[Key]) -> Request:
    """What is wanted, but for backends that are not healthy: these are down."""

    def state_of(service: Service, backend: Backend) -> BackendState:
        is_down = service.health is not None and key_of(service, backend) in unhealthy
        return BackendState.DOWN if is_down else backend.state

    return wanted.with_states(state_of)


def in_state(request: Request, state: BackendState) -> frozenset[Key]:
    """The backends that are in a state."""
    return frozenset(key for _, backend, key in members(request) if backend.state is state)


def require_means(request: Request) -> None:
    """Find out, before it matters, whether all checks can be done here.

    Raises:
        NotReadyError: A library is missing, or a privilege.
    """
    for service in request.services:
        if service.health is not None:
            require(service.health.check, service.backends[0].address)


class Traffic:
    """What the traffic says, service by service."""

    def __init__(self) -> None:
        """Begin without knowledge."""
        self._known: dict[tuple[object, ...], tuple[Health, bool, Passive[Key]]] = {}

    def look(
        self, request: Request, counted: Mapping[Key, Counters], now: float
    ) -> list[Findings[Key]]:
        """Compare all counters with those of the look before."""
        found = []
        passives: dict[tuple[object, ...], tuple[Health, bool, Passive[Key]]] = {}
        for service, health in judged(request):
            name = (service.address, service.protocol, service.ports)
            known = self._known.get(name)
            if known is None or known[:2] != (health, service.one_way):
                known = (health, service.one_way, Passive(health, one_way=service.one_way))
            passives[name] = known
            mine = {
                key: counted[key]
                for backend in service.backends
                if (key := key_of(service, backend)) in counted
            }
            found.append(known[2].look(mine, now, in_state(request, BackendState.DOWN)))
        self._known = passives
        return found

    def unhealthy(self, keys: Iterable[Key]) -> set[Key]:
        """Those of ``keys`` that the traffic alone has taken down."""
        return {
            key
            for key in keys
            if any(not passive.healthy(key) for _, _, passive in self._known.values())
        }
