"""The command line without its start: a process that has all modules, and forks for each command.

What a command does is the same, and 0.1 s of loading is done once. A command can be killed right
before one of its changes, by the number of that change.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from lab import Lab

from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Forked(Closing):
    """That process."""

    def __init__(self) -> None:
        """Start it."""
        self._child = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        """End it."""
        self._child.communicate()

    def run(
        self, words: Sequence[str], kill_at: int | None = None, calls: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end.

        Args:
            words: What follows ``xdplb``.
            kill_at: The change before which it is killed, from 0; None for none.
            calls: The calls of libbpf that are changes; each of a neighbour is one, too.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps([list(words), kill_at, list(calls)]) + "\n")
        self._child.stdin.flush()
        code, out, err = json.loads(self._child.stdout.readline())
        return subprocess.CompletedProcess(list(words), code, out, err)


class QuickLab(Lab):
    """A lab whose commands are forked."""

    def __init__(self, forked: Forked) -> None:
        """Build it."""
        self._forked = forked
        super().__init__()

    def xdplb(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command line, in the balancer's namespace."""
        done = self._forked.run(("--netns", self.balancer, *arguments))
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def killed(self, step: int, words: Sequence[str], calls: Sequence[str]) -> bool:
        """Run a command that is killed before one of its changes; whether it came so far."""
        done = self._forked.run(("--netns", self.balancer, *words), step, calls)
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        return done.returncode != 0


def _count(real: Callable[..., Any], left: list[int], names: Sequence[str]) -> Callable[..., Any]:
    """``real``, but the process is killed before the call that ``left`` counts down to."""

    def call(*arguments: Any, **more: Any) -> Any:
        if not names or arguments[0] in names:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        return real(*arguments, **more)

    return call


def _command(words: Sequence[str], kill_at: int | None, calls: Sequence[str]) -> int:
    """Run one command, in a process of its own."""
    from xdplb.cli import main  # noqa: PLC0415 - loaded already
    from xdplb.kernel import libbpf, links  # noqa: PLC0415

    if kill_at is not None:
        left = [kill_at]
        libbpf._call = _count(libbpf._call, left, calls)  # noqa: SLF001 - every call comes by
        links.Network._neighbour = _count(links.Network._neighbour, left, ())  # type: ignore[method-assign]  # noqa: SLF001
    sys.argv = ["xdplb", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _fork(words: Sequence[str], kill_at: int | None, calls: Sequence[str]) -> list[Any]:
    out, err = os.memfd_create("out"), os.memfd_create("err")
    child = os.fork()
    if not child:
        os.dup2(out, 1)
        os.dup2(err, 2)
        code = 1
        try:
            code = _command(words, kill_at, calls)
        except BaseException:  # noqa: BLE001 - as an interpreter does
            sys.excepthook(*sys.exc_info())
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = []
    for fd in (out, err):
        with os.fdopen(fd) as file:
            file.seek(0)
            texts.append(file.read())
    return [code, *texts]


def _serve() -> None:
    import concurrent.futures  # noqa: F401, PLC0415

    from xdplb import cli  # noqa: F401, PLC0415
    from xdplb.kernel import compiler, machine, veth  # noqa: F401, PLC0415

    for line in sys.stdin:
        sys.stdout.write(json.dumps(_fork(*json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
