"""Maps that a process reads and writes where they lie, as arrays of bytes."""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

READ = mmap.PROT_READ
WRITE = mmap.PROT_READ | mmap.PROT_WRITE


@contextmanager
def mapped(fd: int, size: int, access: int = READ) -> Iterator[memoryview]:
    """The memory of a map, of ``size`` bytes."""
    whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    with (
        mmap.mmap(fd, whole, prot=access) as memory,
        memoryview(memory) as everything,
        everything[:size] as found,
    ):
        yield found
