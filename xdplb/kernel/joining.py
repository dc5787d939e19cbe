"""Two programs made one: that of IPv4 and that of IPv6, and a look at the packet before both.

Each is compiled by itself, with its own constants and maps. They share nothing but the
packet, and both begin with the context in register 1 and end by exiting; so they lie one
behind the other, and what stands in front jumps to the one whose packet it is.
"""

from __future__ import annotations

import struct
from typing import Final

_LOAD_32: Final = 0x61
_LOAD_16: Final = 0x69
_MOVE: Final = 0xBF
_ADD: Final = 0x07
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER: Final = 0x2D
_MOST_AHEAD: Final = (1 << 15) - 1

_DATA, _END, _BEYOND, _TYPE, _CONTEXT = 2, 3, 4, 5, 1
_TYPE_AT: Final = 12
_IPV6: Final = 0xDD86
"""The Ethernet type of IPv6 as a little-endian machine loads it."""


def _instruction(opcode: int, target: int, source: int, offset: int, immediate: int) -> bytes:
    return struct.pack("=BBhi", opcode, target | source << 4, offset, immediate)


def join(ipv4: bytes, ipv6: bytes) -> bytes:
    """One program of two; what is neither IPv4 nor IPv6 goes to the first.

    Raises:
        ValueError: The first is too long to be jumped over.
    """
    length = len(ipv4) // 8
    if length >= _MOST_AHEAD:
        raise ValueError(length)
    front = [
        _instruction(_LOAD_32, _DATA, _CONTEXT, 0, 0),
        _instruction(_LOAD_32, _END, _CONTEXT, 4, 0),
        _instruction(_MOVE, _BEYOND, _DATA, 0, 0),
        _instruction(_ADD, _BEYOND, 0, 0, _TYPE_AT + 2),
        _instruction(_JUMP_GREATER, _BEYOND, _END, 2, 0),
        _instruction(_LOAD_16, _TYPE, _DATA, _TYPE_AT, 0),
        _instruction(_JUMP_EQUAL, _TYPE, 0, length, _IPV6),
    ]
    return b"".join(front) + ipv4 + ipv6
