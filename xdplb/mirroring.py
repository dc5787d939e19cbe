"""What another balancer has been told of the flows of this one, and what it has to be told next.

Pure: nothing here talks to the kernel. Records are compared as they lie there, many at once, since
nearly all of them are as they were.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final

from xdplb import wire
from xdplb.model import IPV4, IPV6
from xdplb.saving import STATE_NAMES, STATES, pick
from xdplb.stream import ENDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xdplb.saving import Origin

NAMES: Final = (*STATE_NAMES, ENDED)
"""Of the states that are told."""

_WORD: Final = wire.U32.size
_SEEN, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)
_IDENTITY: Final = {IPV4: (_HIGH, 6, 7), IPV6: (_HIGH, 6, 7, 8, 9, 10)}
"""The words of a record that say whose it is, and in which state: what is told at once."""

_BLOCK: Final = 64 * _WORD
_AT_SERVICE: Final = 15
_AT_CLIENT: Final = 24
_MASK: Final = (1 << 32) - 1
_STATE: Final = 0xFF << 48
_AHEAD_PART: Final = 4
_QUIET_PART: Final = 8
_STATE_PLACES: Final = {int(code): place for place, code in enumerate(STATES)}
_ENDED_PLACES: Final = dict.fromkeys(_STATE_PLACES, len(STATES))


@dataclass(frozen=True, slots=True)
class Look:
    """Some records, as they are now.

    Attributes:
        first: The index of the first one.
        data: All of them, whole.
        now: The time in ticks.
        is_due: Those that were only seen again since are looked at, too.
    """

    first: int
    data: bytes
    now: int
    is_due: bool


class Mirror:
    """What the other one knows of ``reverse_lookup``, of one IP version."""

    def __init__(self, version: int) -> None:
        """Begin with nothing."""
        self._size = wire.SIZES[version]["flow"]
        self._identity = _IDENTITY[version]
        self._told: dict[int, bytes] = {}

    def changes(self, look: Look, meaning: Origin) -> bytes:
        """What has to be told of some records, packed as in a file; it counts as told.

        A flow that only goes on is told again when a quarter of its timeout has gone by, so that it
        does not look idle there; and once more when it has been silent for an eighth of it.

        Args:
            look: Always the same records for one ``first``.
            meaning: What they mean.
        """
        told = self._told.get(look.first)
        if told is None:
            self._told[look.first] = look.data
            return pick(look.data, count(look.first), meaning, look.now, _STATE_PLACES)
        if told == look.data:
            return b""
        changed = self._changed(told, look.data)
        due = set(self._due(told, look, meaning)) if look.is_due else set()
        ended = sorted(at for at in changed if self._has_ended(told, look.data, at))
        there = sorted(changed | due)
        self._tell(told, look, there)
        return self._pack(told, ended, look, meaning, _ENDED_PLACES) + self._pack(
            look.data, there, look, meaning, _STATE_PLACES
        )

    def _pack(
        self, data: bytes, places: list[int], look: Look, meaning: Origin, states: Mapping[int, int]
    ) -> bytes:
        size = self._size
        some = b"".join([data[at * size : (at + 1) * size] for at in places])
        return pick(some, [look.first + at for at in places], meaning, look.now, states)

    def _tell(self, told: bytes, look: Look, places: list[int]) -> None:
        if not places:
            return
        size = self._size
        known = bytearray(told)
        for at in places:
            known[at * size : (at + 1) * size] = look.data[at * size : (at + 1) * size]
        self._told[look.first] = bytes(known)

    def _changed(self, told: bytes, data: bytes) -> set[int]:
        """The records that are of another flow, or of one in another state."""
        return {
            at
            for word in self._identity
            for at in _differing(self._column(told, word), self._column(data, word))
        }

    def _due(self, told: bytes, look: Look, meaning: Origin) -> Iterator[int]:
        """The records that were seen again since, by so much that it has to be told."""
        newest = look.now + wire.AHEAD_TICKS
        columns = (self._column(data, _SEEN) for data in (told, look.data))
        for at in _differing(*columns):
            (before,) = wire.U64.unpack_from(told, at * self._size)
            (owner,) = wire.U64.unpack_from(look.data, at * self._size)
            service = look.data[at * self._size + _AT_SERVICE]
            limit = meaning.limits.get(service << 8 | owner >> 48 & 0xFF)
            if limit is not None and (
                (owner - before & _MASK) * _AHEAD_PART > limit
                or (newest - owner & _MASK) * _QUIET_PART > limit
            ):
                yield at

    def _has_ended(self, told: bytes, data: bytes, at: int) -> bool:
        """Whether there was a flow that is not there any more, in whatever state."""
        start, end = at * self._size, (at + 1) * self._size
        (before,) = wire.U64.unpack_from(told, start)
        (owner,) = wire.U64.unpack_from(data, start)
        if before >> 48 & 0xFF not in _STATE_PLACES:
            return False
        is_same = (
            (before ^ owner) & ~(_STATE | _MASK) == 0
            and owner >> 48 & 0xFF in _STATE_PLACES
            and told[start + _AT_SERVICE] == data[start + _AT_SERVICE]
            and told[start + _AT_CLIENT : end] == data[start + _AT_CLIENT : end]
        )
        return not is_same

    def _column(self, data: bytes, word: int) -> bytes:
        """One word of each record."""
        with memoryview(data) as view, view.cast("I") as words:
            return words[word :: self._size // _WORD].tobytes()


def _differing(one: bytes, other: bytes) -> Iterator[int]:
    """The places of the words that differ."""
    if one == other:
        return
    for start in range(0, len(one), _BLOCK):
        here, there = one[start : start + _BLOCK], other[start : start + _BLOCK]
        if here != there:
            pairs = zip(memoryview(here).cast("I"), memoryview(there).cast("I"), strict=True)
            yield from (at for at, (a, b) in enumerate(pairs, start // _WORD) if a != b)
