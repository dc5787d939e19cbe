"""How many flows each client has: where the program counts them, as in ``bpf/limit.h``."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from xdplb.model import IPV4, IPV6
from xdplb.selection import hash_word

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROWS: Final = 2

_LOADED: Final = {IPV4: struct.Struct("=I"), IPV6: struct.Struct("=Q8x")}
"""What of a client's address is hashed, as the program loads it."""

_SHIFT: Final = {IPV4: 32, IPV6: 0}


def counter_places(
    version: int, keys: tuple[int, int], counters: int, clients: Sequence[bytes]
) -> Iterator[tuple[int, int]]:
    """The two counters of each client in ``client_flows``, one of each row.

    Args:
        version: Of IP.
        keys: The two secret 64-bit numbers of the balancer.
        counters: In each row, a power of two.
        clients: Packed addresses; of IPv6 only the first half counts.
    """
    mask = counters - 1
    first, second = keys
    shift = _SHIFT[version]
    for (word,) in _LOADED[version].iter_unpack(b"".join(clients)):
        value = hash_word(first, word << shift, second)
        yield value & mask, counters + (value >> 32 & mask)


def is_counted(max_client_flows: int | None, nat_ports: int) -> bool:
    """Whether a program counts at all.

    Args:
        max_client_flows: As in Request.
        nat_ports: How many there are.
    """
    return max_client_flows != 0 and (max_client_flows is not None or nat_ports > 1)
