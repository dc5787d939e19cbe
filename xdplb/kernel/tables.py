"""The maps: create them at their size, fill them, read them back."""

from __future__ import annotations

import os
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xdplb import wire
from xdplb.errors import LoadError, TableError, surroundings
from xdplb.kernel import libbpf
from xdplb.kernel.program import META, Descriptors, Maps, map_name
from xdplb.model import MAX_PORT
from xdplb.plan import TABLES_PER_SERVICE
from xdplb.selection import MAGLEV_SIZE
from xdplb.state import Restore, State, interface_indexes, restores
from xdplb.wire import BackendCode, BackendRecord, ServiceRecord, StatsRecord

if TYPE_CHECKING:
    from array import array
    from collections.abc import Mapping, Sequence

    from xdplb.kernel.compiler import ObjectCode
    from xdplb.plan import Plan

KEPT: Final = (
    *("client_port", "reverse_lookup", "client_flows", "fragments", "fragment_ids"),
    *("verdicts", "backend_stats"),
)
"""The maps that outlive a program when ``up`` replaces it: flows and counters."""

_HASHES: Final = frozenset({"client_port", "next_hops"})
_PER_CPU: Final = frozenset({"verdicts", "backend_stats", "reply_limits"})
_MAPPED: Final = frozenset({"reverse_lookup", "client_flows"})
"""Those that Python reads, and restores, where they lie."""

_FRAGMENTED_DATAGRAMS: Final = 8192
_MAGLEV_BYTES: Final = 2 * (MAGLEV_SIZE + 1)
_BLOCKS_PER_ADDRESS: Final = 2 * (MAX_PORT + 1) // wire.PORT_BLOCK
_DECLARED_SHORTER: Final = {"maglev": _MAGLEV_BYTES, "service_ports": wire.PORT_BLOCK}
"""Bytes of the values of which the program declares only the first number."""

_CLIENT_ROWS: Final = 2
_META_ROOM: Final = 1 << 14
_POSSIBLE_CPUS: Final = Path("/sys/devices/system/cpu/possible")


def _entries(plan: Plan) -> dict[str, int]:
    services = max(item.number for item in plan.services) + 1
    return {
        "backends": plan.room,
        "client_port": plan.capacity,
        "reverse_lookup": plan.capacity,
        "client_flows": _CLIENT_ROWS * plan.client_counters,
        "backend_ports": plan.room,
        "next_hops": plan.room,
        "services": services,
        "maglev": TABLES_PER_SERVICE * services,
        "addresses": len(plan.addresses),
        "service_ports": len(plan.addresses) * _BLOCKS_PER_ADDRESS,
        "interfaces": len(plan.facts.ports),
        "fragments": _FRAGMENTED_DATAGRAMS,
        "backend_stats": plan.room,
    }


def sizes(plan: Plan) -> tuple[tuple[str, int], ...]:
    """How many elements each map of a plan has that does not always have the same."""
    return tuple(_entries(plan).items())


def _records(version: int) -> dict[str, tuple[int, int]]:
    """Bytes of key and value in the maps that are read back."""
    sizes = wire.SIZES[version]
    return {
        "backends": (4, sizes["backend"]),
        "client_port": (sizes["client_key"], sizes["client_value"]),
        "reverse_lookup": (4, sizes["flow"]),
        "maglev": (4, _MAGLEV_BYTES),
        "verdicts": (4, wire.U64.size),
        "backend_stats": (4, sizes["backend_stats"]),
    }


def create(
    plans: Sequence[Plan], code: Mapping[int, ObjectCode], kept: Descriptors | None
) -> Descriptors:
    """Create the maps of ``code``, but for those that are ``kept`` from a running balancer.

    Args:
        plans: One for each IP version.
        code: The program for each.
        kept: The maps of the balancer that is being replaced.

    Raises:
        LoadError: The kernel has no memory for one, or refuses it.
        TableError: A kept map is not of the kind that the program expects.
    """
    maps = Descriptors()
    try:
        for plan in plans:
            old = kept.of(plan.version) if kept is not None else None
            _create_side(maps.of(plan.version), plan, code[plan.version], old)
    except BaseException:
        maps.close()
        raise
    return maps


def _create_side(maps: Maps, plan: Plan, code: ObjectCode, kept: Maps | None) -> None:
    """Create the maps of one IP version that are not there yet."""
    btf = libbpf.load_btf(code.btf) if code.btf else 0
    entries = _entries(plan)
    try:
        for name, kind in code.maps.items():
            if name in maps:
                continue
            value_size = _DECLARED_SHORTER.get(name, kind.value_size)
            wanted = entries.get(name, kind.entries)
            old = kept[name] if kept is not None and name in KEPT and name in kept else None
            if old is not None:
                _refuse_other(name, old, kind.key_size, value_size)
                if libbpf.map_info(old).max_entries >= wanted:
                    maps.add(name, os.dup(old))
                    continue
            has_types = btf and value_size == kind.value_size
            types = (btf, kind.btf_key, kind.btf_value) if has_types else (0, 0, 0)
            sizes = (kind.key_size, value_size, wanted)
            maps.add(name, _create_one(name, maps.version, sizes, types))
            if old is not None:
                _copy_counters(old, maps[name], value_size)
    finally:
        if btf:
            os.close(btf)


def _copy_counters(old: int, new: int, value_size: int) -> None:
    """Carry counters into a map with more room; the flow maps never change their size."""
    size = value_size * possible_cpus()
    for number in range(libbpf.map_info(old).max_entries):
        key = wire.U32.pack(number)
        libbpf.update(new, key, libbpf.lookup(old, key, size) or bytes(size))


def _create_one(
    name: str, version: int, sizes: tuple[int, int, int], btf: tuple[int, int, int]
) -> int:
    """Create one map; ``sizes`` are bytes of a key, bytes of a value, and entries."""
    kind = libbpf.MAP_TYPE_ARRAY
    if name in _HASHES:
        kind = libbpf.MAP_TYPE_HASH
    elif name == "fragments":
        kind = libbpf.MAP_TYPE_LRU_HASH
    elif name in _PER_CPU:
        kind = libbpf.MAP_TYPE_PERCPU_ARRAY
    flags = libbpf.MAP_MMAPABLE if name in _MAPPED else 0
    try:
        return libbpf.create_map(kind, map_name(name, version), *sizes, flags=flags, btf=btf)
    except OSError as error:
        if surroundings(error):
            raise
        raise LoadError(
            f"the kernel does not create the map {name} of {sizes[2]} entries: {error.strerror}",
            "ask for fewer flows with --max-flows",
        ) from error


def _refuse_other(name: str, fd: int, key_size: int, value_size: int) -> None:
    """Never touch a map whose records are not as long as ours: the kernel would overrun them."""
    info = libbpf.map_info(fd)
    if (info.key_size, info.value_size) != (key_size, value_size):
        raise TableError(
            f"the running map {name} has records of {info.key_size}+{info.value_size} bytes, "
            f"not of {key_size}+{value_size}",
            "use the xdplb that started it; nothing was changed",
        )


def fill(maps: Maps, plan: Plan) -> None:
    """Write all that the plan decided, but the reservations.

    Raises:
        TableError: The kernel refuses a record.
    """
    _write_array(maps["backends"], [record.pack() for record in plan.records])
    _write_array(maps["backend_ports"], [bucket.pack() for bucket in plan.buckets()])
    for address, number in plan.next_hops.items():
        libbpf.update(maps["next_hops"], address.packed, wire.U32.pack(number))
    _write_array(maps["interfaces"], plan.interface_records())
    if plan.has_many:
        _write_array(maps["addresses"], [address.packed for address in plan.addresses])
        _write_array(maps["service_ports"], plan.port_blocks())
    for number, record in plan.service_records().items():
        write_table(maps, number, record, plan.tables[number])


def write_table(maps: Maps, number: int, record: ServiceRecord, table: array[int]) -> None:
    """Write the Maglev table of service ``number``, and then that it is the one that counts."""
    data = table.tobytes().ljust(_MAGLEV_BYTES, b"\0")
    libbpf.update(maps["maglev"], wire.U32.pack(record.table), data)
    libbpf.update(maps["services"], wire.U32.pack(number), record.pack())


def change(maps: Maps, plan: Plan, old: Sequence[BackendRecord]) -> None:
    """Write what of a plan differs from the ``old`` records, in an order that no packet minds.

    Where to find a backend by its address is written in any case: an earlier change may have
    been killed before it came to that.

    Raises:
        TableError: The kernel refuses a record.
    """
    differing = [
        (number, record)
        for number, record in enumerate(plan.records)
        if number >= len(old) or record != old[number]
    ]
    _write_array(maps["backend_ports"], [bucket.pack() for bucket in plan.buckets()])
    for number, record in differing:
        if record.state is BackendCode.UP:
            write_backend(maps, number, record)
    for address, number in plan.next_hops.items():
        libbpf.update(maps["next_hops"], address.packed, wire.U32.pack(number))
    for number, service in plan.service_records().items():
        idle = service.table + (active_table(maps, number) == service.table)
        write_table(maps, number, service._replace(table=idle), plan.tables[number])
    for number, record in differing:
        if record.state is not BackendCode.UP:  # no table names it any more
            write_backend(maps, number, record)


def active_table(maps: Maps, number: int) -> int:
    """Which Maglev table of service ``number`` counts."""
    size = wire.SIZES[maps.version]["service"]
    record = libbpf.lookup(maps["services"], wire.U32.pack(number), size) or bytes(size)
    return ServiceRecord.unpack(record).table


def _write_array(fd: int, records: Sequence[bytes]) -> None:
    keys = b"".join(wire.U32.pack(index) for index in range(len(records)))
    libbpf.update_batch(fd, keys, b"".join(records), len(records))


def read_flow(maps: Maps, index: int) -> wire.FlowRecord:
    """The record of ``reverse_lookup`` at ``index``."""
    size = wire.SIZES[maps.version]["flow"]
    data = libbpf.lookup(maps["reverse_lookup"], wire.U32.pack(index), size)
    return wire.FlowRecord.unpack(data or bytes(size))


def read_backends(maps: Maps, state: State) -> list[BackendRecord]:
    """The ``backends`` map, as far as numbers were ever given."""
    size = wire.SIZES[maps.version]["backend"]
    side = state.side(maps.version)
    _, values = libbpf.lookup_all(maps["backends"], 4, size, side.room if side else 0)
    records = [
        BackendRecord.unpack(values[at : at + size], maps.version)
        for at in range(0, len(values), size)
    ]
    while records and int(records[-1].address) == 0:
        records.pop()
    return records


def write_backend(maps: Maps, number: int, record: BackendRecord) -> None:
    """Write one record of the ``backends`` map."""
    libbpf.update(maps["backends"], wire.U32.pack(number), record.pack())


def read_stats(maps: Maps, number: int) -> StatsRecord:
    """The counters of a backend, summed over the CPUs."""
    size = wire.SIZES[maps.version]["backend_stats"] * possible_cpus()
    data = libbpf.lookup(maps["backend_stats"], wire.U32.pack(number), size)
    return StatsRecord.unpack(data) if data else wire.NO_TRAFFIC


def read_verdicts(maps: Descriptors, names: Sequence[str]) -> dict[str, int]:
    """Packets by verdict, summed over the CPUs."""
    size = wire.U64.size * possible_cpus()
    counts = {}
    for index, name in enumerate(names):
        data = libbpf.lookup(maps["verdicts"], wire.U32.pack(index), size) or b""
        counts[name] = sum(value for (value,) in wire.U64.iter_unpack(data))
    return counts


def read_shares(maps: Maps, state: State) -> Counter[int]:
    """How many entries of its service's Maglev table each backend number has."""
    shares: Counter[int] = Counter()
    side = state.side(maps.version)
    for item in side.services if side else ():
        table = wire.U32.pack(active_table(maps, item.number))
        data = libbpf.lookup(maps["maglev"], table, _MAGLEV_BYTES) or b""
        shares.update(memoryview(data).cast("H")[:MAGLEV_SIZE])
    return shares


def read_slot(maps: Maps, number: int, slot: int) -> int:
    """The backend number in a slot of the Maglev table of service ``number``."""
    table = wire.U32.pack(active_table(maps, number))
    data = libbpf.lookup(maps["maglev"], table, _MAGLEV_BYTES) or b""
    return memoryview(data).cast("H")[slot]


def add_meta(maps: Descriptors, state: State, program_fd: int) -> None:
    """Write the ``meta`` map and let the program hold it.

    Raises:
        LoadError: The kernel refuses.
    """
    text = state.to_bytes()
    size = _META_ROOM * (len(text) // _META_ROOM + 2)
    try:
        fd = libbpf.create_map(libbpf.MAP_TYPE_ARRAY, META, 4, size, 1)
        maps.add(META, fd)
        libbpf.update(fd, wire.U32.pack(0), text.ljust(size, b"\0"))
        libbpf.bind_map(program_fd, fd)
    except OSError as error:
        if surroundings(error):
            raise
        raise LoadError(
            f"the kernel does not keep the balancer's description: {error.strerror}",
            "xdplb needs Linux 5.12 or later",
        ) from error


def meta_text(maps: Descriptors, state: State) -> bytes:
    """A new description of a running balancer, as ``write_meta`` takes it.

    Raises:
        TableError: It has become too long.
    """
    size = libbpf.map_info(maps[META]).value_size
    text = state.to_bytes()
    if len(text) > size:
        raise TableError(
            "the balancer's description has become too long for its map",
            "run 'xdplb up' again with all backends: it makes more room and keeps the flows",
        )
    return text.ljust(size, b"\0")


def write_meta(maps: Descriptors, text: bytes) -> None:
    """Replace the description of a running balancer."""
    libbpf.update(maps[META], wire.U32.pack(0), text)


def _meta_text(maps: Descriptors) -> bytes:
    if META not in maps:
        return b""
    size = libbpf.map_info(maps[META]).value_size
    return libbpf.lookup(maps[META], wire.U32.pack(0), size) or b""


def read_interfaces(maps: Descriptors) -> list[int]:
    """The interfaces that a balancer of any version says it sits on; none if it is no balancer."""
    return interface_indexes(_meta_text(maps))


def read_restore(maps: Descriptors) -> tuple[Restore, ...]:
    """What a balancer of any version changed outside, as far as this one can read that."""
    return restores(_meta_text(maps))


def read_meta(maps: Descriptors) -> State:
    """What the balancer knows of itself.

    Raises:
        TableError: It is of another version.
    """
    state = _state(_meta_text(maps))
    for version in state.versions:
        for name, sizes in _records(version).items():
            _refuse_other(name, maps.of(version)[name], *sizes)
    return state


@lru_cache(maxsize=8)
def _state(text: bytes) -> State:
    """What a text says: who looks every second finds the same, and to read that takes longest."""
    return State.from_bytes(text)


@cache
def possible_cpus() -> int:
    """How many CPUs a per-CPU value has room for."""
    count = 0
    for part in _POSSIBLE_CPUS.read_text().strip().split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count
