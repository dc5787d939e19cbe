"""Locks between processes, on files and directories that are there anyway."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOM: Final = Path(__file__)
_DOOR: Final = _ROOM.parent


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait until nobody else has a lock on ``path``, or only shared ones; and have one."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Be one of several that run tests of this checkout, or the only one.

    Who waits to be alone stands in the door, so that the others can leave and nobody enters.
    """
    with ExitStack() as room:
        with locked(_DOOR):
            room.enter_context(locked(_ROOM, shared=not alone))
        yield
