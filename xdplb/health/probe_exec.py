"""A command, run without a shell and without a thread.

It leads a process group of its own. Whatever of the group is left when the command has ended, or
when nobody waits for it any more, is killed: a check leaves no processes behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from xdplb.health.target import ProbeFailed, os_reason, quoted

if TYPE_CHECKING:
    from xdplb.checks import ExecCheck
    from xdplb.health.target import Target

MAX_TAIL: Final = 4096
"""Bytes of the output that are kept, from its end."""

DEATH_S: Final = 1.0
"""How long a killed command is waited for; one that hangs in the kernel is left to die later."""

_CHUNK: Final = 65536


async def probe_exec(check: ExecCheck, target: Target) -> None:
    """Run the command to its end.

    Raises:
        ProbeFailed: It cannot be run, or did not end with 0.
    """
    try:
        run = Run(check.command, environment(target))
    except OSError as error:
        raise ProbeFailed(f"cannot run {quoted(check.command[0])}: {os_reason(error)}") from None
    try:
        await run.ended.wait()
    finally:
        await run.end()
    if run.code:
        last = run.last_line()
        raise ProbeFailed(f"{_ending(run.code)}: {last}" if last else _ending(run.code))


def environment(target: Target) -> dict[str, str]:
    """The environment of the command: the agent's, and what it is to look at."""
    return os.environ | {
        "XDPLB_ADDRESS": f"{target.address}",
        "XDPLB_PORT": "" if target.port is None else f"{target.port}",
        "XDPLB_PROTOCOL": f"{target.protocol}",
    }


def _ending(code: int) -> str:
    if code > 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"


class Run:
    """One run of a command.

    The loop watches a pidfd (pidfd_open(2)) for its end and a pipe for its output, so that it
    ends when the command does, whoever else may hold the pipe.
    """

    def __init__(self, command: tuple[str, ...], env: dict[str, str]) -> None:
        self.ended = asyncio.Event()
        self.code: int | None = None
        self._tail = bytearray()
        self._loop = asyncio.get_running_loop()
        with ExitStack() as undo:
            self._pipe, theirs = os.pipe2(os.O_CLOEXEC)
            undo.callback(os.close, self._pipe)
            try:
                self._process = subprocess.Popen(
                    command,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=theirs,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            finally:
                os.close(theirs)
            undo.callback(self._process.wait)
            undo.callback(self._kill)
            os.set_blocking(self._pipe, False)
            self._pidfd = os.pidfd_open(self._process.pid)
            undo.pop_all()
        self._loop.add_reader(self._pidfd, self._reap)
        self._loop.add_reader(self._pipe, self._read)

    async def end(self) -> None:
        """Kill what is left, and wait for it; does nothing after the end."""
        self._kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(DEATH_S):
                await self.ended.wait()

    def last_line(self) -> str:
        """The last line of the output that has something in it."""
        lines = self._tail.decode(errors="replace").split("\n")
        return next((found for line in reversed(lines) if (found := quoted(line))), "")

    def _kill(self) -> None:
        """Kill the group, as long as its leader's number cannot be another process's."""
        if self.code is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._pipe)
        self._tail += data
        del self._tail[:-MAX_TAIL]

    def _reap(self) -> None:
        """The leader is dead: the others have to follow, and everything is closed."""
        self._kill()
        self._read()
        self.code = self._process.wait()
        for descriptor in (self._pidfd, self._pipe):
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self.ended.set()
