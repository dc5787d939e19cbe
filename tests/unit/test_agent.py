"""The agent on a machine in memory, by a clock that jumps."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from agent_machine import Stage, play
from fake_machine import MAC, service

from xdplb import live
from xdplb.agent import reconciling, watching
from xdplb.agent.agent import STUCK_S
from xdplb.balancer import Balancer
from xdplb.checks import BelowMinimum, Health, TcpCheck
from xdplb.draining import mark
from xdplb.errors import (
    BusyError,
    InvalidValueError,
    NotReadyError,
    TableError,
    UnreachableError,
)
from xdplb.facts import Attached, Link, Neighbour, Way
from xdplb.model import Backend, BackendState, Mode
from xdplb.request import Request

HEALTH = Health(check=TcpCheck(), interval=1, timeout=0.1, rise=2, fall=2, jitter=0)
TRAFFIC = Health(fall=2)
A, B, C = "192.0.2.10", "192.0.2.11", "192.0.2.12"
UP, DRAIN, DOWN = BackendState


def wanted(
    *backends: str, health: Health | None = HEALTH, states: tuple[BackendState, ...] = ()
) -> Request:
    """A file with one service."""
    made = service("192.0.2.1", *(backends or (A, B)), health=health)
    with_states = tuple(
        replace(item, state=state)
        for item, state in zip(made.backends, states or (UP,) * len(made.backends), strict=True)
    )
    return Request(("eth0",), (replace(made, backends=with_states),))


def drain(stage: Stage, address: str) -> None:
    Balancer(stage.machine).edit_backend(Backend(ip_address(address)), live.drain)


def undrain(stage: Stage, address: str) -> None:
    Balancer(stage.machine).edit_backend(Backend(ip_address(address)), live.undrain)


def take_down(backend: Backend) -> Backend:
    return replace(backend, state=DOWN)


def lines(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in line for line in caplog.messages)


@pytest.fixture(autouse=True)
def _everything_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="xdplb")


def test_a_backend_that_fails_is_down_and_comes_back() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(3)
        stage.failing = {A}
        await stage.passes(3.5)
        assert stage.states == ["down", "up"]
        assert stage.agent.summary() == "1 service, 1 of 2 backends up"
        stage.failing = set()
        await stage.passes(3.5)
        assert stage.states == ["up", "up"]

    stage = play(Stage(wanted()), course)
    assert {"READY": 1, "STATUS": "1 service, 2 of 2 backends up"} in stage.manager.told
    assert stage.manager.told[-1] == {"STOPPING": 1}
    assert stage.claims[0] == {"eth0"}


def test_a_new_agent_leaves_states_as_they_are_until_it_knows_better() -> None:
    async def first(stage: Stage) -> None:
        stage.failing = {A}
        await stage.passes(4)
        drain(stage, B)

    async def second(stage: Stage) -> None:
        await stage.passes(0.5)
        assert stage.states == ["down", "drain", "up"]
        stage.failing = set()
        await stage.passes(0.5)
        assert stage.states[0] == "down"
        await stage.passes(3)
        assert stage.states == ["up", "drain", "up"]

    stage = play(Stage(wanted(A, B, C)), first)
    programs = len(stage.machine.loaded)
    play(stage, second)
    assert len(stage.machine.loaded) == programs


def test_without_a_file_it_looks_after_the_balancer_that_is_up() -> None:
    async def course(stage: Stage) -> None:
        stage.failing = {A}
        await stage.passes(4)
        assert stage.states == ["down", "up"]
        stage.hup()
        await stage.passes(1)

    stage = Stage()
    stage.up(wanted())
    play(stage, course)


@pytest.mark.parametrize(
    ("below", "states"),
    [(BelowMinimum.FAIL_OPEN, ["up", "up"]), (BelowMinimum.FAIL_CLOSED, ["down", "down"])],
)
def test_when_too_few_are_healthy_the_service_says_what_happens(
    below: BelowMinimum, states: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def course(stage: Stage) -> None:
        stage.failing = {A, B}
        await stage.passes(10)
        assert stage.states == states

    play(Stage(wanted(health=replace(HEALTH, min_healthy=2, below=below))), course)
    assert lines(caplog, "stays: its service needs it") == 2 * (below is BelowMinimum.FAIL_OPEN)


def test_a_drained_backend_that_fails_is_drained_afterwards() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        drain(stage, A)
        stage.failing = {A}
        await stage.passes(4)
        assert stage.states == ["down", "up"]
        stage.machine.fail["change"] = [TableError("no")]  # also when that fails at first
        stage.failing = set()
        await stage.passes(5)
        assert stage.states == ["drain", "up"]

    play(Stage(wanted()), course)


def test_a_backend_that_is_undrained_while_it_is_down_comes_back_undrained() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        drain(stage, A)
        stage.failing = {A}
        await stage.passes(4)
        undrain(stage, A)
        await stage.passes(2)
        assert stage.states == ["down", "up"]
        stage.failing = set()
        await stage.passes(4)
        assert stage.states == ["up", "up"]

    play(Stage(wanted()), course)


def test_a_backend_that_somebody_takes_down_stays_down_until_somebody_lets_it_up() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        for state, how in ((DOWN, take_down), (UP, live.undrain)):
            Balancer(stage.machine).edit_backend(Backend(ip_address(A)), how)
            await stage.passes(10)
            assert stage.states == [state.value, "up"]

    play(Stage(wanted()), course)


def test_a_backend_that_the_file_wants_down_is_down_whatever_its_health() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(10)
        assert stage.states == ["down", "up"]
        stage.wanted = wanted()
        stage.hup()
        await stage.passes(1)
        assert stage.states == ["up", "up"]

    play(Stage(wanted(states=(DOWN, UP))), course)


def test_a_file_that_is_read_again_keeps_what_is_known_of_backends() -> None:
    async def course(stage: Stage) -> None:
        stage.failing = {A}
        await stage.passes(4)
        stage.wanted = wanted(A, B, C, states=(DRAIN, UP, UP))
        stage.hup()
        await stage.passes(0.5)
        assert stage.states == ["down", "up", "up"]
        stage.failing = set()
        await stage.passes(4)
        assert stage.states == ["drain", "up", "up"]
        stage.failing = {A}
        await stage.passes(4)
        assert stage.states == ["down", "up", "up"]
        stage.wanted = wanted(A, B, C, health=None)  # nobody would let it up any more
        stage.hup()
        await stage.passes(0.5)
        assert stage.states == ["up", "up", "up"]

    stage = play(Stage(wanted()), course)
    kinds = [next(iter(fields)) for fields in stage.manager.told]
    assert kinds.count("RELOADING") == 2
    assert [kinds[at + 1] for at, kind in enumerate(kinds) if kind == "RELOADING"] == ["READY"] * 2


def test_a_file_that_is_wrong_changes_nothing_and_is_named_each_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong() -> Request:
        raise InvalidValueError("line 7 is wrong", "mend it")

    async def course(stage: Stage) -> None:
        await stage.passes(1)
        monkeypatch.setattr(stage.agent, "_read", wrong)
        for times in (1, 2):
            stage.hup()
            await stage.passes(5)
            assert lines(caplog, "line 7 is wrong (mend it)") == times
            assert stage.states == ["up", "up"]

    play(Stage(wanted()), course)


@pytest.mark.parametrize(
    "error", [TableError("the kernel says no"), BusyError("the kernel says no")]
)
def test_an_error_is_told_once_however_long_it_lasts(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        stage.machine.fail["traffic"] = [error] * 300  # type: ignore[list-item]
        await stage.passes(100)
        assert lines(caplog, "the kernel says no") == 1
        await stage.passes(300)
        stage.machine.fail["traffic"] = [error] * 300  # type: ignore[list-item]
        await stage.passes(100)
        assert lines(caplog, "the kernel says no") == 2

    play(Stage(wanted()), course)


def test_a_check_that_goes_wrong_by_itself_is_a_fault_that_ends_the_agent() -> None:
    """A backend that nobody watches would look healthy for ever."""

    async def course(stage: Stage) -> None:
        stage.faults = [ZeroDivisionError("a bug")]
        await stage.passes(100)

    stage = Stage(wanted())
    with pytest.raises(ZeroDivisionError, match="a bug"):
        play(stage, course)
    assert stage.manager.told[-1] == {"STOPPING": 1}


def test_a_balancer_that_is_taken_down_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(2)
        Balancer(stage.machine).down()
        await stage.passes(10)
        stage.machine.links["eth0"] = replace(stage.machine.links["eth0"], index=9)
        stage.machine.way = lambda address: Way(9, address)  # type: ignore[method-assign]
        stage.hear()
        await stage.passes(10)
        assert stage.machine.programs == {}
        assert stage.agent.summary() == "nothing is balanced"
        stage.up(wanted(A, C))
        await stage.passes(2)
        stage.failing = {A}
        await stage.passes(4)
        assert stage.states == ["down", "up"]
        Balancer(stage.machine).down()
        stage.failing = set()
        await stage.passes(2)
        stage.hup()
        await stage.passes(2)
        assert stage.states == ["up", "up"]

    play(Stage(wanted()), course)
    assert lines(caplog, "has been taken down") == 2


def _draining(stage: Stage) -> bool:
    (running,) = stage.machine.balancers
    return running.state.draining


def _drain_all(stage: Stage) -> None:
    """What ``xdplb down --drain`` begins with."""
    (running,) = stage.machine.balancers
    mark(stage.machine, running, draining=True)


def test_a_balancer_that_drains_goes_on_draining_whatever_the_agent_does() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(2)
        _drain_all(stage)
        stage.failing = {A}
        await stage.passes(4)
        assert stage.states == ["down", "up"]
        assert _draining(stage)
        stage.machine.links["eth0"] = replace(stage.machine.links["eth0"], mtu=1400)
        stage.hear()
        await stage.passes(3)
        assert stage.machine.loaded[-1][1].interfaces[0].mtu == 1400
        assert _draining(stage)
        Balancer(stage.machine).down()
        await stage.passes(10)
        assert stage.machine.programs == {}

    play(Stage(wanted()), course)


def test_a_balancer_that_goes_with_its_interface_while_it_drains_stays_down() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(2)
        _drain_all(stage)
        await stage.passes(2)
        link = stage.machine.links["eth0"]
        stage.machine.lose("eth0")
        stage.hear()
        await stage.passes(3)
        stage.machine.links["eth0"] = replace(link, index=9)
        stage.machine.way = lambda address: Way(9, address)  # type: ignore[method-assign]
        stage.hear()
        await stage.passes(5)
        assert stage.machine.programs == {}
        stage.hup()
        await stage.passes(2)
        assert stage.machine.programs.keys() == {9}

    play(Stage(wanted()), course)


def test_an_agent_that_begins_lets_it_drain_and_a_reload_does_not() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(2)
        assert _draining(stage)
        stage.hup()
        await stage.passes(2)
        assert not _draining(stage)

    for file in (wanted(), wanted(A, C)):
        stage = Stage(file)
        stage.up(wanted())
        _drain_all(stage)
        play(stage, course)


def test_an_interface_whose_program_goes_before_it_is_not_taken_for_down() -> None:
    """The kernel takes the program off first, and a look may fall between the two."""

    async def course(stage: Stage) -> None:
        await stage.passes(2)
        link = stage.machine.links["eth0"]
        stage.machine.programs.clear()
        stage.machine.balancers = []
        await stage.passes(1)
        stage.machine.links["eth0"] = replace(link, index=9)
        stage.machine.way = lambda address: Way(9, address)  # type: ignore[method-assign]
        stage.hear()
        await stage.passes(3)
        assert list(stage.machine.programs) == [9]

    play(Stage(wanted()), course)


def test_an_interface_that_is_made_anew_is_balanced_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def course(stage: Stage) -> None:
        stage.failing = {A}
        await stage.passes(4)
        link = stage.machine.links["eth0"]
        stage.machine.lose("eth0")
        stage.hear()
        await stage.passes(10)
        stage.machine.links["eth0"] = replace(link, index=9)
        stage.machine.fail["way"] = [UnreachableError("no route yet")]
        stage.machine.way = lambda address: Way(9, address)  # type: ignore[method-assign]
        stage.hear()
        await stage.passes(3)
        assert stage.machine.programs.keys() == {9}
        assert stage.states == ["down", "up"]

    play(Stage(wanted()), course)
    assert lines(caplog, "eth0 is not there; waiting for it") == 1
    assert lines(caplog, "eth0 is back: balancing again") == 1


def test_an_interface_that_is_not_there_at_the_start_is_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where the service has the interface's own address, which nobody knows before."""
    stage = Stage(replace(wanted(), services=(service("", A, B, health=HEALTH),)))
    link = stage.machine.links.pop("eth0")

    async def course(stage: Stage) -> None:
        await stage.passes(5)
        stage.wanted = wanted(A, C)
        stage.hup()
        await stage.passes(5)
        stage.machine.links["eth0"] = link
        await stage.passes(2)
        stage.failing = {C}
        await stage.passes(4)
        assert stage.states == ["up", "down"]

    play(stage, course)
    assert {"READY": 1, "STATUS": "nothing is balanced"} in stage.manager.told
    assert lines(caplog, "eth0 is not there; waiting for it") == 2


def test_a_renamed_interface_is_followed_and_claimed() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        link = stage.machine.links.pop("eth0")
        stage.machine.links["wan"] = replace(link, name="wan")
        stage.hear()
        await stage.passes(3)
        (running,) = stage.machine.balancers
        assert [item.name for item in running.state.interfaces] == ["wan"]
        loaded = len(stage.machine.loaded)
        stage.hear()
        await stage.passes(3)
        assert len(stage.machine.loaded) == loaded

    assert play(Stage(wanted()), course).claims[-1] == {"wan"}


@pytest.mark.parametrize(
    "link", [Link("eth0", 2, bytes(6)), Link("eth0", 2, MAC, mtu=1400)], ids=["MAC", "MTU"]
)
def test_an_interface_that_changes_is_followed(link: Link) -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        stage.machine.links["eth0"] = link
        stage.machine.fail["way"] = [UnreachableError("not now")]
        stage.hear()
        await stage.passes(3)
        assert len(stage.machine.loaded) == 2

    play(Stage(wanted()), course)


def test_a_next_hop_that_the_kernel_forgot_is_asked_for_again() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(3)
        machine = stage.machine
        machine.managed.clear()
        changes = len(machine.changed)
        del machine.known[2, ip_address(A)]
        machine.known[2, ip_address(B)] = Neighbour(bytes(6))
        stage.hear()
        await stage.passes(3)
        assert sorted(machine.managed) == [ip_address(A), ip_address(B)]
        stage.hear()
        await stage.passes(3)
        assert (len(machine.managed), len(machine.changed)) == (2, changes)
        assert len(machine.loaded) == 1

    play(Stage(wanted()), course)


def test_a_mac_address_that_an_administrator_gives_is_written() -> None:
    mac = bytes.fromhex("020000000055")

    async def course(stage: Stage) -> None:
        await stage.passes(3)
        stage.machine.known[2, ip_address(A)] = Neighbour(mac, is_permanent=True)
        stage.hear()
        await stage.passes(3)
        assert stage.machine.balancers[0].records[4][0].mac == mac

    play(Stage(wanted()), course)


def test_changes_that_never_end_cost_one_look_a_second() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(2)
        before = stage.machine.looks
        for _ in range(400):
            stage.hear()
            await stage.passes(0.025)
        assert stage.machine.looks - before < 8 * 10

    play(Stage(wanted()), course)


def test_a_silent_backend_goes_by_what_the_traffic_tells_and_comes_back_on_trial(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def course(stage: Stage) -> None:
        into = out = 0

        async def traffic(seconds: int, *, answers: bool = False) -> None:
            nonlocal into, out
            for _ in range(seconds):
                into += 10
                out += 10 * answers
                stage.machine.count({0: (into, out, 0), 1: (into, into, 0)})
                await stage.passes(1)

        await traffic(12)
        assert stage.states == ["down", "up"]
        await traffic(10)
        assert lines(caplog, "is up: on trial after 10 s") == 1
        await traffic(6)
        assert stage.states == ["down", "up"]
        await traffic(30, answers=True)
        assert stage.states == ["up", "up"]

    play(Stage(wanted(health=TRAFFIC)), course)


def test_what_is_down_by_the_traffic_alone_begins_with_a_pause() -> None:
    async def first(stage: Stage) -> None:
        for into in range(10, 130, 10):
            stage.machine.count({0: (into, 0, 0), 1: (into, into, 0)})
            await stage.passes(1)
        assert stage.states == ["down", "up"]

    async def second(stage: Stage) -> None:
        await stage.passes(8)
        assert stage.states == ["down", "up"]
        await stage.passes(5)
        assert stage.states == ["up", "up"]

    play(play(Stage(wanted(health=TRAFFIC)), first), second)


def test_the_traffic_of_a_service_that_nobody_answers_tells_nothing() -> None:
    silent = wanted(health=TRAFFIC)
    one_way = replace(silent, services=(replace(silent.services[0], one_way=True),))

    async def course(stage: Stage) -> None:
        for into in range(10, 400, 10):
            stage.machine.count({0: (into, 0, 0), 1: (into, into, 0)})
            await stage.passes(1)
        assert stage.states == ["up", "up"]

    play(Stage(one_way), course)


def test_a_suspicion_makes_a_check_come_at_once() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(120)
        stage.failing = {A}
        stage.machine.count({0: (10, 0, 3), 1: (10, 10, 0)})
        await stage.passes(2)
        assert stage.states == ["down", "up"]

    play(Stage(wanted(health=replace(HEALTH, interval=60, fall=1))), course)


def test_the_watchdog_hears_as_long_as_the_loop_goes_round() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(30)

    told = play(Stage(wanted(), watchdog_s=0.6), course).manager.told
    assert sum("WATCHDOG" in fields for fields in told) >= 150


def test_the_watchdog_hears_no_more_when_a_turn_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never() -> None:
        await asyncio.sleep(1000)

    async def course(stage: Stage) -> None:
        await stage.passes(2)
        monkeypatch.setattr(stage.agent, "_follow", never)
        stage.hear()
        await stage.passes(500)
        heard = sum("WATCHDOG" in fields for fields in stage.manager.told)
        assert 100 < heard < 170

    play(Stage(wanted(), watchdog_s=1.2), course)


def test_hundreds_of_looks_leave_nothing_behind() -> None:
    def left() -> tuple[int, int, int]:
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        return descriptors, len(asyncio.all_tasks()), threading.active_count()

    async def course(stage: Stage) -> None:
        await stage.passes(10.01)
        before = left()
        for _ in range(300):
            stage.hear()
            stage.hup()
            await stage.passes(1)
        await stage.passes(300)
        assert left() == before

    play(Stage(wanted()), course)


@pytest.mark.parametrize("several", [False, True])
def test_it_begins_only_where_it_is_clear_what_to_look_after(*, several: bool) -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(10)

    stage = Stage()
    if several:
        stage.up(wanted())
        stage.machine.balancers *= 2
    with pytest.raises(NotReadyError, match="several" if several else "no balancer is up"):
        play(stage, course)


def test_a_program_of_somebody_else_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        stage.machine.balancers = []
        stage.machine.programs = {2: Attached(7, Mode.NATIVE)}
        await stage.passes(10)
        assert stage.machine.programs == {2: Attached(7, Mode.NATIVE)}

    play(Stage(wanted()), course)
    assert lines(caplog, "eth0 carries a program that is not xdplb's") == 1


def test_states_that_somebody_changed_in_between_are_left_alone() -> None:
    stage = Stage()
    stage.up(wanted())
    (first, second) = (key for _, _, key in watching.members(request_of(stage)))
    drain(stage, A)
    after = reconciling.set_states(
        stage.machine, frozenset({2}), {first: (UP, DOWN), second: (UP, DOWN)}
    )
    assert after is not None
    assert stage.states == ["drain", "down"]


def test_it_reports_who_is_well_and_why_not() -> None:
    async def course(stage: Stage) -> None:
        stage.failing = {A}
        await stage.passes(5)
        report = stage.agent.report()
        assert (report.alive, report.runs, report.interfaces) == (True, True, ("eth0",))
        assert report.summary == "1 service, 1 of 2 backends up"
        first, second = report.watched
        assert [(it.service.name, f"{it.backend}") for it in report.watched] == [("", A), ("", B)]
        assert (first.healthy, first.reason, second.healthy) == (False, "no answer", True)
        assert first.timings is not None
        assert first.timings.failures > 1
        assert first.since is not None
        assert 3 <= time.time() - first.since <= 6  # of the clock that jumps

    play(Stage(wanted()), course)


def test_it_reports_what_the_traffic_says_of_a_backend_that_is_not_asked() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        watched = stage.agent.report().watched
        assert [(it.healthy, it.timings, it.since) for it in watched] == [(True, None, None)] * 2

    play(Stage(wanted(health=TRAFFIC)), course)


def test_it_reports_whether_the_file_was_taken() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        first = stage.agent.report().reload
        assert first is not None
        assert (first.success, abs(time.time() - first.at) < 60) == (True, True)
        stage.machine.fail["change"] = [TableError("no")]
        stage.wanted = wanted(A, B, C)
        for success in (False, True):
            stage.hup()
            await stage.passes(1)
            reload = stage.agent.report().reload
            assert reload is not None
            assert reload.success is success
            assert reload.at >= first.at

    play(Stage(wanted()), course)


def test_without_a_file_it_reports_of_none_and_without_a_balancer_of_nobody() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        stage.hup()
        await stage.passes(1)
        assert stage.agent.report().reload is None
        Balancer(stage.machine).down()
        await stage.passes(3)
        report = stage.agent.report()
        assert (report.alive, report.runs, report.watched) == (True, False, ())
        assert report.interfaces == ("eth0",)

    stage = Stage()
    stage.up(wanted())
    play(stage, course)


def test_it_is_not_well_while_a_step_takes_too_long() -> None:
    async def course(stage: Stage) -> None:
        await stage.passes(1)
        stage.agent._turned -= STUCK_S  # noqa: SLF001 - as if a step had begun then
        assert not stage.agent.report().alive
        await stage.passes(2)
        assert stage.agent.report().alive

    play(Stage(wanted()), course)


def request_of(stage: Stage) -> Request:
    return stage.machine.balancers[0].state.request
