"""Checks by a command, and what is left of it afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from health_peers import nothing_left_open, reason, target

from xdplb.checks import ExecCheck
from xdplb.health import probe_exec
from xdplb.health.probes import probe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    with nothing_left_open():
        yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def shell(script: str, *arguments: str) -> ExecCheck:
    return ExecCheck(("/bin/sh", "-c", script, "check", *arguments))


def failure(check: ExecCheck, limit: float = 5.0) -> str:
    return asyncio.run(reason(check, target(53), limit))


def test_a_command_that_ends_with_0_is_good() -> None:
    asyncio.run(probe(shell("echo nothing wrong"), target(53)))


def test_a_command_knows_what_to_look_at() -> None:
    wanted = '"$XDPLB_ADDRESS $XDPLB_PORT $XDPLB_PROTOCOL" = "$1"'
    check = shell(f"test {wanted}", "::1 53 udp")
    asyncio.run(probe(check, target(53, 6)))
    asyncio.run(probe(shell(f"test {wanted}", "127.0.0.1  udp"), target(None)))


def test_its_arguments_meet_no_shell(tmp_path: Path) -> None:
    asyncio.run(probe(ExecCheck(("test", "$HOME; false", "=", "$HOME; false")), target(53)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 3", "exit code 3"),
        ("echo first; echo last; echo; exit 1", "exit code 1: last"),
        ("echo wrong >&2; exit 1", "exit code 1: wrong"),
        (r"printf 'a\033[31m\377'; exit 1", "exit code 1: a?[31m\N{REPLACEMENT CHARACTER}"),
        ("echo out; kill -SEGV $$", "killed by SIGSEGV: out"),
        (f"kill -{signal.SIGRTMIN + 2} $$", f"killed by signal {signal.SIGRTMIN + 2}"),
        ("head -c 300000 /dev/zero; echo; echo end; exit 1", "exit code 1: end"),
        ("exec >&- 2>&-; exit 4", "exit code 4"),
    ],
)
def test_the_reason_is_how_it_ended_and_its_last_line(script: str, expected: str) -> None:
    assert failure(shell(script)) == expected


def test_a_command_that_closes_its_output_may_still_run() -> None:
    assert failure(shell("exec >&- 2>&-; exec sleep 60"), 0.05) == "not finished within 0.05 s"


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/nowhere/check", "cannot run /nowhere/check: no such file or directory"),
        ("/etc/passwd", "cannot run /etc/passwd: permission denied"),
    ],
)
def test_a_command_that_cannot_be_run_is_bad(program: str, expected: str) -> None:
    assert failure(ExecCheck((program,))) == expected


def test_an_argument_that_no_system_takes_leaves_nothing_open() -> None:
    assert failure(ExecCheck(("true", "\ud800"))).startswith("UnicodeEncodeError")


def test_a_command_that_cannot_be_watched_is_not_left_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pidfd_open = os.pidfd_open

    def refuse(pid: int, flags: int = 0) -> int:
        if pid == os.getpid():  # by which the event loop of Python 3.14 tries whether there are any
            return pidfd_open(pid, flags)
        raise OSError(24, "x")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert failure(shell("exec sleep 60")) == "cannot run /bin/sh: too many open files"


STUBBORN = """
trap '' TERM
sh -c 'trap "" TERM; echo $$ >"$1"; exec sleep 60' child "$1" &
"""
"""Neither it nor its child minds SIGTERM; the child tells its number."""


class Child:
    """The child, and the pipe with a name in which it tells who it is."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "told"
        os.mkfifo(self.path)
        self._told = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self._process = -1

    async def started(self) -> None:
        await readable(self._told)
        self._process = os.pidfd_open(int(os.read(self._told, 100)))
        os.close(self._told)

    async def dead(self) -> None:
        await readable(self._process)
        os.close(self._process)


async def readable(descriptor: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    await ready.wait()
    loop.remove_reader(descriptor)


def test_a_command_that_is_too_slow_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, limits = asyncio.timeout, list[asyncio.Timeout]()

    def kept(delay: float | None) -> asyncio.Timeout:
        limits.append(real(delay))
        return limits[-1]

    async def main() -> None:
        child = Child(tmp_path)
        monkeypatch.setattr(asyncio, "timeout", kept)
        check = shell(STUBBORN + "wait; sleep 60", f"{child.path}")
        task = asyncio.create_task(reason(check, target(53), 60))
        await child.started()
        limits[0].reschedule(asyncio.get_running_loop().time())
        assert await task == "not finished within 60 s"
        await child.dead()

    asyncio.run(main())


def test_a_child_that_holds_the_output_does_not_hold_the_check_and_ends_with_it(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        child = Child(tmp_path)
        check = shell(STUBBORN + 'read go <"$2"; exit 0', f"{child.path}", f"{tmp_path}/go")
        os.mkfifo(tmp_path / "go")
        task = asyncio.create_task(probe(check, target(53), 60))
        await child.started()
        (tmp_path / "go").write_text("go\n")
        await task
        await child.dead()

    asyncio.run(main())


def test_a_cancelled_check_leaves_no_process(tmp_path: Path) -> None:
    async def main() -> None:
        child = Child(tmp_path)
        check = shell(STUBBORN + "wait", f"{child.path}")
        task = asyncio.create_task(probe(check, target(53), 60))
        await child.started()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await child.dead()

    asyncio.run(main())


def test_a_command_that_does_not_die_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[probe_exec.Run] = []
    killed: list[int] = []

    class Kept(probe_exec.Run):
        def __init__(self, command: tuple[str, ...], env: dict[str, str]) -> None:
            super().__init__(command, env)
            runs.append(self)

    async def main() -> None:
        monkeypatch.setattr(probe_exec, "Run", Kept)
        monkeypatch.setattr(probe_exec, "DEATH_S", 0.01)
        monkeypatch.setattr(os, "killpg", lambda pid, _: killed.append(pid))
        found = await reason(shell("exec sleep 60"), target(53), 0.01)
        assert found == "not finished within 0.01 s"
        monkeypatch.undo()
        os.kill(killed[0], signal.SIGKILL)
        await runs[0].ended.wait()  # it is buried all the same, as soon as it dies

    asyncio.run(main())
