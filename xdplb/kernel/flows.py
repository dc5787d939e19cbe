"""Flows from outside the program: end some of them.

The program and Python write the same records. What keeps them apart is that the program takes a
record over only when it has timed out, and that Python writes only what makes it look so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xdplb import wire
from xdplb.kernel import libbpf, tables
from xdplb.wire import ClientKey, ClientValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xdplb.kernel.program import Maps
    from xdplb.ports import NatPool
    from xdplb.wire import BackendRecord

_LONG_AGO: Final = 1 << 24
"""Ticks: thirteen days, more than any timeout."""

_OTHER_GENERATION: Final = 0x80


def entries(maps: Maps) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of ``client_port``, packed."""
    sizes = wire.SIZES[maps.version]
    key_size, value_size = sizes["client_key"], sizes["client_value"]
    room = libbpf.map_info(maps["client_port"]).max_entries
    keys, values = libbpf.lookup_all(maps["client_port"], key_size, value_size, room)
    for place in range(len(keys) // key_size):
        yield (
            keys[place * key_size : (place + 1) * key_size],
            values[place * value_size : (place + 1) * value_size],
        )


def place(pool: NatPool, records: Sequence[BackendRecord], value: ClientValue) -> int | None:
    """The index in ``reverse_lookup`` that an entry of ``client_port`` leads to, if to any."""
    offset = pool.offset(value.nat_port)
    if offset is None or value.backend >= len(records):
        return None
    return records[value.backend].slot_first + offset


def end(
    maps: Maps,
    pool: NatPool,
    records: Sequence[BackendRecord],
    now: int,
    is_meant: Callable[[ClientKey], bool],
) -> int:
    """End flows: the next packet of such a client opens a new one, and answers are nobody's.

    Args:
        maps: The balancer's, of one IP version.
        pool: Its NAT ports.
        records: The ``backends`` map that these flows were opened with.
        now: The time in ticks.
        is_meant: Which flows.

    Returns:
        How many.
    """
    count = 0
    for packed_key, packed_value in entries(maps):
        key = ClientKey.unpack(packed_key)
        if not is_meant(key):
            continue
        count += 1
        libbpf.delete(maps["client_port"], packed_key)
        value = ClientValue.unpack(packed_value)
        index = place(pool, records, value)
        if index is not None:
            _expire(maps, index, key, value.backend, now)
    return count


def _expire(maps: Maps, index: int, key: ClientKey, backend: int, now: int) -> None:
    """Let a record look as if its flow had gone long ago, toward a backend that is no more."""
    flow = tables.read_flow(maps, index)
    owned_by = flow.client, flow.client_port, flow.service, flow.owner.backend
    if owned_by != (key.client, key.client_port, key.number, backend):
        return
    owner = flow.owner._replace(
        seen=(now - _LONG_AGO) & 0xFFFFFFFF, generation=flow.owner.generation ^ _OTHER_GENERATION
    )
    libbpf.update(maps["reverse_lookup"], wire.U32.pack(index), flow._replace(owner=owner).pack())
