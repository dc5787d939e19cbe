"""Live flows counted where they lie: a word or two of each record of ``reverse_lookup``."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import compress
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from xdplb import wire
from xdplb.kernel.memory import mapped
from xdplb.model import IPV4, IPV6, Clients, ClientStatus
from xdplb.wire import FlowCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from xdplb.facts import Running
    from xdplb.kernel.program import Maps

_CHUNK: Final = 1 << 16


class _Word(NamedTuple):
    """A word of every record: what ``struct`` calls it, its bytes, and where it lies."""

    code: Literal["I", "Q"]
    size: int
    at: int


_OWNER: Final = _Word("Q", 8, 0)
_CLIENT: Final = {IPV4: _Word("I", 4, 24), IPV6: _Word("Q", 8, 24)}
"""The client's address, by IP version; of IPv6 the first half."""

_NEVER: Final = {int(FlowCode.RESERVED): 1 << 32}
"""Ticks: a reservation does not time out."""

_OTHER_HALF: Final = {IPV4: b"", IPV6: bytes(8)}


def owners(maps: Maps, running: Running) -> Counter[int]:
    """How often each owner word occurs in ``reverse_lookup``; a million take 0.1 s.

    Args:
        maps: The balancer's, of one IP version.
        running: What it knows of itself.
    """
    words: Counter[int] = Counter()
    with _column(maps, running, _OWNER) as column:
        for part in _parts(column):
            words.update(part)
    return words


def records_in_use(words: Mapping[int, int]) -> int:
    """How many flows have a record, also those that have timed out; of what ``owners`` gives."""
    return sum(count for word, count in words.items() if word >> 48 & 0xFF != FlowCode.FREE)


def flows_by_backend(
    words: Mapping[int, int], version: int, running: Running, now: int
) -> Counter[int]:
    """Count the flows that have not timed out, by backend number.

    Args:
        words: What ``owners`` gives.
        version: The IP version.
        running: What the balancer knows of itself, for the timeouts.
        now: The time in ticks.
    """
    backend_of = _backend_of(version, running, now)
    live: Counter[int] = Counter()
    for word, count in words.items():
        backend = backend_of(word)
        if backend is not None:
            live[backend] += count
    return live


def flows_by_client(maps: Maps, running: Running, now: int, limit: int) -> Clients:
    """Count the flows that have not timed out, by client; a million take 0.4 s.

    Args:
        maps: The balancer's, of one IP version.
        running: What it knows of itself, for the timeouts.
        now: The time in ticks.
        limit: How many clients to name.
    """
    backend_of = _backend_of(maps.version, running, now)
    is_live: dict[int, bool] = {}
    live: Counter[int] = Counter()
    word = _CLIENT[maps.version]
    with _column(maps, running, _OWNER) as owned, _column(maps, running, word) as clients:
        for owner, found in zip(_parts(owned), _parts(clients), strict=True):
            is_live.update(
                (item, backend_of(item) is not None) for item in set(owner) - is_live.keys()
            )
            live.update(compress(found, map(is_live.__getitem__, owner)))
    rest = _OTHER_HALF[maps.version]
    return Clients(
        total=len(live),
        first=tuple(
            ClientStatus(ip_address(client.to_bytes(word.size, sys.byteorder) + rest), count)
            for client, count in live.most_common(limit)
        ),
    )


def _backend_of(version: int, running: Running, now: int) -> Callable[[int], int | None]:
    """What tells the backend's number from an owner word; None for a flow that has timed out."""
    side = running.state.side(version)
    by_service = {
        item.number: wire.idle_ticks(item.service.timeouts) | _NEVER
        for item in (side.services if side else ())
    }
    limits = [by_service.get(item.service, {}) for item in running.records[version]]
    newest = now + wire.AHEAD_TICKS

    def backend_of(word: int) -> int | None:
        number = word >> 32 & 0xFFFF
        limit = limits[number].get(word >> 48 & 0xFF) if number < len(limits) else None
        is_live = limit is not None and newest - word & 0xFFFFFFFF <= limit + wire.AHEAD_TICKS
        return number if is_live else None

    return backend_of


@contextmanager
def _column(maps: Maps, running: Running, word: _Word) -> Iterator[memoryview]:
    """A word of every record, where it lies."""
    record = wire.SIZES[maps.version]["flow"]
    with (
        mapped(maps["reverse_lookup"], running.state.capacity * record) as records,
        records.cast(word.code) as words,
        words[word.at // word.size :: record // word.size] as column,
    ):
        yield column


def _parts(column: memoryview) -> Iterator[list[int]]:
    for first in range(0, len(column), _CHUNK):
        with column[first : first + _CHUNK] as part:
            yield part.tolist()
