"""Two programs made one: that of IPv4 and that of IPv6, and a look at the packet before both.

Each is compiled by itself, with its own constants and maps. They share nothing but the
packet, and both begin with the context in register 1 and end by exiting; so they lie one
behind the other, and what stands in front jumps to the one whose packet it is.
"""

from __future__ import annotations

from typing import Final

from xdplb.kernel.instructions import instruction

_LOAD_32: Final = 0x61
_LOAD_16: Final = 0x69
_MOVE: Final = 0xBF
_ADD: Final = 0x07
_JUMP: Final = 0x05
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER: Final = 0x2D
_MOST_AHEAD: Final = (1 << 15) - 1

_DATA, _END, _BEYOND, _TYPE, _CONTEXT = 2, 3, 4, 5, 1
_TYPE_AT: Final = 12
_TAG_LENGTH: Final = 4
_TAGS: Final = (0x0081, 0xA888)
"""The Ethernet types of VLAN tags (IEEE 802.1Q) as a little-endian machine loads them."""
_IPV6: Final = 0xDD86
"""The Ethernet type of IPv6 as a little-endian machine loads it."""


def join(ipv4: bytes, ipv6: bytes) -> bytes:
    """One program of two; what is neither IPv4 nor IPv6 goes to the first.

    Up to two VLAN tags are looked past.

    Raises:
        ValueError: The first is too long to be jumped over.
    """
    length = len(ipv4) // 8
    if length + _LOOK * (_MOST_TAGS + 1) >= _MOST_AHEAD:
        raise ValueError(length)
    front = [
        instruction(_LOAD_32, _DATA, _CONTEXT, 0, 0),
        instruction(_LOAD_32, _END, _CONTEXT, 4, 0),
    ]
    for tags in range(_MOST_TAGS + 1):
        left = _LOOK * (_MOST_TAGS - tags)
        front += _look(_TYPE_AT + tags * _TAG_LENGTH, left, left + length)
    return b"".join(front) + ipv4 + ipv6


_MOST_TAGS: Final = 2
_LOOK: Final = 8


def _look(place: int, to_ipv4: int, to_ipv6: int) -> list[bytes]:
    """Look at the type that stands at ``place``: jump, unless it is that of a tag.

    Args:
        place: Bytes from the start of the frame.
        to_ipv4: Instructions between these and the program of IPv4.
        to_ipv6: The same for IPv6.
    """
    return [
        instruction(_MOVE, _BEYOND, _DATA, 0, 0),
        instruction(_ADD, _BEYOND, 0, 0, place + 2),
        instruction(_JUMP_GREATER, _BEYOND, _END, to_ipv4 + 5, 0),
        instruction(_LOAD_16, _TYPE, _DATA, place, 0),
        instruction(_JUMP_EQUAL, _TYPE, 0, to_ipv6 + 3, _IPV6),
        instruction(_JUMP_EQUAL, _TYPE, 0, 2, _TAGS[0]),
        instruction(_JUMP_EQUAL, _TYPE, 0, 1, _TAGS[1]),
        instruction(_JUMP, 0, 0, to_ipv4, 0),
    ]
