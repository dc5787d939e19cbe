"""The whole terminal for a while: what is shown is replaced, keys are read, all is given back."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import ExitStack, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Final

from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_DUMB: Final = frozenset({"", "dumb", "unknown"})
_CAUGHT: Final = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    *(signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH),
)
_ROOM: Final = 1024

_ESCAPE: Final = "\x1b"
_KEYS: Final = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    " ": "space",
    "\x03": "q",
    "\x04": "q",
}
"""What a terminal sends (xterm, "Control Sequences"), and what a key is called here."""


def is_terminal() -> bool:
    """Whether what is printed is looked at, and can be replaced."""
    stream = sys.stdout  # None where there is none
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in _DUMB


def has_keys() -> bool:
    """Whether somebody can press keys."""
    return sys.stdin.isatty()


def console() -> Console:
    """What draws on the terminal; it finds out about colours, NO_COLOR and the like."""
    from rich.console import Console  # noqa: PLC0415 - only on a terminal

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a sign that the terminal does not have
    return Console(highlight=False, markup=False, emoji=False)


def keys_in(text: str) -> list[str]:
    """The keys in what a terminal has sent; a sequence that nobody knows is none."""
    keys = []
    while text:
        length = _sequence_length(text)
        sent, text = text[:length], text[length:]
        if sent in _KEYS:
            keys.append(_KEYS[sent])
        elif not sent.startswith(_ESCAPE) and sent.isprintable():
            keys.append(sent)
    return keys


def _sequence_length(text: str) -> int:
    """How many characters are one key: an escape sequence ends with a letter or a tilde."""
    if not text.startswith(("\x1b[", "\x1bO")):
        return 1
    for place, character in enumerate(text[2:], 3):
        if character.isalpha() or character == "~":
            return place
    return len(text)


def _typed(keyboard: int) -> str:
    """What was typed; where nobody is there any more, the key that ends."""
    try:
        return os.read(keyboard, _ROOM).decode(errors="replace") or "q"
    except OSError:
        return "q"


class Screen(Closing):
    """The terminal. Signals wait until they are asked for, so that nothing is left half done."""

    def __init__(self, console: Console) -> None:
        """Take the terminal over."""
        self._console = console
        self._left: ExitStack | None = None
        self._signals = ExitStack()
        self._pending: list[int] = []
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._signals.callback(os.close, self._read)
        self._signals.callback(os.close, self._write)
        for number in _CAUGHT:
            self._signals.callback(signal.signal, number, signal.signal(number, self._catch))
        try:
            self._enter()
        except BaseException:
            self._signals.close()
            raise

    def close(self) -> None:
        """Give the terminal back as it was."""
        self._leave()
        self._signals.close()

    def _catch(self, number: int, frame: object) -> None:
        del frame
        self._pending.append(number)
        self.wake()

    def wake(self) -> None:
        """Let ``wait`` return, also from another thread."""
        with suppress(BlockingIOError):  # it is about to wake up
            os.write(self._write, b".")

    def _enter(self) -> None:
        from rich.live import Live  # noqa: PLC0415 - only on a terminal

        with ExitStack() as entered:
            if has_keys():
                keyboard = sys.stdin.fileno()
                before = termios.tcgetattr(keyboard)
                entered.callback(termios.tcsetattr, keyboard, termios.TCSADRAIN, before)
                tty.setcbreak(keyboard, termios.TCSADRAIN)
            self._live = entered.enter_context(
                Live(
                    console=self._console,
                    screen=True,
                    auto_refresh=False,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
            )
            self._left = entered.pop_all()

    def _leave(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            with suppress(OSError):  # the terminal has gone
                left.close()

    @property
    def height(self) -> int:
        """Lines."""
        return self._console.size.height

    def show(self, what: RenderableType) -> None:
        """Show something in place of what is there."""
        self._live.update(what, refresh=True)

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys, a change of size, ``wake``, or so long.

        Returns:
            The keys; Ctrl-C is the one that ends.

        Raises:
            SystemExit: The process has been told to end.
        """
        keyboard = [sys.stdin.fileno()] if has_keys() else []
        ready, _, _ = select.select([self._read, *keyboard], [], [], max(seconds, 0))
        keys = []
        if self._read in ready:
            os.read(self._read, _ROOM)
            keys += self._signalled()
        if set(keyboard) & set(ready):
            keys += keys_in(_typed(keyboard[0]))
        return keys

    def _signalled(self) -> list[str]:
        keys = []
        while self._pending:
            number = self._pending.pop(0)
            if number == signal.SIGINT:
                keys.append("q")
            elif number == signal.SIGTSTP:
                self._leave()
                os.kill(os.getpid(), signal.SIGSTOP)
                self._enter()
            elif number in {signal.SIGTERM, signal.SIGHUP}:
                sys.exit(128 + number)
        return keys
