"""Down without loss, on a machine in memory and by a clock that jumps."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from agent_machine import LiveMachine
from click.testing import CliRunner
from fake_machine import NEW_ID, request

from xdplb import applying, balancer
from xdplb.balancer import Balancer
from xdplb.cli import commands
from xdplb.draining import LOOK_EVERY_S, Patience
from xdplb.errors import BusyError, NotReadyError
from xdplb.facts import Attached
from xdplb.model import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from click.testing import Result

    from xdplb.facts import Running
    from xdplb.plan import Plan
    from xdplb.state import State

PATIENCE = Patience(idle_s=10, timeout_s=60)


class Clock:
    """A clock that jumps when somebody sleeps, and calls what is due."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.due: list[tuple[float, Callable[[], object]]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at, work in self.due.copy():
            if self.now >= 1000.0 + at:
                self.due.remove((at, work))
                work()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(balancer, "time", made)
    return made


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> LiveMachine:
    """A balancer that is up."""
    made = LiveMachine()
    Balancer(made).up(request())
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: made)
    return made


def is_draining(machine: LiveMachine) -> bool:
    (running,) = machine.balancers
    return running.state.draining


def drain(machine: LiveMachine, *interfaces: str) -> list[balancer.Stopped]:
    return list(Balancer(machine).drain(interfaces, PATIENCE, lambda _: None))


def run(*words: str) -> Result:
    return CliRunner().invoke(commands, words)


def test_it_goes_down_when_no_request_has_come_for_so_long(
    machine: LiveMachine, clock: Clock
) -> None:
    machine.counts = [*range(100, 121)]  # requests in each of the first looks but one
    seen: list[bool] = []
    clock.due = [(1, lambda: seen.append(is_draining(machine)))]
    (stopped,) = drain(machine)
    assert seen == [True]
    assert machine.programs == {}
    assert (stopped.interfaces, stopped.program_id) == (("eth0",), NEW_ID)
    assert stopped.drained is not None
    assert stopped.drained.requests == 0
    last = 19 * LOOK_EVERY_S
    assert stopped.drained.waited_s == pytest.approx(last + PATIENCE.idle_s, abs=2 * LOOK_EVERY_S)


def test_what_a_neighbour_says_is_no_request(machine: LiveMachine, clock: Clock) -> None:
    """Only requests that are served count: the verdict 'forward'."""
    counts = machine.verdicts
    machine.verdicts = lambda running: {**counts(running), "pass_not_ours": int(clock.now)}  # type: ignore[method-assign]
    (stopped,) = drain(machine)
    assert stopped.drained is not None
    assert stopped.drained.waited_s == pytest.approx(PATIENCE.idle_s)


def test_after_the_timeout_it_goes_down_and_what_came_last_is_counted(
    machine: LiveMachine, clock: Clock
) -> None:
    machine.counts = [*range(0, 5000, 10)]
    (stopped,) = drain(machine)
    assert clock.now == pytest.approx(1000 + PATIENCE.timeout_s)
    assert machine.programs == {}
    assert stopped.drained is not None
    assert stopped.drained.requests == pytest.approx(10 * PATIENCE.idle_s / LOOK_EVERY_S, abs=10)


def test_who_is_interrupted_leaves_it_as_it_was(machine: LiveMachine, clock: Clock) -> None:
    def interrupt() -> None:
        assert is_draining(machine)
        raise KeyboardInterrupt

    before = machine.balancers
    clock.due = [(3, interrupt)]
    with pytest.raises(KeyboardInterrupt):
        drain(machine)
    assert machine.balancers == before
    assert machine.programs


def test_up_ends_the_draining(machine: LiveMachine, clock: Clock) -> None:
    clock.due = [(3, lambda: Balancer(machine).up(request()))]
    with pytest.raises(BusyError, match="eth0 is not draining any more"):
        drain(machine)
    assert machine.programs
    assert not is_draining(machine)


def test_apply_ends_the_draining_also_where_nothing_else_differs(
    machine: LiveMachine, clock: Clock
) -> None:
    def apply() -> None:
        found = applying.preview(machine, request())
        assert found.draining
        assert found.way is applying.Way.NOTHING
        applying.apply(machine, request(), found)

    clock.due = [(3, apply)]
    with pytest.raises(BusyError):
        drain(machine)
    assert machine.programs


def test_who_replaces_the_program_for_it_lets_it_drain(machine: LiveMachine, clock: Clock) -> None:
    """As the agent does, when an interface is another one."""
    (running,) = machine.balancers
    newer = replace(running, program_id=NEW_ID + 1, state=replace(running.state, draining=True))

    def exchange() -> None:
        machine.programs[2] = Attached(newer.program_id, Mode.NATIVE)
        machine.balancers = [newer]

    clock.due = [(3, exchange)]
    machine.fail["verdicts"] = [None] * 5 + [BusyError("replaced just now")]
    (stopped,) = drain(machine)
    assert stopped.drained is not None
    assert machine.programs == {}


def test_one_that_somebody_else_takes_down_is_down(machine: LiveMachine, clock: Clock) -> None:
    clock.due = [(3, lambda: Balancer(machine).down())]
    (stopped,) = drain(machine)
    assert (stopped.interfaces, stopped.drained) == (("eth0",), None)
    assert clock.now == pytest.approx(1003)


def test_each_of_several_goes_when_it_is_idle(machine: LiveMachine, clock: Clock) -> None:
    (first,) = machine.balancers
    on = replace(first.state.interfaces[0], name="eth1", index=3)
    state = replace(first.state, interfaces=(on,))
    second = replace(first, program_id=NEW_ID + 1, state=state)
    both = [first, second]
    counted = iter(range(1000))

    def change(running: Running, plans: Sequence[Plan], state: State) -> None:
        assert not plans
        place = [item.program_id for item in both].index(running.program_id)
        both[place] = replace(both[place], state=state)

    def detach(ifindex: int, name: str, program_id: int, mode: Mode) -> None:
        del ifindex, name, mode
        both[:] = [item for item in both if item.program_id != program_id]

    def verdicts(running: Running) -> dict[str, int]:
        return {"forward": next(counted) if running.program_id == NEW_ID else 7}

    machine.balancers = both
    machine.verdicts = verdicts  # type: ignore[method-assign]
    machine.change = change  # type: ignore[method-assign]
    machine.detach = detach  # type: ignore[method-assign]
    stopped = Balancer(machine).drain((), PATIENCE, lambda _: None)
    assert next(stopped).interfaces == ("eth1",)
    assert clock.now == pytest.approx(1000 + PATIENCE.idle_s)
    assert [item.state.draining for item in both] == [True]
    assert next(stopped).interfaces == ("eth0",)
    assert clock.now == pytest.approx(1000 + PATIENCE.timeout_s)
    assert not list(stopped)
    assert not both


def test_no_balancer_on_an_interface_is_an_error(machine: LiveMachine, clock: Clock) -> None:
    with pytest.raises(NotReadyError, match="no balancer on eth1"):
        drain(machine, "eth1")
    assert not is_draining(machine)
    assert clock.now == 1000


# The command


def test_down_says_what_drains_and_what_is_down(machine: LiveMachine, clock: Clock) -> None:
    done = run("down", "--drain", "--idle", "3")
    assert (done.exit_code, done.stdout) == (0, f"drains: eth0\ndown: eth0 (program {NEW_ID})\n")
    assert clock.now == pytest.approx(1003)
    assert machine.programs == {}


def test_down_says_how_many_requests_came_in_the_end(machine: LiveMachine, clock: Clock) -> None:
    machine.counts = [*range(0, 500_000, 1000)]
    done = run("down", "--drain", "--timeout", "20")
    assert done.exit_code == 0
    assert clock.now == pytest.approx(1020)
    assert done.stderr == (
        "note: requests still came to eth0, 40,000 in the end; nothing has sent their clients "
        "elsewhere\n"
    )


def test_for_programs_down_says_it_at_the_end(machine: LiveMachine, clock: Clock) -> None:
    done = run("down", "--drain", "--json")
    assert json.loads(done.stdout) == {
        "version": 1,
        "down": [
            {
                "interfaces": ["eth0"],
                "program": NEW_ID,
                "drained": {"waited": clock.now - 1000, "idle": True, "requests": 0},
            }
        ],
    }
    assert json.loads(run("down", "--json").stdout) == {"version": 1, "down": []}
    Balancer(machine).up(request())
    (found,) = json.loads(run("down", "--json").stdout)["down"]
    assert found == {"interfaces": ["eth0"], "program": NEW_ID, "drained": None}


def test_a_drain_with_nothing_up_is_done(machine: LiveMachine, clock: Clock) -> None:
    Balancer(machine).down()
    done = run("down", "--drain")
    assert (done.exit_code, done.stdout) == (0, "nothing is up\n")
    assert clock.now == 1000


@pytest.mark.parametrize("option", ["--idle", "--timeout"])
def test_how_long_to_wait_is_for_a_drain(machine: LiveMachine, option: str) -> None:
    done = run("down", option, "5")
    assert done.exit_code == 2
    assert f"{option} is for --drain" in done.stderr
    assert machine.programs


@pytest.mark.parametrize("value", ["0", "-1", "nan", "x", "86401"])
@pytest.mark.parametrize("option", ["--idle", "--timeout"])
def test_a_time_that_is_none_is_refused(machine: LiveMachine, option: str, value: str) -> None:
    assert run("down", "--drain", option, value).exit_code == 2
    assert machine.programs


def test_apply_says_that_the_draining_ends(machine: LiveMachine, tmp_path: Path) -> None:
    (running,) = machine.balancers
    machine.balancers = [replace(running, state=replace(running.state, draining=True))]
    path = tmp_path / "xdplb.toml"
    path.write_text(run("export").stdout)
    path.chmod(0o600)
    done = run("apply", f"{path}", "--dry-run")
    assert done.stdout == (
        "it is not to be taken down any more: clients may come back\nnothing to change\n"
    )
    assert is_draining(machine)
