"""Flows on their way to another balancer, as they change: what ``save --follow`` writes.

A stream begins with 16 bytes, and has sets of flows until it ends. Numbers are in little-endian
order::

    8 bytes    "xdplbstr"
    u16        the format, FORMAT
    6 bytes    0

    u32        bytes of the set
    u32        1 where more of what there was at the beginning follows, else 0
    ...        the set, laid out like a file of saved flows

The first sets have all flows; those that follow, what is new or changed since, in this order: what
has ended, in the state ``ended``, and what there is. A set without flows says no more than that
the other end is still there. Each set has a checksum, and is taken as a whole or not at all.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from xdplb import saved
from xdplb.errors import InvalidValueError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from xdplb.saved import Saved

FORMAT: Final = 1
ENDED: Final = "ended"
"""The state of flows that are no more."""

SET_FLOWS: Final = 1 << 16
"""About so many are the most that one set has."""

_HEAD: Final = struct.Struct("<8sH6x")
_MAGIC: Final = b"xdplbstr"
_LENGTH: Final = struct.Struct("<II")
_LONGEST: Final = 1 << 27
_HINT: Final = "it is what 'xdplb save --follow -' writes; all sets before were taken"


def head() -> bytes:
    """What a stream begins with."""
    return _HEAD.pack(_MAGIC, FORMAT)


def to_bytes(found: Saved, *, has_more: bool) -> bytes:
    """One set.

    Args:
        found: Its flows.
        has_more: More of what there was at the beginning follows.
    """
    data = b"".join(found.pieces())
    return _LENGTH.pack(len(data), has_more) + data


def sets(file: BinaryIO, name: str) -> Iterator[tuple[Saved, bool]]:
    """The sets of a stream as they come, each with whether more of the beginning follows.

    Args:
        file: Where they come from; ``read`` waits for all that it is asked for.
        name: What a person calls it.

    Raises:
        InvalidValueError: It is no stream, or damaged.
        NotReadyError: It ends within a set.
    """
    start = file.read(_HEAD.size)
    if len(start) < _HEAD.size or not start.startswith(_MAGIC):
        raise InvalidValueError(f"{name} is no stream of flows", _HINT)
    _, kind = _HEAD.unpack(start)
    if kind != FORMAT:
        raise InvalidValueError(
            f"{name} has format {kind}, and this xdplb reads {FORMAT}", "use one xdplb on both ends"
        )
    while length := file.read(_LENGTH.size):
        size, has_more = _LENGTH.unpack(length) if len(length) == _LENGTH.size else (1, 0)
        if size > _LONGEST:
            raise InvalidValueError(f"{name} is damaged: a set of {size:,} bytes", _HINT)
        data = file.read(size)
        if len(data) < size:
            raise NotReadyError(
                f"{name} broke off within a set of flows, which was not taken",
                "start both ends again: a stream begins with all flows",
            )
        yield saved.read(data, name), bool(has_more)
