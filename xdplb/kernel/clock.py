"""The time as programs see it.

A process in a time namespace reads another clock than the kernel's programs do, and would
take every flow for expired. So the kernel is asked by a program, of three instructions.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from xdplb.kernel import libbpf
from xdplb.wire import TICK_SHIFT

_CALL: Final = 0x85
_SHIFT_RIGHT: Final = 0x77
_EXIT: Final = 0x95
_KTIME_GET_COARSE_NS: Final = 160
_CODE: Final = b"".join(
    struct.pack("=BBhi", opcode, 0, 0, immediate)
    for opcode, immediate in (
        (_CALL, _KTIME_GET_COARSE_NS),
        (_SHIFT_RIGHT, TICK_SHIFT),
        (_EXIT, 0),
    )
)
_FRAME: Final = bytes(64)


def ticks() -> int:
    """Now, in ticks, as the programs count it (32 bits)."""
    fd, log = libbpf.load_program("xdplb_clock", _CODE)
    if fd < 0:
        raise OSError(-fd, log or os.strerror(-fd))
    try:
        return libbpf.run_once(fd, _FRAME)[0]
    finally:
        os.close(fd)
