"""That only one process looks after an interface."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from xdplb.errors import NotReadyError

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
                new[name] = _claimed(name)
        except BaseException:
            for sock in new.values():
                sock.close()
            raise
        for name in self._held.keys() - wanted:
            self._held.pop(name).close()
        self._held |= new


def _claimed(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.bind(f"\0xdplb-run:{name}")
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise NotReadyError(
            f"another 'xdplb run' looks after {name}", "one is enough; end it first"
        ) from error
    return sock
