"""What of BPF the program cannot do without, asked of the kernel by a program that uses it.

Distributions carry features back to older kernels, so a kernel's version says little. Everything
else that xdplb uses is older than the one asked for here (batches of elements, 5.6; a ring buffer,
5.8; a map bound to a program, 5.10), or has a substitute (managed neighbours, 5.16).
"""

from __future__ import annotations

import errno
import os
from typing import Final

from xdplb.errors import NotReadyError
from xdplb.kernel import libbpf
from xdplb.kernel.instructions import instruction

_STORE: Final = 0x7A
_MOVE: Final = 0xB7
_ATOMIC: Final = 0xDB
_EXIT: Final = 0x95
_COMPARE_AND_SWAP: Final = 0xF1
_FRAME: Final = 10
_WORD: Final = -8


def lacking() -> str:
    """What the kernel's BPF lacks, in words; empty where it lacks nothing, or may not be asked.

    A record of the flow table is claimed by an atomic compare-and-swap (RFC 9669, section 5.3).
    """
    code = b"".join(
        (
            instruction(_STORE, _FRAME, offset=_WORD),
            instruction(_MOVE, 0),
            instruction(_MOVE, 1, immediate=1),
            instruction(_ATOMIC, _FRAME, 1, _WORD, _COMPARE_AND_SWAP),
            instruction(_MOVE, 0, immediate=1),
            instruction(_EXIT),
        )
    )
    fd, _ = libbpf.load_program("xdplb_feature", code)
    if fd >= 0:
        os.close(fd)
    return "atomic compare-and-swap in BPF (Linux 5.12)" if fd == -errno.EINVAL else ""


def require() -> None:
    """Refuse a kernel that cannot run the program.

    Raises:
        NotReadyError: It lacks something; says what.
    """
    if missing := lacking():
        raise NotReadyError(
            f"Linux {os.uname().release} is too old: it has no {missing}",
            "run a newer kernel; that of Debian 12, 6.1, will do",
        )
