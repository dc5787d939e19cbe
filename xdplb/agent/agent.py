"""The loop of ``xdplb run``: health, interfaces, and the file.

The balancer is in the kernel, and is looked at again and again; the agent only remembers what
cannot be seen there. So it may end at any time, and one that starts anew finds all it needs.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from xdplb.agent import reconciling, reporting, watching
from xdplb.errors import BusyError, XdplbError, surroundings
from xdplb.health.monitor import Monitor
from xdplb.health.probes import require
from xdplb.model import BackendState, Endpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractContextManager

    from xdplb.agent.notify import Notifier
    from xdplb.agent.reconciling import Begun, Look
    from xdplb.agent.watching import Key
    from xdplb.machine import Machine
    from xdplb.request import Request

_Result = TypeVar("_Result")

log: Final = logging.getLogger("xdplb")

LOOK_EVERY_S: Final = 1.0
SETTLE_S: Final = 0.2
"""How long after a change in the network it is looked at: changes come in groups."""

FOLLOW_EVERY_S: Final = 1.0
"""How often at most: on a router with many routes, changes never end."""

BEATS: Final = 3
"""How often the watchdog hears of the agent within its time."""

STUCK_S: Final = 60.0
"""How long a turn of the loop may take; after that the watchdog hears no more."""

_ATTEMPTS: Final = 3
_RETRY_S: Final = 0.25


class Changes(Protocol):
    """What becomes readable when something has changed, until it is cleared."""

    def fileno(self) -> int:
        """The descriptor."""

    def clear(self) -> None:
        """Make it unreadable."""


def _nobody_else(names: Iterable[str]) -> None:
    """Claim interfaces where nobody else could."""
    del names


class Agent:
    """Looks after one balancer."""

    def __init__(  # noqa: PLR0913 - all that it meets outside
        self,
        connect: Callable[[], AbstractContextManager[Machine]],
        notifier: Notifier,
        *,
        read: Callable[[], Request] | None = None,
        iface: str | None = None,
        events: Changes | None = None,
        claim: Callable[[Iterable[str]], None] = _nobody_else,
    ) -> None:
        """Prepare; nothing happens yet.

        Args:
            connect: Opens the machine, for one step.
            notifier: Who is told.
            read: Reads the file; None where there is none.
            iface: An interface of the balancer, where there is no file.
            events: What becomes readable when something in the network has changed.
            claim: Makes sure that nobody else looks after these interfaces.
        """
        self._connect = connect
        self._notifier = notifier
        self._read = read
        self._iface = iface
        self._events = events
        self._claim = claim
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._network_changed = asyncio.Event()
        self._change_timer: asyncio.TimerHandle | None = None
        self._followed = float("-inf")
        self._turned = float("inf")
        self._monitor: Monitor[Key] = Monitor()
        self._traffic = watching.Traffic()
        self._interfaces: tuple[str, ...] = ()
        self._indexes: dict[str, int] = {}
        self._awaited: Request | None = None
        self._runs: Request | None = None
        self._last: Request | None = None
        self._is_down = False
        self._may_be_down = False
        self._was_draining = False
        self._fixed: frozenset[Key] = frozenset()
        self._drained: frozenset[Key] = frozenset()
        self._ours: frozenset[Key] = frozenset()
        self._held: frozenset[Key] = frozenset()
        self._said: dict[str, str] = {}
        self._reloaded: reporting.Reload | None = None

    async def run(self) -> None:
        """Look after the balancer until a signal comes.

        Raises:
            XdplbError: It cannot begin.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        self._turned = loop.time()
        beat = asyncio.create_task(self._beat())
        try:
            await self._begin()
            await self._guarded("look", self._look)
            self._notifier.ready(self.summary())
            await self._live()
        finally:
            self._notifier.stopping()
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
            await self._monitor.close()

    async def _beat(self) -> None:
        """Tell the watchdog that the loop goes round, also while a step takes its time."""
        loop = asyncio.get_running_loop()
        while self._notifier.watchdog_s:
            if self._is_turning(loop.time()):
                self._notifier.alive()
            await asyncio.sleep(self._notifier.watchdog_s / BEATS)

    def _is_turning(self, now: float) -> bool:
        """Whether the loop goes round; before it begins, nothing is wrong either."""
        return now - self._turned < STUCK_S

    async def _live(self) -> None:
        """Wait for whatever comes first, and do what follows."""
        loop = asyncio.get_running_loop()
        if self._events is not None:
            loop.add_reader(self._events.fileno(), self._hear)
        self._follow_after(0)  # of what has changed so far, no event tells
        try:
            while True:
                await self._wait()
                if self._stop.is_set():
                    return
                await self._turn()
        finally:
            if self._events is not None:
                loop.remove_reader(self._events.fileno())
            if self._change_timer is not None:
                self._change_timer.cancel()

    async def _turn(self) -> None:
        """Do all that there is to do now."""
        self._turned = asyncio.get_running_loop().time()
        self._monitor.raise_fault()
        if self._reload.is_set():
            self._reload.clear()
            self._said.pop("reload", None)  # each one is answered
            done = await self._guarded("reload", self._load_again)
            if self._read is not None:
                self._reloaded = reporting.Reload(done)
        if self._network_changed.is_set():
            self._network_changed.clear()
            if not await self._guarded("network", self._follow):
                self._follow_after(LOOK_EVERY_S)
        await self._guarded("look", self._look)
        self._notifier.status(self.summary())

    # Waiting

    def _hear(self) -> None:
        if self._events is not None:
            self._events.clear()
        self._follow_after(SETTLE_S)

    def _follow_after(self, seconds: float) -> None:
        """Look at the network again, but not too often."""
        if self._change_timer is None:
            loop = asyncio.get_running_loop()
            due = max(loop.time() + seconds, self._followed + FOLLOW_EVERY_S)
            self._change_timer = loop.call_at(due, self._expect_change)

    def _expect_change(self) -> None:
        self._change_timer = None
        self._network_changed.set()

    async def _wait(self) -> None:
        """Return when something has happened, or it is time for a look."""
        waits: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(item.wait())
            for item in (self._stop, self._reload, self._network_changed)
        ]
        waits.append(asyncio.ensure_future(self._health_event()))
        try:
            await asyncio.wait(waits, timeout=LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for item in waits:
                item.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _health_event(self) -> None:
        """Return when the health of a backend has changed; the events are told, and gone."""
        event = await self._monitor.events.get()
        while True:
            _tell_turn(event.key, event.reason, healthy=event.healthy)
            try:
                event = self._monitor.events.get_nowait()
            except asyncio.QueueEmpty:
                return

    # Doing one thing

    async def _step(self, work: Callable[[Machine], _Result]) -> _Result:
        """Do one thing with the machine; somebody else's command goes first."""

        def in_thread() -> _Result:
            with self._connect() as machine:
                return work(machine)

        for _ in range(_ATTEMPTS - 1):
            try:
                return await asyncio.to_thread(in_thread)
            except BusyError:
                await asyncio.sleep(_RETRY_S)
        return await asyncio.to_thread(in_thread)

    async def _guarded(self, what: str, work: Callable[[], Awaitable[None]]) -> bool:
        """Do something that may fail: that is told once, and the agent goes on.

        Returns:
            Whether it was done.
        """
        try:
            await work()
        except XdplbError as error:
            refused = error
        except OSError as error:
            known = surroundings(error)
            if known is None:
                raise
            refused = known
        else:
            self._said.pop(what, None)
            return True
        self._tell(what, f"{refused}" + (f" ({refused.hint})" if refused.hint else ""))
        return False

    def _tell(self, what: str, text: str) -> None:
        """Tell something about ``what``, unless it was the last thing that was told about it."""
        if self._said.get(what) != text:
            self._said[what] = text
            log.warning("%s", text)

    # What is done

    async def _begin(self) -> None:
        if self._read is None:
            found = await self._step(lambda it: reconciling.find(it, self._iface))
            watching.require_means(found)
            self._claim(found.interfaces)
            self._interfaces = found.interfaces
            self._ours = watching.in_state(found, BackendState.DOWN)
            return
        wanted = await asyncio.to_thread(self._read)
        watching.require_means(wanted)
        self._claim(wanted.interfaces)
        self._interfaces = wanted.interfaces
        if await self._step(lambda it: reconciling.absent(it, wanted.interfaces)):
            self._awaited = wanted
        else:
            await self._start(wanted)
        self._reloaded = reporting.Reload(success=True)

    async def _start(self, wanted: Request) -> None:
        """Make run what the file says, for the first time."""
        begun = await self._step(lambda it: reconciling.begin(it, wanted))
        self._awaited = None
        self._take_in(begun)
        log.info("%s: %s", ", ".join(wanted.interfaces), begun.applied.preview.way)

    def _take_in(self, begun: Begun) -> None:
        """Remember what the balancer does not know: why a backend is down."""
        self._fixed = begun.fixed
        self._drained = begun.drained
        self._ours = begun.down - begun.fixed

    async def _load_again(self) -> None:
        """Take the file as it is now; where it is wrong, all stays as it is."""
        if self._read is None:
            self._tell("reload", "there is no file to read again: none was named with --config")
            return
        self._notifier.reloading()
        try:
            wanted = await asyncio.to_thread(self._read)
            watching.require_means(wanted)
            self._claim({*self._interfaces, *wanted.interfaces})
            try:
                await self._reconcile(wanted)
            finally:
                self._claim(self._interfaces)
        finally:
            self._notifier.ready(self.summary())

    async def _reconcile(self, wanted: Request) -> None:
        unhealthy = self._unhealthy()
        is_absent = await self._step(lambda it: reconciling.absent(it, wanted.interfaces))
        if self._runs is None and is_absent:
            self._awaited, self._last = wanted, None
            log.info("the file has been read again")
        else:
            begun = await self._step(lambda it: reconciling.reload(it, wanted, unhealthy))
            self._awaited = None
            self._take_in(begun)
            log.info("the file has been read again: %s", begun.applied.preview.way)
        if self._interfaces != wanted.interfaces:
            self._interfaces, self._indexes = wanted.interfaces, {}
        self._said.clear()

    async def _follow(self) -> None:
        """See whether an interface, a way or a neighbour has become another one."""
        self._followed = asyncio.get_running_loop().time()
        names = self._interfaces
        if self._runs is not None and await self._step(lambda it: reconciling.follow(it, names)):
            log.info("an interface, or the way to a backend, has changed: followed")

    async def _look(self) -> None:
        """See what runs, what the traffic says, and set the states of backends."""
        awaited = self._awaited
        if awaited is not None and not await self._step(
            lambda it: reconciling.absent(it, awaited.interfaces)
        ):
            await self._start(awaited)
        names, indexes = self._interfaces, dict(self._indexes)
        found = await self._step(lambda it: reconciling.look(it, names, indexes))
        self._runs = found.request
        if found.request is None:
            await self._miss(found)
            return
        self._last, self._is_down, self._may_be_down = found.request, False, False
        self._was_draining = found.draining
        if self._interfaces != found.request.interfaces:
            self._follow_after(0)  # whoever followed them by their old names found none
        self._interfaces, self._indexes = found.request.interfaces, dict(found.indexes)
        self._claim(self._interfaces)
        if found.missing:
            self._tell("interfaces", _waiting(found.missing))
        else:
            self._said.pop("interfaces", None)
        self._notice(found.request)
        self._watch(found.request, found)
        await self._set_states(found.request)

    async def _miss(self, found: Look) -> None:
        """Nothing runs: bring back what went with its interface, and nothing else."""
        request = self._last
        if found.missing:
            self._may_be_down = False
            self._tell("interfaces", _waiting(found.missing))
        elif found.stranger:
            self._tell("interfaces", f"{found.stranger} carries a program that is not xdplb's")
        elif request is not None and found.renewed and not (self._is_down or self._was_draining):
            await self._step(lambda it: reconciling.renew(it, request))
            log.info("%s is back: balancing again", ", ".join(found.renewed))
        elif not self._may_be_down:
            self._may_be_down = True  # or its interface goes just now, and the program went first
        else:
            self._is_down = True
            self._monitor.update(())
            self._ours = self._drained = self._held = frozenset()
            self._tell(
                "interfaces",
                "the balancer has been taken down; 'xdplb up' or a reload brings it back",
            )

    def _notice(self, request: Request) -> None:
        """A backend that somebody else has taken down is left alone until it is not down."""
        down = watching.in_state(request, BackendState.DOWN)
        self._ours &= down
        self._fixed = (self._fixed & down) | (down - self._ours)

    def _watch(self, request: Request, found: Look) -> None:
        able = []
        for item in watching.watched(request):
            try:
                require(item.health.check, item.target.address)
            except XdplbError as error:
                self._tell(item.target.service, f"{item.target.service} is not checked: {error}")
            else:
                able.append(item)
        self._monitor.update(able)
        now = asyncio.get_running_loop().time()
        for findings in self._traffic.look(request, found.counted, now):
            for suspect in findings.suspects:
                if self._monitor.check_now(suspect.key):
                    log.info("%s is suspect: %s", _named(suspect.key), suspect.reason)
            for turn in findings.turns:
                _tell_turn(turn.key, turn.reason, healthy=turn.healthy)

    def _unhealthy(self) -> frozenset[Key]:
        request = self._runs
        if request is None:
            return frozenset()
        keys = [key for service, _, key in watching.members(request) if service.health is not None]
        asked = {
            key
            for key in keys
            if (tally := self._monitor.tally(key)) is not None and not tally.healthy
        }
        return frozenset(asked | self._traffic.unhealthy(keys))

    async def _set_states(self, request: Request) -> None:
        decided = watching.decide_states(request, self._unhealthy(), self._drained, self._fixed)
        self._drained = decided.drained
        for key in decided.held - self._held:
            log.warning("%s is not healthy, and stays: its service needs it", _named(key))
        self._held = decided.held
        differing = {
            key: (backend.state, decided.states[key])
            for _, backend, key in watching.members(request)
            if decided.states[key] is not backend.state
        }
        if not differing:
            return
        indexes = frozenset(self._indexes.values())
        after = await self._step(lambda it: reconciling.set_states(it, indexes, differing))
        if after is not None:
            self._runs = self._last = after
            self._ours |= differing.keys() & watching.in_state(after, BackendState.DOWN)

    def summary(self) -> str:
        """How things are, in one line."""
        if self._runs is None:
            return "nothing is balanced"
        every = list(watching.members(self._runs))
        up = sum(backend.state is not BackendState.DOWN for _, backend, _ in every)
        return f"{_count(len(self._runs.services), 'service')}, {up} of {len(every)} backends up"

    def report(self) -> reporting.Report:
        """How things are, for programs; to be asked for in the event loop."""
        now = asyncio.get_running_loop().time()
        runs = self._runs
        watched: tuple[reporting.Watched, ...] = ()
        if runs is not None:
            watched = reporting.watched(runs, self._monitor, self._unhealthy(), now)
        return reporting.Report(
            alive=self._is_turning(now),
            interfaces=self._interfaces,
            runs=runs is not None,
            summary=self.summary(),
            reload=self._reloaded,
            watched=watched,
        )


def _waiting(names: Iterable[str]) -> str:
    return f"{', '.join(names)} is not there; waiting for it"


def _tell_turn(key: Key, reason: str, *, healthy: bool) -> None:
    """Tell that the health of a backend has changed."""
    level = logging.INFO if healthy else logging.WARNING
    log.log(level, "%s is %s: %s", _named(key), "up" if healthy else "down", reason)


def _named(key: Key) -> str:
    """A backend for a person."""
    at = f"{key.address}" if key.port is None else f"{Endpoint(key.address, key.port)}"
    return f"backend {at} of {key.dialled} {key.protocol}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
