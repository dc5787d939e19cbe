"""The loop of ``xdplb run``: health, interfaces, and the file.

The balancer is in the kernel, and is looked at again and again; the agent only remembers what
cannot be seen there. So it may end at any time, and one that starts anew finds all it needs.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from xdplb.agent import reconciling, watching
from xdplb.errors import BusyError, XdplbError
from xdplb.health.monitor import Monitor
from xdplb.model import BackendState, Endpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from xdplb.agent.notify import Notifier
    from xdplb.agent.reconciling import Look
    from xdplb.agent.watching import Key
    from xdplb.machine import Machine
    from xdplb.request import Request

_Result = TypeVar("_Result")

log: Final = logging.getLogger("xdplb")

LOOK_EVERY_S: Final = 1.0
SETTLE_S: Final = 0.2
"""How long after a change in the network it is looked at: changes come in groups."""

_ATTEMPTS: Final = 20
_RETRY_S: Final = 0.25


class Changes(Protocol):
    """What becomes readable when something has changed, until it is cleared."""

    def fileno(self) -> int:
        """The descriptor."""

    def clear(self) -> None:
        """Make it unreadable."""


class Agent:
    """Looks after one balancer."""

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Machine]],
        notifier: Notifier,
        *,
        read: Callable[[], Request] | None = None,
        iface: str | None = None,
        events: Changes | None = None,
    ) -> None:
        """Prepare; nothing happens yet.

        Args:
            connect: Opens the machine, for one step.
            notifier: Who is told.
            read: Reads the file; None where there is none.
            iface: An interface of the balancer, where there is no file.
            events: What becomes readable when something in the network has changed.
        """
        self._connect = connect
        self._notifier = notifier
        self._read = read
        self._iface = iface
        self._events = events
        self._one_step = asyncio.Lock()
        self._network_changed = asyncio.Event()
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._monitor: Monitor[Key] = Monitor()
        self._traffic = watching.Traffic()
        self._interfaces: tuple[str, ...] = ()
        self._indexes: dict[str, int] = {}
        self._wanted: Request | None = None
        self._runs: Request | None = None
        self._last: Request | None = None
        self._drained: frozenset[Key] = frozenset()
        self._fixed: frozenset[Key] = frozenset()
        self._said: set[str] = set()
        self._held: frozenset[Key] = frozenset()

    async def run(self) -> None:
        """Look after the balancer until a signal comes.

        Raises:
            XdplbError: It cannot begin.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        try:
            await self._begin()
            await self._look()
            self._notifier.ready(self.summary())
            await self._live()
        finally:
            self._notifier.stopping()
            await self._monitor.close()

    # Steps

    async def _step(self, work: Callable[[Machine], _Result]) -> _Result:
        """Do one thing with the machine, alone; somebody else's command goes first."""

        def in_thread() -> _Result:
            with self._connect() as machine:
                return work(machine)

        async with self._one_step:
            for _ in range(_ATTEMPTS):
                try:
                    return await asyncio.to_thread(in_thread)
                except BusyError:
                    await asyncio.sleep(_RETRY_S)
            return await asyncio.to_thread(in_thread)

    async def _begin(self) -> None:
        if self._read is None:
            self._interfaces = await self._step(lambda it: reconciling.find(it, self._iface))
            return
        wanted = await asyncio.to_thread(self._read)
        self._interfaces = wanted.interfaces
        missing = await self._step(
            lambda it: [name for name in wanted.interfaces if it.interface_index(name) is None]
        )
        if missing:
            self._wanted = wanted
            self._tell(f"waiting for {', '.join(missing)}")
            return
        self._wanted, done = await self._step(lambda it: reconciling.begin(it, wanted))
        log.info("%s: %s", ", ".join(wanted.interfaces), done.preview.way)

    async def _live(self) -> None:
        """Wait for whatever comes first, and do what follows."""
        loop = asyncio.get_running_loop()
        if self._events is not None:
            loop.add_reader(self._events.fileno(), self._hear)
        try:
            while not self._stop.is_set():
                await self._wait()
                self._notifier.alive()
                if self._reload.is_set():
                    self._reload.clear()
                    await self._guarded(self._load_again)
                if self._network_changed.is_set():
                    await asyncio.sleep(SETTLE_S)
                    self._network_changed.clear()
                    await self._guarded(self._follow)
                await self._guarded(self._look)
                self._notifier.status(self.summary())
        finally:
            if self._events is not None:
                loop.remove_reader(self._events.fileno())

    def _hear(self) -> None:
        if self._events is not None:
            self._events.clear()
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
            word = "up" if event.healthy else "down"
            log.log(
                logging.INFO if event.healthy else logging.WARNING,
                "%s is %s: %s",
                _named(event.key),
                word,
                event.reason,
            )
            try:
                event = self._monitor.events.get_nowait()
            except asyncio.QueueEmpty:
                return

    async def _guarded(self, work: Callable[[], object]) -> None:
        """Do something that may fail: that is told once, and the agent goes on."""
        try:
            result = work()
            if asyncio.iscoroutine(result):
                await result
        except XdplbError as error:
            self._tell(f"{error}" + (f" ({error.hint})" if error.hint else ""))

    def _tell(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)

    # What is done

    async def _load_again(self) -> None:
        """Take the file as it is now; where it is wrong, all stays as it is."""
        if self._read is None:
            return
        self._notifier.reloading()
        try:
            wanted = await asyncio.to_thread(self._read)
            unhealthy = self._unhealthy()
            self._wanted, done = await self._step(
                lambda it: reconciling.reload(it, wanted, unhealthy)
            )
            self._interfaces = wanted.interfaces
            self._said.clear()
            log.info("the file has been read again: %s", done.preview.way)
        finally:
            self._notifier.ready(self.summary())

    async def _follow(self) -> None:
        """See whether an interface or a way has become another one."""
        names = self._interfaces
        if self._runs is not None and await self._step(lambda it: reconciling.follow(it, names)):
            log.info("an interface or a way to a backend has changed: followed")

    async def _look(self) -> None:
        """See what runs, what the traffic says, and set the states of backends."""
        names, indexes = self._interfaces, dict(self._indexes)
        found = await self._step(lambda it: reconciling.look(it, names, indexes))
        self._runs = found.request
        if found.request is None:
            await self._miss(found)
            return
        self._last = found.request
        self._interfaces, self._indexes = found.interfaces, dict(found.indexes)
        self._said.clear()
        self._watch(found)
        await self._set_states(found.request)

    async def _miss(self, found: Look) -> None:
        """Nothing runs: bring back what went with its interface, and nothing else."""
        request = self._last or self._wanted
        if found.missing:
            self._tell(f"{', '.join(found.missing)} is not there; waiting for it")
        elif found.stranger:
            self._tell(f"{found.stranger} carries a program that is not xdplb's")
        elif request is not None and (found.renewed or self._last is None):
            await self._step(lambda it: reconciling.renew(it, request))
            log.info("%s is back: balancing again", ", ".join(self._interfaces))
        else:
            self._tell("the balancer has been taken down; 'xdplb up' or a reload brings it back")

    def _watch(self, found: Look) -> None:
        request = found.request
        if request is None:
            return
        if self._wanted is not None:
            self._fixed = frozenset(
                key
                for _, backend, key in watching.members(self._wanted)
                if backend.state is BackendState.DOWN
            )
        self._monitor.update(watching.watched(request))
        now = asyncio.get_running_loop().time()
        for findings in self._traffic.look(request, found.counted, now):
            for suspect in findings.suspects:
                if self._monitor.check_now(suspect.key):
                    log.info("%s is suspect: %s", _named(suspect.key), suspect.reason)
            for turn in findings.turns:
                word = "up" if turn.healthy else "down"
                log.warning("%s is %s: %s", _named(turn.key), word, turn.reason)

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
            key: decided.states[key]
            for _, backend, key in watching.members(request)
            if decided.states[key] is not backend.state
        }
        if differing:
            names = self._interfaces
            await self._step(lambda it: reconciling.set_states(it, names, differing))

    def summary(self) -> str:
        """How things are, in one line."""
        if self._runs is None:
            return "nothing is balanced"
        every = list(watching.members(self._runs))
        up = sum(backend.state is not BackendState.DOWN for _, backend, _ in every)
        return f"{_count(len(self._runs.services), 'service')}, {up} of {len(every)} backends up"


def _named(key: Key) -> str:
    """A backend for a person."""
    at = f"{key.address}" if key.port is None else f"{Endpoint(key.address, key.port)}"
    return f"backend {at} of {key.dialled} {key.protocol}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
