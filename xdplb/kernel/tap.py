"""The program that tells what it does, and the ring buffer that it tells it in."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from xdplb import wire
from xdplb.errors import LoadError, surroundings
from xdplb.kernel import clock, libbpf, program, tables, twin
from xdplb.kernel.closing import Closing
from xdplb.kernel.program import META, OF_A_TRACE
from xdplb.kernel.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdplb.kernel.compiler import MapType, ObjectCode
    from xdplb.kernel.program import Descriptors

_EVENTS: Final = "trace_events"
_UNTIL: Final = "trace_until"
_PER_CPU: Final = "traces"
_RING_BYTES: Final = 1 << 22
_NS: Final = 10**9
_FIRST: Final = wire.U32.pack(0)


class Tap(Closing):
    """A loaded program that tells what it does.

    Attributes:
        program_fd: Its descriptor.
        program_id: The kernel's number for it.
        at_zero_ns: When its clock was zero, in nanoseconds since 1970.
    """

    def __init__(self, every: Descriptors, code: Mapping[int, ObjectCode]) -> None:
        """Load it, with the maps of a balancer.

        Args:
            every: The balancer's maps.
            code: Its program, compiled to tell.

        Raises:
            LoadError: The kernel does not take it.
        """
        self._maps = twin.shared(every)
        self._ring: Ring | None = None
        self.program_fd = -1
        try:
            kinds = next(iter(code.values())).maps
            for name in OF_A_TRACE:
                self._maps.add(name, _create(name, kinds[name]))
            self.program_fd = program.load(code, self._maps)
            libbpf.bind_map(self.program_fd, self._maps[META])
            self._ring = Ring(self._maps[_EVENTS])
        except BaseException:
            self.close()
            raise
        self.program_id = int(libbpf.program_info(self.program_fd)[0].id)
        self.at_zero_ns = time.time_ns() - clock.monotonic_ns()

    def close(self) -> None:
        """Let go of all; where the program is attached, it lives on."""
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        if self.program_fd >= 0:
            os.close(self.program_fd)
            self.program_fd = -1
        self._maps.close()

    def ask_for(self, seconds: float) -> None:
        """Let the program tell for so many seconds from now on."""
        until = clock.monotonic_ns() + round(seconds * _NS)
        libbpf.update(self._maps[_UNTIL], _FIRST, wire.U64.pack(until))

    def wait(self, seconds: float) -> list[bytes]:
        """What it has told, after at most so many seconds; more of it may be left."""
        return self._ring.wait(seconds) if self._ring is not None else []

    def lost(self) -> int:
        """How many packets there was no room for."""
        fd = self._maps[_PER_CPU]
        size = libbpf.map_info(fd).value_size + 7 & ~7
        data = libbpf.lookup(fd, _FIRST, size * tables.possible_cpus()) or b""
        return sum(wire.U64.unpack_from(data, at)[0] for at in range(0, len(data), size))


def left(every: Descriptors) -> float | None:
    """For how many seconds a balancer still tells; below 0 for one that does no more.

    Returns:
        None for one that tells nothing at all.
    """
    if _UNTIL not in every:
        return None
    data = libbpf.lookup(every[_UNTIL], _FIRST, wire.U64.size) or bytes(wire.U64.size)
    return float(wire.U64.unpack(data)[0] - clock.monotonic_ns()) / _NS


def _create(name: str, kind: MapType) -> int:
    number, sizes = libbpf.MAP_TYPE_ARRAY, (kind.key_size, kind.value_size, 1)
    if name == _EVENTS:
        number, sizes = libbpf.MAP_TYPE_RINGBUF, (0, 0, _RING_BYTES)
    elif name == _PER_CPU:
        number = libbpf.MAP_TYPE_PERCPU_ARRAY
    try:
        return libbpf.create_map(number, name, *sizes)
    except OSError as error:
        if surroundings(error):
            raise
        raise LoadError(
            f"the kernel does not create the map {name}: {error.strerror}",
            "a trace needs Linux 5.18 or later",
        ) from error
