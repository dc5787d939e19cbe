"""Which backend a new flow gets: the keyed hash and the Maglev table.

The hash is the one of ``bpf/select.h``, computed here for reservations and for tests;
the table is that of Eisenbud et al., "Maglev: A Fast and Reliable Software Network
Load Balancer", NSDI 2016, section 3.4, with shares by weight.
"""

from __future__ import annotations

import sys
from array import array
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from xdplb.model import IPV4, Hash, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.model import Address, Backend

MAGLEV_SIZE: Final = 16381
NO_BACKEND: Final = 0xFFFF

_WORD: Final = (1 << 64) - 1
_MULTIPLIER: Final = 0x9E3779B97F4A7C15


def build_table(
    backends: Sequence[tuple[int, Backend]],
    size: int = MAGLEV_SIZE,
    lanes: Mapping[int, int] = MappingProxyType({}),
) -> array[int]:
    """Spread backends over a Maglev table.

    Args:
        backends: Number and backend of all that may get new flows. Their order does not
            matter, nor do the numbers: equal backends make equal tables on every machine.
        size: Entries of the table, a prime far above the number of backends.
        lanes: Where a backend has several numbers, one for each address that it is spoken to
            from, the place of that address; 0 for numbers that are not here.

    Returns:
        ``size`` backend numbers; all NO_BACKEND where there is none with a weight.
    """
    able = sorted(
        (item for item in backends if item[1].weight > 0),
        key=lambda item: (int(item[1].address), item[1].port or 0, lanes.get(item[0], 0)),
    )
    if len(able) <= 1:
        return array("H", [able[0][0] if able else NO_BACKEND]) * size
    table = array("H", [NO_BACKEND]) * size
    heaviest = max(backend.weight for _, backend in able)
    walks = [_permutation(backend, lanes.get(number, 0), size) for number, backend in able]
    position = [offset for offset, _ in walks]
    turn = [0] * len(able)
    left = size
    while True:
        for index, (number, backend) in enumerate(able):
            turn[index] += backend.weight
            if turn[index] < heaviest:
                continue
            turn[index] -= heaviest
            skip = walks[index][1]
            slot = position[index]
            while table[slot] != NO_BACKEND:
                slot += skip
                if slot >= size:
                    slot -= size
            table[slot] = number
            position[index] = slot
            left -= 1
            if not left:
                return table


def _permutation(backend: Backend, lane: int, size: int) -> tuple[int, int]:
    """Where a backend's walk over the table starts, and its step."""
    name = f"{backend}#{lane}" if lane else f"{backend}"
    digest = blake2b(name.encode(), digest_size=16).digest()
    offset = int.from_bytes(digest[:8], "big") % size
    return offset, int.from_bytes(digest[8:], "big") % (size - 1) + 1


def select_slot(
    kind: Hash,
    keys: tuple[int, int],
    client: tuple[Address, int],
    service: tuple[Address, int],
    protocol: Protocol = Protocol.UDP,
) -> int:
    """The table slot of a packet from ``client`` to ``service``.

    Args:
        kind: What of the packet counts.
        keys: The two secret 64-bit numbers of the balancer.
        client: Address and port.
        service: Address and port.
        protocol: Counts with 5-tuple only.
    """
    value = keys[0]
    for word in _hashed_words(kind, client[0], service[0]):
        value = hash_word(value, word, keys[1])
    if kind is Hash.FIVE_TUPLE:
        ports = (_port_as_loaded(client[1]) << 32) | (_port_as_loaded(service[1]) << 16)
        value = hash_word(value, ports | protocol.number, keys[1])
    return (value >> 32) * MAGLEV_SIZE >> 32


def _hashed_words(kind: Hash, client: Address, service: Address) -> list[int]:
    """The addresses as the program hashes them: one word for IPv4, two or four for IPv6."""
    if client.version == IPV4:
        destination = 0 if kind is Hash.SRC else _as_loaded(service.packed)
        return [_as_loaded(client.packed) << 32 | destination]
    return _halves(client) + ([] if kind is Hash.SRC else _halves(service))


def _halves(address: Address) -> list[int]:
    return [_as_loaded(address.packed[:8]), _as_loaded(address.packed[8:])]


def address_hash(address: Address) -> int:
    """Where the program looks for a backend address: 16 bits, not secret."""
    if address.version == IPV4:
        word = _as_loaded(address.packed)
    else:
        first, second = _halves(address)
        word = first * _MULTIPLIER & _WORD ^ second
        word ^= word >> 32
    return (word * _MULTIPLIER & _WORD) >> 48


def hash_word(value: int, word: int, key: int) -> int:
    """The keyed hash of one more ``word``, as in ``bpf/hash.h``.

    Args:
        value: The hash so far; the first secret number before the first word.
        word: 64 bits.
        key: The second secret number.
    """
    value = (value ^ word) * _MULTIPLIER & _WORD
    value ^= value >> 32
    value = value * (key | 1) & _WORD
    return value ^ (value >> 29)


def _as_loaded(packed: bytes) -> int:
    """Bytes of a packet as the program loads them: in the machine's order."""
    return int.from_bytes(packed, sys.byteorder)


def _port_as_loaded(port: int) -> int:
    return _as_loaded(port.to_bytes(2, "big"))
