"""``save --follow`` and ``restore --follow`` over a machine in memory."""

from __future__ import annotations

import io
import json
import os
import signal
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, NoReturn

import pytest
from click.testing import CliRunner
from fake_machine import NEW_ID, FakeMachine, request

from xdplb import stream
from xdplb.balancer import Balancer
from xdplb.cli import commands, following
from xdplb.errors import BusyError, NotReadyError, TableError
from xdplb.model import IPV4, IPV6, Protocol
from xdplb.saved import FLOW, Lane, Part, Saved

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from click.testing import Result

    from xdplb.facts import Running

OWN = ip_address("192.0.2.1")
LANE = Lane(OWN, Protocol.UDP, OWN + 9, None, OWN)
MAPS = {NEW_ID: [7, 8], NEW_ID + 1: [8, 9], NEW_ID + 2: [10]}
"""The second program goes on with a map of the first one, the third is another balancer's."""


def flows(version: int = IPV4, count: int = 3) -> Saved:
    part = Part(version, (LANE,), memoryview(bytes(count * FLOW[version].size)))
    return Saved(5.0, ("eth0", ""), ("answered", stream.ENDED), (part,))


def sent(*found: Saved) -> bytes:
    """A stream with one set after the other, the last one complete."""
    last = Saved(5.0, (), (), ())
    sets = [*(stream.to_bytes(item, has_more=True) for item in found)]
    return b"".join((stream.head(), *sets, stream.to_bytes(last, has_more=False)))


class Changing:
    """Flows that change so often; ``then`` happens in the end."""

    def __init__(self, machine: FakeMachine, times: int) -> None:
        self.machine, self.left = machine, times
        self.asked: list[tuple[Running, Sequence[str], float]] = []

    def changes(
        self, running: Running, interfaces: Sequence[str], interval: float
    ) -> Iterator[Saved]:
        self.asked.append((running, interfaces, interval))
        yield flows(count=self.left)
        self.left -= 1
        if not self.left:
            self.machine.balancers = []


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    made = FakeMachine()
    Balancer(made).up(request())
    made.run_on()
    made.maps = MAPS
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: made)
    return made


def replaced(machine: FakeMachine, program_id: int) -> None:
    machine.balancers = [replace(machine.balancers[0], program_id=program_id)]


def run(*words: str, data: bytes = b"") -> Result:
    return CliRunner().invoke(commands, words, input=data)


# What is sent


def test_all_is_sent_and_then_what_changes_until_the_balancer_has_gone(
    machine: FakeMachine,
) -> None:
    follower = machine.follower = Changing(machine, 3)
    found = list(Balancer(machine).follow(0.5))
    assert [(item.count, more) for item, more in found] == [
        (3, True), (0, False), (2, True), (0, False), (1, True), (0, False),
    ]  # fmt: skip
    assert [(names, interval) for _, names, interval in follower.asked] == [(("eth0",), 0.5)] * 3


def test_a_program_that_takes_the_flows_over_is_followed(machine: FakeMachine) -> None:
    machine.follower = Changing(machine, 3)
    changes = Balancer(machine).follow(1.0)
    assert [next(changes)[0].count for _ in range(2)] == [3, 0]
    replaced(machine, NEW_ID + 1)
    assert [next(changes)[0].count for _ in range(2)] == [2, 0]
    replaced(machine, NEW_ID + 2)
    assert list(changes) == []


def test_another_ip_version_ends_it(machine: FakeMachine) -> None:
    machine.follower = Changing(machine, 3)
    changes = Balancer(machine).follow(1.0)
    assert [next(changes)[0].count for _ in range(2)] == [3, 0]
    state = machine.balancers[0].state
    sides = (*state.sides, replace(state.sides[0], version=IPV6))
    machine.balancers = [replace(machine.balancers[0], state=replace(state, sides=sides))]
    assert list(changes) == []


def test_a_program_that_is_exchanged_while_it_is_looked_for_is_looked_for_again(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.follower = Changing(machine, 3)
    changes = Balancer(machine).follow(1.0)
    assert [next(changes)[0].count for _ in range(2)] == [3, 0]
    tries = iter([BusyError("gone"), None, *[BusyError("gone")] * 3])

    def map_ids(program_id: int) -> list[int]:
        if (error := next(tries)) is not None:
            raise error
        return MAPS[program_id]

    monkeypatch.setattr(machine, "map_ids", map_ids)
    assert [next(changes)[0].count for _ in range(2)] == [2, 0]
    assert list(changes) == []


@pytest.mark.parametrize("command", ["save", "restore"])
def test_only_the_standard_streams_are_followed(machine: FakeMachine, command: str) -> None:
    done = run(command, "--follow", "flows")
    assert (done.exit_code, "name -: " in done.stderr) == (2, True)
    assert machine.ruled == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--interval", "2", "flows"), "--interval is for --follow"),
        (("--follow", "--interval", "0", "-"), "0.1<=x<=3600"),
        (("--follow", "--interval", "nan", "-"), "is no time"),
    ],
)
def test_an_interval_that_cannot_be_is_refused(
    machine: FakeMachine, words: tuple[str, ...], reason: str
) -> None:
    done = run("save", *words)
    assert (done.exit_code, reason in done.stderr) == (2, True)
    assert machine.balancers


def test_there_has_to_be_a_balancer_to_follow(machine: FakeMachine) -> None:
    machine.balancers = []
    for words in (("save", "--follow", "-"), ("restore", "--follow", "-")):
        done = run(*words, data=sent(flows()))
        assert (done.exit_code, "no balancer is up" in done.stderr) == (3, True)


# What comes


def test_what_comes_is_taken_set_by_set_and_counts_more(machine: FakeMachine) -> None:
    done = run("restore", "--follow", "-", data=sent(flows(), flows(count=2)))
    assert done.exit_code == 0
    assert done.stdout == "restored: 3 of 5 flows (2 skipped: 2 timed out)\n"
    assert done.stderr == "following: 5 flows came; Ctrl-C ends it\n"
    assert [found.count for _, _, found, _ in machine.given] == [3, 2, 0]
    assert machine.ruled == [True] * 3


def test_programs_get_json_in_the_end(machine: FakeMachine) -> None:
    done = run("restore", "--follow", "--json", "-", data=sent(flows()))
    assert json.loads(done.stdout) == {
        "version": 1,
        "flows": 3,
        "restored": 2,
        "skipped": {"timed_out": 1},
    }
    assert machine.given


def test_a_stream_that_breaks_off_leaves_what_came_before(machine: FakeMachine) -> None:
    data = stream.head() + stream.to_bytes(flows(), has_more=True)
    done = run("restore", "--follow", "-", data=data + stream.to_bytes(flows(), has_more=True)[:-1])
    assert (done.exit_code, "broke off within a set" in done.stderr) == (3, True)
    assert len(machine.given) == 1


def test_a_stream_of_another_ip_version_is_refused(machine: FakeMachine) -> None:
    done = run("restore", "--follow", "-", data=sent(flows(IPV6)))
    assert (done.exit_code, "of IPv6" in done.stderr) == (2, True)
    assert machine.given == []


def test_a_file_is_no_stream(machine: FakeMachine) -> None:
    done = run("restore", "--follow", "-", data=b"".join(flows().pieces()))
    assert (done.exit_code, "is no stream of flows" in done.stderr) == (2, True)
    done = run("restore", "-", data=sent(flows()))
    assert (done.exit_code, "is no file of saved flows" in done.stderr) == (2, True)
    assert machine.given == []


def test_a_balancer_that_was_started_anew_meanwhile_does_not_get_half_of_it(
    machine: FakeMachine,
) -> None:
    standby = Balancer(machine).standby()
    standby.take(flows())
    replaced(machine, NEW_ID + 1)
    standby.take(flows())
    replaced(machine, NEW_ID + 2)
    with pytest.raises(NotReadyError, match="started anew meanwhile") as caught:
        standby.take(flows())
    assert "start both ends again" in caught.value.hint
    assert len(machine.given) == 2


def test_a_set_is_taken_as_a_whole_before_a_signal_ends_the_process(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = []
    real = machine.restore_flows

    def restore_flows(*words: object, **more: object) -> object:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        return real(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(machine, "restore_flows", restore_flows)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert run("restore", "--follow", "-", data=sent(flows())).exit_code == 0
    assert all({signal.SIGTERM, signal.SIGINT, signal.SIGHUP} <= item for item in blocked)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    machine.fail["restore_flows"] = [TableError("the kernel says no")]
    assert run("restore", "--follow", "-", data=sent(flows())).exit_code == 4
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


# Both ends


class Out:
    """A standard output that is a pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    @staticmethod
    def isatty() -> bool:
        return False


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """What is read from, and written to."""
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        with suppress(OSError):
            os.close(fd)


def test_what_is_sent_can_be_taken(
    machine: FakeMachine,
    pipe: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdout", Out(pipe[1]))
    machine.follower = Changing(machine, 2)
    following.send(None, 0.1)
    os.close(pipe[1])
    with os.fdopen(os.dup(pipe[0]), "rb") as file:
        data = file.read()
    found = list(stream.sets(io.BytesIO(data), "the stream"))
    assert [(item.count, more) for item, more in found] == [
        (2, True), (0, False), (1, True), (0, False),
    ]  # fmt: skip
    assert capsys.readouterr().err == (
        "following: 2 flows sent; Ctrl-C ends it\n"
        "the stream has ended: the balancer has gone, or balances other IP versions now\n"
    )


def test_ctrl_c_ends_it_without_a_word(
    machine: FakeMachine,
    pipe: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def wait(out: int, seconds: float) -> NoReturn:
        del out, seconds
        raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdout", Out(pipe[1]))
    monkeypatch.setattr(following, "_wait", wait)
    machine.follower = Changing(machine, 5)
    following.send(None, 1.0)
    assert capsys.readouterr().err == "following: 5 flows sent; Ctrl-C ends it\n"


def test_ctrl_c_where_it_is_taken_tells_what_came(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sets(*_: object) -> Iterator[tuple[Saved, bool]]:
        yield flows(), False
        raise KeyboardInterrupt

    monkeypatch.setattr(stream, "sets", sets)
    done = run("restore", "--follow", "-")
    assert (done.exit_code, done.stdout) == (0, "restored: 2 of 3 flows (1 skipped: 1 timed out)\n")
    assert machine.given


@pytest.mark.parametrize("is_waiting", [True, False])
def test_it_ends_when_nobody_reads_it(
    machine: FakeMachine,
    pipe: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    is_waiting: bool,
) -> None:
    """At once, and not only when there is something to write."""
    monkeypatch.setattr("sys.stdout", Out(pipe[1]))
    machine.follower = Changing(machine, 5)
    if is_waiting:
        real = following._wait  # noqa: SLF001 - where it waits

        def wait(out: int, seconds: float) -> None:
            os.close(pipe[0])
            real(out, seconds)

        monkeypatch.setattr(following, "_wait", wait)
        following.send(None, 3600)
    else:
        os.close(pipe[0])
        following.send(None, 3600)
    assert "the stream has ended: nobody reads it any more\n" in capsys.readouterr().err
