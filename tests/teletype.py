"""A terminal with nobody at it: what a command shows there, and keys that are pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

import pyte

from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_WITHIN_S = 20.0
_POLL_S = 0.05


def _surroundings() -> dict[str, str]:
    """The environment, without the size of the terminal that the tests run on."""
    return {name: value for name, value in os.environ.items() if name not in {"LINES", "COLUMNS"}}


class Teletype(Closing):
    """A command on a terminal of its own; ``pyte`` plays the terminal."""

    def __init__(
        self, command: Sequence[str], columns: int = 80, lines: int = 24, **environment: str
    ) -> None:
        """Start it."""
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.sent = b""
        """Everything that the command has written."""
        self._master, self._slave = pty.openpty()
        self.resize(columns, lines)
        self.modes = termios.tcgetattr(self._slave)
        """How the terminal was before the command."""
        self.child = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            env={**_surroundings(), "TERM": "xterm-256color", "LANG": "C.UTF-8", **environment},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no thread yet
        )

    def close(self) -> None:
        """End the command, if it has not ended."""
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
        for fd in (self._master, self._slave):
            os.close(fd)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size; the kernel tells the command."""
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)
        self._screen.resize(lines, columns)

    def press(self, keys: str) -> None:
        """Send keys."""
        os.write(self._master, keys.encode())

    def _read(self, seconds: float) -> bool:
        """Take in what comes within some time; whether anything did."""
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return False
        data = os.read(self._master, 1 << 16)
        self.sent += data
        self._stream.feed(data)
        return True

    @property
    def display(self) -> str:
        """What stands on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def until(self, holds: Callable[[str], object], what: str = "") -> str:
        """Wait for something on the screen; returns all that stands there."""
        deadline = time.monotonic() + _WITHIN_S
        while not holds(self.display):
            assert time.monotonic() < deadline, f"{what or 'it'} did not come:\n{self.display}"
            self._read(_POLL_S)
        return self.display

    def shows(self, text: str) -> str:
        """Wait for a text."""
        return self.until(lambda display: text in display, repr(text))

    def ended(self) -> int:
        """Wait for the command to end; returns its exit code."""
        deadline = time.monotonic() + _WITHIN_S
        while self.child.poll() is None:
            assert time.monotonic() < deadline, f"it goes on:\n{self.display}"
            self._read(_POLL_S)
        while self._read(0):
            pass
        return self.child.returncode

    def is_as_before(self) -> bool:
        """Whether the terminal's modes are what they were, the cursor and the usual screen too."""
        hidden, shown = (self.sent.rfind(code) for code in (b"\x1b[?25l", b"\x1b[?25h"))
        entered, left = (self.sent.rfind(code) for code in (b"\x1b[?1049h", b"\x1b[?1049l"))
        return termios.tcgetattr(self._slave) == self.modes and hidden <= shown and entered <= left

    def left_behind(self) -> str:
        """What was written after the usual screen was back."""
        return self.sent.rpartition(b"\x1b[?1049l")[2].decode()
