"""The time as programs see it.

A process in a time namespace reads another clock than the kernel's programs do, and would
take every flow for expired. So the kernel is asked by a program, of four instructions.

Programs make their ticks of jiffies, because those are read without a call. How long a
jiffy is, is what the kernel says of its coarse clock (clock_getres(2)).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from xdplb.kernel import libbpf
from xdplb.kernel.instructions import instruction
from xdplb.wire import TICK_NS

_CALL: Final = 0x85
_MULTIPLY: Final = 0x27
_SHIFT_RIGHT: Final = 0x77
_EXIT: Final = 0x95
_JIFFIES64: Final = 118
_JIFFY_SHIFT: Final = 20
_CLOCK_MONOTONIC_COARSE: Final = 6
_OFFSETS: Final = Path("/proc/self/timens_offsets")
_FRAME: Final = bytes(64)


@cache
def _jiffy_scale() -> int:
    """How many ticks a jiffy is, times 2^20."""
    jiffy_ns = time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9
    return round(jiffy_ns * (1 << _JIFFY_SHIFT) / TICK_NS)


def flag() -> str:
    """The compiler's ``-D`` flag that tells the program how long a jiffy is."""
    return f"-DJIFFY_SCALE={_jiffy_scale()}"


def monotonic_ns() -> int:
    """Now, in nanoseconds of the monotonic clock, as programs read it.

    A process in a time namespace reads it with an offset (time_namespaces(7)).
    """
    offset = 0
    with suppress(OSError):
        for line in _OFFSETS.read_text().splitlines():
            name, seconds, nanoseconds = line.split()
            if name == "monotonic":
                offset = int(seconds) * 10**9 + int(nanoseconds)
    return time.monotonic_ns() - offset


def ticks() -> int:
    """Now, in ticks, as the programs count it (32 bits)."""
    code = b"".join(
        instruction(opcode, immediate=immediate)
        for opcode, immediate in (
            (_CALL, _JIFFIES64),
            (_MULTIPLY, _jiffy_scale()),
            (_SHIFT_RIGHT, _JIFFY_SHIFT),
            (_EXIT, 0),
        )
    )
    fd, log = libbpf.load_program("xdplb_clock", code)
    if fd < 0:
        raise OSError(-fd, log or os.strerror(-fd))
    try:
        return libbpf.run_program(fd, _FRAME).returned
    finally:
        os.close(fd)
