"""The command line without its start: a process that has all modules, and forks for each command.

What a command does is the same, and 0.15 s of loading is done once. It finds the environment and
the working directory of who asks, and nothing on its standard input. It can be killed right before
one of its changes, by the number of that change. What was compiled for one command is not compiled
again for the next that wants just that; so that this happens, a new balancer's hash key, which is
in its program, is one of a few.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEYS: Final = 2
"""How many hash keys there are to choose from."""

WITHIN_S: Final = 60
"""A command that takes longer is ended by a signal (alarm(2))."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command, and where it is to run.

    Attributes:
        number: Stands in the answer, too.
        words: What follows ``xdplb``.
        kill_at: The change before which it is killed, from 0; None for none.
        calls: The calls of libbpf that are changes; each of a neighbour is one, too.
    """

    number: int
    words: Sequence[str]
    kill_at: int | None
    calls: Sequence[str]
    environment: dict[str, str]
    directory: str


class Forked(Closing):
    """That process."""

    def __init__(self) -> None:
        """Start it."""
        self._lock = threading.Lock()
        self._number = 0
        self._child = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        """End it."""
        self._child.communicate()

    def run(
        self, words: Sequence[str], kill_at: int | None = None, calls: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; ``Job`` says what is what."""
        with self._lock:
            self._number += 1
            job = Job(
                self._number, list(words), kill_at, list(calls), dict(os.environ), f"{Path.cwd()}"
            )
            assert self._child.stdin is not None
            self._child.stdin.write(json.dumps(asdict(job)) + "\n")
            self._child.stdin.flush()
            return subprocess.CompletedProcess(list(words), *self._answer())

    def _answer(self) -> tuple[int, str, str]:
        """What became of the last command; a test that was stopped did not wait for its own."""
        assert self._child.stdout is not None
        while True:
            line = self._child.stdout.readline()
            assert line, "the process that forks has ended"
            number, code, out, err = json.loads(line)
            if number == self._number:
                return code, out, err


_RUNNING: Final[list[Forked]] = []


def forked() -> Forked:
    """The one that runs, or a new one."""
    if not _RUNNING:
        _RUNNING.append(Forked())
    return _RUNNING[0]


def end() -> None:
    """End the one that runs."""
    while _RUNNING:
        _RUNNING.pop().close()


def _count(real: Callable[..., Any], left: list[int], names: Sequence[str]) -> Callable[..., Any]:
    """``real``, but the process is killed before the call that ``left`` counts down to."""

    def call(*arguments: Any, **more: Any) -> Any:
        if not names or arguments[0] in names:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        return real(*arguments, **more)

    return call


def _command(job: Job) -> int:
    """Run one command, in a process of its own."""
    from xdplb.cli import main  # noqa: PLC0415 - loaded already
    from xdplb.kernel import libbpf, links  # noqa: PLC0415

    if job.kill_at is not None:
        left = [job.kill_at]
        libbpf.call = _count(libbpf.call, left, job.calls)  # every call comes by
        links.Network._neighbour = _count(links.Network._neighbour, left, ())  # type: ignore[method-assign]  # noqa: SLF001
    os.environ.clear()
    os.environ.update(job.environment)
    os.chdir(job.directory)
    sys.argv = ["xdplb", *job.words]
    signal.alarm(WITHIN_S)
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


class Keys:
    """What stands in for the module ``secrets``: a process has one of a few sequences."""

    @cached_property
    def _sequence(self) -> random.Random:
        return random.Random(random.randrange(KEYS))

    def randbits(self, bits: int) -> int:
        """The next number."""
        return self._sequence.getrandbits(bits)


def _remember(directory: Path) -> None:
    """Keep in a directory what the compiler has answered, and start it for other questions only."""
    from xdplb import startup  # noqa: PLC0415 - only that process
    from xdplb.kernel.compiler import Compiler, ObjectCode  # noqa: PLC0415

    setattr(startup, "secrets", Keys())  # noqa: B010 - it does not export that

    start, ask, end = Compiler.__init__, Compiler.compile, Compiler.close

    def started(self: Compiler, headers: Path) -> None:
        vars(self)["headers"] = headers

    def compiled(self: Compiler, text: str, flags: Sequence[str], function: str) -> ObjectCode:
        question = json.dumps([text, list(flags), function]).encode()
        known = directory / hashlib.sha256(question).hexdigest()
        if known.exists():
            code = pickle.loads(known.read_bytes())
            assert isinstance(code, ObjectCode)
            return code
        start(self, vars(self)["headers"])
        code = ask(self, text, flags, function)
        with contextlib.suppress(OSError):  # of a command that is short of something
            written = known.with_suffix(f".{os.getpid()}")
            written.write_bytes(pickle.dumps(code))
            written.rename(known)
        return code

    def closed(self: Compiler) -> None:
        if "_child" in vars(self):
            end(self)

    for name, instead in (("__init__", started), ("compile", compiled), ("close", closed)):
        setattr(Compiler, name, instead)


def _fork(job: Job) -> tuple[int, str, str]:
    """Run one command; returns its exit code, and what it has written."""
    out, err = os.memfd_create("out"), os.memfd_create("err")
    child = os.fork()
    if not child:
        for fd, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
            os.dup2(fd, number)
        code = 1
        try:
            code = _command(job)
        except BaseException:  # noqa: BLE001 - as an interpreter does
            sys.excepthook(*sys.exc_info())
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, _text(out), _text(err)


def _text(fd: int) -> str:
    with os.fdopen(fd) as file:
        file.seek(0)
        return file.read()


def _serve() -> None:
    import concurrent.futures.thread  # noqa: F401, PLC0415

    from xdplb import cli  # noqa: F401, PLC0415
    from xdplb.kernel import compiler, links, machine, veth  # noqa: F401, PLC0415

    with tempfile.TemporaryDirectory() as directory:
        _remember(Path(directory))
        for line in sys.stdin:
            job = Job(**json.loads(line))
            sys.stdout.write(json.dumps([job.number, *_fork(job)]) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _serve()
