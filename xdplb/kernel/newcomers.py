"""Many new elements of a hash map, but none that would replace another one.

The kernel's batch has no such condition, and one call for each element takes four times as long.
So, where nobody else writes the map, most elements go into batches: those of which it is certain
that no other one has their key. A row of bytes remembers the hashes of all keys; where a hash has
been there, which for a few is chance, the kernel is asked.
"""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Final

from xdplb.kernel import libbpf

if TYPE_CHECKING:
    from collections.abc import Sequence

_BYTES_PER_KEY: Final = 16


class Newcomers:
    """Elements for one map."""

    def __init__(self, fd: int, count: int, *, is_shared: bool) -> None:
        """Write into the map ``fd``.

        Args:
            fd: The map. If it is not shared, it has none of the keys that are to come.
            count: How many are to come.
            is_shared: Somebody else writes it at the same time.
        """
        self._fd = fd
        self._met = None if is_shared else bytearray(1 << (_BYTES_PER_KEY * count).bit_length())

    def insert(self, keys: Sequence[bytes], values: Sequence[bytes]) -> dict[int, int]:
        """Write elements; returns the error numbers of those that are not written, by place."""
        if self._met is None:
            return libbpf.insert_each(self._fd, b"".join(keys), b"".join(values), len(keys))
        return self._insert_alone(keys, values, self._met)

    def _insert_alone(
        self, keys: Sequence[bytes], values: Sequence[bytes], met: bytearray
    ) -> dict[int, int]:
        mask = len(met) - 1
        is_new = bytearray(len(keys))
        for at, key in enumerate(keys):
            place = hash(key) & mask
            if not met[place]:
                met[place] = is_new[at] = 1
        new = sum(is_new)
        if new:
            some_keys, some_values = (b"".join(compress(items, is_new)) for items in (keys, values))
            libbpf.update_batch(self._fd, some_keys, some_values, new)
        asked = [at for at, is_one in enumerate(is_new) if not is_one]
        refused = libbpf.insert_each(
            self._fd,
            b"".join([keys[at] for at in asked]),
            b"".join([values[at] for at in asked]),
            len(asked),
        )
        return {asked[number]: code for number, code in refused.items()}
