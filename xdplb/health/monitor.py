"""Each backend asked at its own times, and each change of its health told.

A backend is one task, which sleeps, asks and counts; none waits for another one, but for a free
place among the questions that may be asked at the same time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from xdplb.errors import InvalidValueError
from xdplb.health.probes import ProbeFailed, Target, probe, require
from xdplb.health.timing import Timings
from xdplb.health.verdict import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from xdplb.checks import Check, Health

_Key = TypeVar("_Key", bound=Hashable)

DEFAULT_CONCURRENCY: Final = 64
HURRY: Final = 0.1
"""The part of its interval that a suspect backend is given between two questions."""


class Probe(Protocol):
    """Asks once, like ``probes.probe``."""

    async def __call__(self, check: Check, target: Target, limit: float) -> None:
        """Return if the answer is good within ``limit`` seconds; raise ProbeFailed if not."""


@dataclass(frozen=True, slots=True)
class Watched(Generic[_Key]):
    """A backend to watch, under a name of the caller's.

    Attributes:
        healthy: What it is taken for when it is watched for the first time.
    """

    key: _Key
    target: Target
    health: Health
    healthy: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Event(Generic[_Key]):
    """A change of the health of a backend.

    Attributes:
        key: Which one.
        healthy: What it is now.
        reason: Why, in a few words.
        at: When, by the clock of the event loop, which is ``time.monotonic``.
    """

    key: _Key
    healthy: bool
    reason: str
    at: float


@dataclass(slots=True)
class _Watch(Generic[_Key]):
    item: Watched[_Key]
    tally: Tally
    hurry: asyncio.Event
    timings: Timings = field(default_factory=Timings)
    task: asyncio.Task[None] | None = None


class Monitor(Generic[_Key]):
    """Watches backends, in the event loop that runs when it is told of them.

    Attributes:
        events: Every change, in order.
    """

    def __init__(
        self,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        probe: Probe = probe,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        """Begin with nobody.

        Args:
            concurrency: How many questions may be open at the same time.
            probe: What asks.
            uniform: A random number of at least 0 and below 1.
        """
        self.events: asyncio.Queue[Event[_Key]] = asyncio.Queue()
        self._free = asyncio.Semaphore(concurrency)
        self._probe = probe
        self._uniform = uniform
        self._watches: dict[_Key, _Watch[_Key]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._fault: BaseException | None = None

    def update(self, watched: Iterable[Watched[_Key]]) -> None:
        """Watch these from now on.

        One that is the same as before keeps its tally and its times. One at the same target that
        is to be asked otherwise stays as healthy as it is, and is counted anew. Any other is new,
        and as healthy as it says; if it takes the key of one that was down, that is a change. The
        first questions to new ones are spread over their intervals. One without a check is never
        asked, and healthy.

        Raises:
            InvalidValueError: A key is there twice. Nothing has changed then.
            NotReadyError: A library or a privilege is missing for a check. Nothing has changed.
        """
        if self._closed:
            raise RuntimeError("the monitor is closed")
        wanted: dict[_Key, Watched[_Key]] = {}
        for item in watched:
            if item.key in wanted:
                raise InvalidValueError(f"{item.key} is watched twice", "watch it once")
            require(item.health.check, item.target.address)
            wanted[item.key] = item
        before = self._watches
        self._watches = {}
        begun: list[_Watch[_Key]] = []
        for key, item in wanted.items():
            old = before.pop(key, None)
            if old is not None and old.item == item:
                self._watches[key] = old
                continue
            self._watches[key] = self._made_of(item, old)
            begun.append(self._watches[key])
            if old is not None:
                _stop(old)
        for gone in before.values():
            _stop(gone)
        self._start([watch for watch in begun if watch.item.health.check is not None])

    def check_now(self, key: _Key) -> bool:
        """Ask a backend at once, as there is a suspicion.

        After a bad answer it is asked again and again after a tenth of its interval, until an
        answer is good or it is down: it still takes ``fall`` bad ones in a row.

        Returns:
            Whether there is such a backend, with a check.
        """
        watch = self._watches.get(key)
        if watch is None or watch.task is None:
            return False
        watch.hurry.set()
        return True

    def tally(self, key: _Key) -> Tally | None:
        """The answers of a backend so far, a copy; None if it is not watched."""
        watch = self._watches.get(key)
        return None if watch is None else replace(watch.tally)

    def timings(self, key: _Key) -> Timings | None:
        """How long its answers took, a copy; None if it is not watched, or never asked."""
        watch = self._watches.get(key)
        return None if watch is None or watch.task is None else watch.timings.copy()

    def raise_fault(self) -> None:
        """Raise what ended a watch, if anything has: a backend that nobody watches is a fault."""
        if self._fault is not None:
            raise self._fault

    async def close(self) -> None:
        """Stop, and return when no question is open any more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._watches.clear()

    def _made_of(self, item: Watched[_Key], old: _Watch[_Key] | None) -> _Watch[_Key]:
        """A watch that begins, with what still holds of the one that had its key."""
        now = asyncio.get_running_loop().time()
        healthy = item.healthy or item.health.check is None
        tally = Tally(item.health.rise, item.health.fall, since=now, healthy=healthy)
        if old is not None and _goes_on(old.item, item):
            was = old.tally
            tally.healthy, tally.since, tally.reason = was.healthy, was.since, was.reason
        elif old is not None and not old.tally.healthy:
            tally.healthy = True
            self.events.put_nowait(Event(item.key, healthy=True, reason="watched anew", at=now))
        timings = Timings() if old is None else old.timings
        return _Watch(item, tally, asyncio.Event(), timings)

    def _start(self, watches: list[_Watch[_Key]]) -> None:
        """Begin to ask: each in a part of its interval of its own, somewhere in it."""
        loop = asyncio.get_running_loop()
        for place, watch in enumerate(watches):
            part = (place + self._uniform()) / len(watches)
            due = loop.time() + part * watch.item.health.interval
            watch.task = loop.create_task(self._run(watch, due))
            self._tasks.add(watch.task)
            watch.task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fault = error

    async def _run(self, watch: _Watch[_Key], due: float) -> None:
        loop = asyncio.get_running_loop()
        health = watch.item.health
        while True:
            try:
                async with asyncio.timeout_at(due):
                    await watch.hurry.wait()
            except TimeoutError:
                due = loop.time()
                await self._ask(watch)
            else:
                due = loop.time()
                await self._ask_in_a_hurry(watch)
            due += health.interval * (1 + health.jitter * (2 * self._uniform() - 1))

    async def _ask_in_a_hurry(self, watch: _Watch[_Key]) -> None:
        """Ask until it is clear whether a suspicion was right."""
        while True:
            if await self._ask(watch) or not watch.tally.healthy:
                watch.hurry.clear()
                return
            await asyncio.sleep(watch.item.health.interval * HURRY)

    async def _ask(self, watch: _Watch[_Key]) -> bool:
        """Ask once, and count the answer.

        Returns:
            Whether it was good.
        """
        health, tally = watch.item.health, watch.tally
        if health.check is None:
            raise AssertionError(watch.item)  # has no task
        loop = asyncio.get_running_loop()
        failure: ProbeFailed | None = None
        async with self._free:
            began = loop.time()
            try:
                await self._probe(health.check, watch.item.target, health.timeout)
            except ProbeFailed as caught:
                failure = caught
        now = loop.time()
        watch.timings.count(now - began, good=failure is None)
        if failure is not None:
            changed, reason = tally.count_bad(failure.reason, now), failure.reason
        else:
            changed, reason = tally.count_good(now), _good(tally.rise)
        if changed:
            self.events.put_nowait(Event(watch.item.key, tally.healthy, reason, now))
        return failure is None


def _goes_on(old: Watched[_Key], new: Watched[_Key]) -> bool:
    """Whether what was found out about a backend holds when it is watched in another way."""
    return None not in (old.health.check, new.health.check) and old.target == new.target


def _good(rise: int) -> str:
    return "a good answer" if rise == 1 else f"{rise} good answers in a row"


def _stop(watch: _Watch[_Key]) -> None:
    if watch.task is not None:
        watch.task.cancel()
