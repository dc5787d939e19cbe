"""BPF instructions, for the few programs that are written without a compiler."""

from __future__ import annotations

import struct


def instruction(
    opcode: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0
) -> bytes:
    """One instruction (RFC 9669, section 3).

    Args:
        opcode: What to do.
        target: The register that is changed, or compared.
        source: The other register.
        offset: Bytes from a base register, or instructions to jump over.
        immediate: A number.
    """
    return struct.pack("=BBhi", opcode, target | source << 4, offset, immediate)
