"""The flows of a balancer as they change, for another one that stands by."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from xdplb import wire
from xdplb.kernel import clock
from xdplb.kernel.closing import Closing
from xdplb.kernel.memory import mapped
from xdplb.mirroring import NAMES, Look, Mirror
from xdplb.saved import FLOW, Part, Saved
from xdplb.saving import origin, side_of
from xdplb.stream import SET_FLOWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xdplb.facts import Running
    from xdplb.kernel.program import Descriptors
    from xdplb.saving import Origin

_CHUNK: Final = 1 << 13
_DUE_S: Final = 4.0
"""Within this time each flow is looked at once for whether it has to be told again."""


class Follower(Closing):
    """``reverse_lookup`` where it lies, and what has been told of it.

    Nothing is taken from anybody: records are copied, and no program waits.
    """

    def __init__(self, every: Descriptors, running: Running) -> None:
        """Hold the maps of a balancer; they stay where the program is exchanged."""
        self._held = ExitStack()
        self._turn = 0
        self._tables: dict[int, tuple[memoryview, Mirror]] = {}
        capacity = running.state.capacity
        try:
            for version in running.state.versions:
                size = capacity * wire.SIZES[version]["flow"]
                records = mapped(every.of(version)["reverse_lookup"], size)
                self._tables[version] = self._held.enter_context(records), Mirror(version)
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        """Let go of the maps."""
        self._tables.clear()
        self._held.close()

    def changes(
        self, running: Running, interfaces: Sequence[str], interval: float
    ) -> Iterator[Saved]:
        """All that is new since it was asked last, in sets.

        Args:
            running: The balancer as it is now.
            interfaces: What its interfaces are called.
            interval: Seconds from one time to the next.
        """
        for version in self._tables:
            side = side_of(running.state, version)
            meaning = origin(running.state, side, running.records[version])
            flows = bytearray()
            for more in self._looked(version, meaning, interval):
                flows += more
                if len(flows) >= SET_FLOWS * FLOW[version].size:
                    yield _set(interfaces, meaning, flows)
                    flows = bytearray()
            if flows:
                yield _set(interfaces, meaning, flows)
        self._turn += 1

    def _looked(self, version: int, meaning: Origin, interval: float) -> Iterator[bytes]:
        """What is new, some records at a time."""
        records, mirror = self._tables[version]
        size = wire.SIZES[version]["flow"]
        turns = _turns(meaning, interval)
        now = clock.ticks()
        for number, start in enumerate(range(0, len(records), _CHUNK * size)):
            data = records[start : start + _CHUNK * size].tobytes()
            is_due = (number + self._turn) % turns == 0
            more = mirror.changes(Look(number * _CHUNK, data, now, is_due), meaning)
            if more:
                yield more


def _turns(meaning: Origin, interval: float) -> int:
    """In how many turns each flow is looked at for whether it has to be told again."""
    shortest_s = min(meaning.limits.values(), default=0) / wire.TICKS_PER_S
    return max(int(min(_DUE_S, shortest_s / 8) / interval), 1)


def _set(interfaces: Sequence[str], meaning: Origin, flows: bytearray) -> Saved:
    part = Part(meaning.version, meaning.lanes, memoryview(flows))
    return Saved(time.time(), (*interfaces, ""), NAMES, (part,))
