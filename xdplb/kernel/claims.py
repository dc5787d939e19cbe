"""That only one process looks after an interface."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from xdplb.errors import NotReadyError
from xdplb.kernel.netns import is_bound

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self


class Claims:
    """The interfaces that this process looks after.

    Each is the name of an abstract socket: each network namespace has its own, there is no file,
    and the kernel frees it however the process ends (unix(7)).
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._held: dict[str, socket.socket] = {}

    def __enter__(self) -> Self:
        """Return the claims themselves."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of all."""
        self.take(())

    def take(self, names: Iterable[str]) -> None:
        """Have these, and let go of others.

        Raises:
            NotReadyError: Another process has one. Nothing has changed then.
        """
        wanted = frozenset(names)
        new: dict[str, socket.socket] = {}
        try:
            for name in sorted(wanted - self._held.keys()):
                new[name] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                _claim(new[name], name)
        except BaseException:
            for sock in new.values():
                sock.close()
            raise
        for name in self._held.keys() - wanted:
            self._held.pop(name).close()
        self._held |= new


def is_claimed(name: str) -> bool:
    """Whether a process looks after an interface. It does not notice that it is asked for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(_place(name))
        except ConnectionRefusedError:
            return False
    return True


def _place(name: str) -> str:
    return f"\0xdplb-run:{name}"


def _claim(sock: socket.socket, name: str) -> None:
    if not is_bound(sock, _place(name)):
        raise NotReadyError(
            f"another 'xdplb run' looks after {name}", "one is enough; end it first"
        )
