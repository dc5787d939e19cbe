"""The benchmark's own programs in the kernel: loaded as xdplb loads its own."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.frames import Item, Template

from xdplb import source, wire
from xdplb.kernel import libbpf, program, tables
from xdplb.kernel.closing import Closing
from xdplb.kernel.compiler import Compiler, ObjectCode
from xdplb.model import IPV4

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TEXT: Final = Path(__file__).with_name("programs.c")
MAP_TYPE_PROG_ARRAY: Final = 3
BATCH: Final = 64
_ROOM: Final = 1 << 20
_KEY: Final = wire.U32.pack(0)


@contextmanager
def one_processor() -> Iterator[None]:
    """Stay on one processor for a while, and leave the others to everybody else."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@cache
def _compiled(function: str, ifindex: int) -> ObjectCode:
    with Compiler(source.headers()) as compiler:
        return compiler.compile(TEXT.read_text(), [f"-DIFINDEX={ifindex}"], function)


class Own(Closing):
    """One of the programs in ``programs.c``, with the maps that it uses."""

    def __init__(self, function: str, ifindex: int = 0, **shared: int) -> None:
        """Compile (once for each interface) and load ``function``.

        Args:
            function: Its name in the C text.
            ifindex: The interface that it sends by; 0 for none.
            shared: Descriptors of maps that it uses instead of its own, by name.
        """
        code = _compiled(function, ifindex)
        self.maps = program.Descriptors()
        entries = {"items": _ROOM}
        kinds = {"arrived": libbpf.MAP_TYPE_PERCPU_ARRAY, "subject": MAP_TYPE_PROG_ARRAY}
        for name in dict.fromkeys(code.relocations.values()):
            if name in shared:
                self.maps.add(name, os.dup(shared[name]))
                continue
            kind = code.maps[name]
            fd = libbpf.create_map(
                kinds.get(name, libbpf.MAP_TYPE_ARRAY),
                name,
                kind.key_size,
                kind.value_size,
                entries.get(name, kind.entries),
            )
            self.maps.add(name, fd)
        self.fd = program.load({IPV4: code}, self.maps)

    def close(self) -> None:
        """Free program and maps."""
        os.close(self.fd)
        self.maps.close()


class Source(Own):
    """A program that makes packets: ``drive`` or ``generate``."""

    def give(self, template: Template, items: Sequence[Item] | bytes) -> None:
        """The packets to make, in this order and from the first again."""
        data = items if isinstance(items, bytes) else b"".join(item.pack() for item in items)
        count = len(data) // Item.SIZE
        libbpf.update(self.maps["heads"], _KEY, template.head())
        step = 1 << 16
        for first in range(0, count, step):
            last = min(first + step, count)
            keys = b"".join(wire.U32.pack(index) for index in range(first, last))
            chunk = data[first * Item.SIZE : last * Item.SIZE]
            libbpf.update_batch(self.maps["items"], keys, chunk, last - first)
        libbpf.update(self.maps["walks"], _KEY, wire.U32.pack(0) + wire.U32.pack(count))
        self.frame = template.frame()

    def aim(self, subject_fd: int) -> None:
        """Choose the program that ``drive`` hands its packets to."""
        libbpf.update(self.maps["subject"], _KEY, wire.U32.pack(subject_fd))

    def drive(self, runs: int) -> int:
        """Hand over ``runs`` packets; returns nanoseconds a packet, as the kernel timed them."""
        return libbpf.run_program(self.fd, self.frame, repeat=runs).duration_ns

    def send(self, packets: int) -> int:
        """Send so many packets, from the current network namespace; returns as ``drive`` does."""
        done = libbpf.run_program(self.fd, self.frame, repeat=packets, live_batch=BATCH)
        return done.duration_ns


class Sink(Own):
    """A program that counts and drops."""

    def __init__(self) -> None:
        """Compile and load it."""
        super().__init__("sink")

    def count(self) -> int:
        """Packets that have arrived."""
        size = wire.U64.size * tables.possible_cpus()
        data = libbpf.lookup(self.maps["arrived"], _KEY, size) or b""
        return sum(value for (value,) in wire.U64.iter_unpack(data))
