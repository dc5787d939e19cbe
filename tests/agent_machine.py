"""A machine in memory on which a balancer really changes; an agent on it, by a clock that jumps."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest
from fake_machine import FakeMachine
from health_peers import run_jumping

from xdplb.agent import agent as module
from xdplb.agent.agent import Agent
from xdplb.agent.notify import Notifier
from xdplb.balancer import Balancer
from xdplb.facts import Neighbour, Running
from xdplb.health.monitor import Monitor
from xdplb.health.target import ProbeFailed
from xdplb.wire import StatsRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from xdplb.checks import Check
    from xdplb.health.target import Target
    from xdplb.model import Address, Mode
    from xdplb.plan import Plan
    from xdplb.request import Request
    from xdplb.state import State

_Result = TypeVar("_Result")


class LiveMachine(FakeMachine):
    """What is attached runs, what is changed is changed, and who is managed is known as that."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def attach(
        self, ifindex: int, name: str, program_fd: int, mode: Mode, old_id: int | None
    ) -> None:
        super().attach(ifindex, name, program_fd, mode, old_id)
        self.run_on()

    def detach(self, ifindex: int, name: str, program_id: int, mode: Mode) -> None:
        super().detach(ifindex, name, program_id, mode)
        self.balancers = []

    def manage(self, ifindex: int, address: Address) -> None:
        super().manage(ifindex, address)
        self.known[ifindex, address] = Neighbour(bytes(6), is_managed=True)

    def running(self) -> list[Running]:
        self.looks += 1
        self._step("running")
        return self.balancers

    def change(self, running: Running, plans: Sequence[Plan], state: State) -> None:
        super().change(running, plans, state)
        records = {**running.records, **{plan.version: plan.records for plan in plans}}
        self.balancers = [replace(running, state=state, records=records)]

    def lose(self, name: str) -> None:
        """Delete an interface, and what hangs on it."""
        del self.programs[self.links.pop(name).index]
        self.balancers = []

    def count(self, counted: Mapping[int, tuple[int, int, int]]) -> None:
        """Count packets in, out and refusals, by backend number."""
        traffic = {
            number: StatsRecord(into, 0, out, 0, refused)
            for number, (into, out, refused) in counted.items()
        }
        self.usages = {key: replace(usage, traffic=traffic) for key, usage in self.usages.items()}


class Manager(Notifier):
    """A service manager that remembers."""

    def __init__(self, watchdog_s: float = 0.0) -> None:
        super().__init__({})
        self.watchdog_s = watchdog_s
        self.told: list[dict[str, object]] = []

    def _say(self, **fields: object) -> None:
        self.told.append(fields)


class Stage:
    """A machine, an agent on it, and backends that answer checks or do not."""

    def __init__(self, wanted: Request | None = None, *, watchdog_s: float = 0.0) -> None:
        self.machine = LiveMachine()
        self.manager = Manager(watchdog_s)
        self.wanted = wanted
        self.failing: set[str] = set()
        self.faults: list[Exception] = []
        self.claims: list[set[str]] = []
        self.agent: Agent

    def up(self, request: Request) -> None:
        """``xdplb up``."""
        Balancer(self.machine).up(request)

    def read(self) -> Request:
        assert self.wanted is not None
        return self.wanted

    async def probe(self, check: Check, target: Target, limit: float) -> None:
        assert check is not None
        assert limit > 0
        if self.faults:
            raise self.faults.pop()
        if f"{target.address}" in self.failing:
            raise ProbeFailed("no answer")

    @property
    def states(self) -> list[str]:
        """The states of all backends, in order."""
        (running,) = self.machine.balancers
        return [item.state.value for one in running.state.request.services for item in one.backends]

    async def passes(self, seconds: float) -> None:
        """Let time go by, which takes none."""
        await asyncio.sleep(seconds)

    def hup(self) -> None:
        self.agent._reload.set()  # noqa: SLF001 - a signal would be one for all tests

    def hear(self) -> None:
        self.agent._hear()  # noqa: SLF001 - as the event loop does


async def _directly(work: Callable[[], _Result]) -> _Result:
    return work()


def play(stage: Stage, course: Callable[[Stage], Coroutine[None, None, None]]) -> Stage:
    """Run an agent on a stage while a course of events goes by; no time does."""

    async def whole() -> None:
        stage.agent = Agent(
            lambda: stage.machine,
            stage.manager,
            read=stage.read if stage.wanted is not None else None,
            claim=lambda names: stage.claims.append(set(names)),
        )
        task = asyncio.create_task(stage.agent.run())
        other = asyncio.create_task(course(stage))
        await asyncio.wait({task, other}, return_when=asyncio.FIRST_COMPLETED)
        if other.done():
            stage.agent._stop.set()  # noqa: SLF001 - as a signal does
        else:
            other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        await task
        if not other.cancelled():
            other.result()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "to_thread", _directly)
        patch.setattr(module, "Monitor", partial(Monitor, probe=stage.probe, uniform=lambda: 0.0))
        run_jumping(whole())
    return stage
