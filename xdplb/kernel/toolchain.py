"""What differs between versions of BCC, LLVM and libbpf, all in one place."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

LIBRARIES: Final = ("libbpf.so.1", "libbcc.so.0")
"""Where libbpf's functions are: in a library of its own, or in BCC's, which may bring its own."""

_FIRST_PASS_BUILDER: Final = 15
_FIRST_THOROUGH: Final = 20
_LLVM: Final = re.compile(r"/libLLVM(?:-|\.so\.)(\d+)")


def version(bcc: Any) -> str:  # noqa: ANN401 - bcc has no types
    """What BCC says its version is; empty if it does not."""
    return f"{getattr(bcc, '__version__', '')}"


def llvm(mappings: str | None = None) -> int | None:
    """The major version of the LLVM that this process has loaded; None if it cannot be seen.

    Args:
        mappings: What /proc/PID/maps says, if it is not to be read.
    """
    text = Path("/proc/self/maps").read_text() if mappings is None else mappings
    found = _LLVM.search(text)
    return int(found[1]) if found else None


def flags(loaded: int | None) -> tuple[str, ...]:
    """What clang is told beside what the program asks for.

    BCC optimises what clang hands over. Up to LLVM 14 that is enough, and clang need not do so,
    too, for 0.17 s of 0.49. From 15 on BCC's passes do not know that it is for BPF, while clang's
    do: without clang's, the verifier has half as much again to follow. Of LLVM 21, it has least to
    follow with ``-O1``: 0.63 million instructions of the largest program, with ``-O2`` 0.80.

    Args:
        loaded: The major version of LLVM; None if it is not known.
    """
    if loaded is not None and loaded < _FIRST_PASS_BUILDER:
        return ("-Xclang", "-disable-llvm-passes")
    return ("-O1",) if loaded is not None and loaded >= _FIRST_THOROUGH else ()
