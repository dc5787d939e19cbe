"""The maps: create them at their size, fill them, read them back."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xdplb import wire
from xdplb.errors import LoadError, TableError
from xdplb.kernel import libbpf
from xdplb.kernel.program import META, Descriptors, Maps, map_name
from xdplb.selection import MAGLEV_SIZE
from xdplb.state import State, interface_indexes
from xdplb.wire import SERVICE_NUMBER, BackendCode, BackendRecord, FlowCode, StatsRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.kernel.compiler import ObjectCode
    from xdplb.model import Protocol
    from xdplb.plan import Plan

KEPT: Final = (
    *("client_port", "reverse_lookup", "client_flows", "fragments", "fragment_ids"),
    *("verdicts", "backend_stats"),
)
"""The maps that outlive a program when ``up`` replaces it: flows and counters."""

_HASHES: Final = frozenset({"client_port", "next_hops"})
_PER_CPU: Final = frozenset({"verdicts", "backend_stats", "reply_limits"})
_FRAGMENTED_DATAGRAMS: Final = 8192
_MAGLEV_BYTES: Final = 2 * (MAGLEV_SIZE + 1)
_TABLES_PER_SERVICE: Final = 2
_CLIENT_ROWS: Final = 2
_CHUNK: Final = 1 << 16
_META_ROOM: Final = 1 << 14
_POSSIBLE_CPUS: Final = Path("/sys/devices/system/cpu/possible")


def _entries(plan: Plan) -> dict[str, int]:
    return {
        "backends": plan.room,
        "client_port": plan.capacity,
        "reverse_lookup": plan.capacity,
        "client_flows": _CLIENT_ROWS * plan.client_counters,
        "backend_ports": plan.room,
        "next_hops": plan.room,
        "services": len(SERVICE_NUMBER),
        "maglev": _TABLES_PER_SERVICE * len(SERVICE_NUMBER),
        "interfaces": len(plan.facts.ports),
        "fragments": _FRAGMENTED_DATAGRAMS,
        "backend_stats": plan.room,
    }


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
            value_size = _MAGLEV_BYTES if name == "maglev" else kind.value_size
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
    flags = libbpf.MAP_MMAPABLE if name == "reverse_lookup" else 0
    try:
        return libbpf.create_map(kind, map_name(name, version), *sizes, flags=flags, btf=btf)
    except OSError as error:
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
    for protocol in plan.tables:
        _write_table(maps, plan, protocol, SERVICE_NUMBER[protocol] * _TABLES_PER_SERVICE)


def _write_table(maps: Maps, plan: Plan, protocol: Protocol, number: int) -> None:
    """Write a Maglev table, and then that it is the one that counts."""
    data = plan.tables[protocol].tobytes().ljust(_MAGLEV_BYTES, b"\0")
    libbpf.update(maps["maglev"], wire.U32.pack(number), data)
    service = wire.U32.pack(SERVICE_NUMBER[protocol])
    libbpf.update(maps["services"], service, wire.service_record(number))


def change(maps: Maps, plan: Plan, old: Sequence[BackendRecord]) -> None:
    """Write what of a plan differs from the ``old`` records, in an order that no packet minds.

    Raises:
        TableError: The kernel refuses a record.
    """
    differing = [
        (number, record)
        for number, record in enumerate(plan.records)
        if number >= len(old) or record != old[number]
    ]
    for number, record in differing:
        if record.state is not BackendCode.UNUSED:
            write_backend(maps, number, record)
    known = {_place(record) for record in old}
    if any(_place(record) not in known for _, record in differing):
        _write_array(maps["backend_ports"], [bucket.pack() for bucket in plan.buckets()])
    for address, number in plan.next_hops.items():
        libbpf.update(maps["next_hops"], address.packed, wire.U32.pack(number))
    for protocol in plan.tables:
        first = SERVICE_NUMBER[protocol] * _TABLES_PER_SERVICE
        counts = active_table(maps, protocol)
        _write_table(maps, plan, protocol, first + (1 if counts == first else 0))
    for number, record in differing:
        if record.state is BackendCode.UNUSED:
            write_backend(maps, number, record)


def _place(record: BackendRecord) -> tuple[object, ...]:
    """What ``backend_ports`` knows of a backend."""
    return record.protocol, record.address, record.slot_first, record.slot_count


def active_table(maps: Maps, protocol: Protocol) -> int:
    """Which Maglev table of a service counts."""
    size = wire.SIZES[maps.version]["service"]
    service = wire.U32.pack(SERVICE_NUMBER[protocol])
    record = libbpf.lookup(maps["services"], service, size) or bytes(size)
    return int(wire.U32.unpack(record[: wire.U32.size])[0])


def _write_array(fd: int, records: Sequence[bytes]) -> None:
    keys = b"".join(wire.U32.pack(index) for index in range(len(records)))
    libbpf.update_batch(fd, keys, b"".join(records), len(records))


def flows_by_backend(maps: Maps, state: State, now: int) -> Counter[int]:
    """Count the flows that have not timed out, by backend number.

    The map is read where it lies, one word of each record: a million take 0.2 s.

    Args:
        maps: The balancer's.
        state: Its description, for the timeouts.
        now: The time in ticks.
    """
    limits = {
        int(code): round(seconds * wire.TICKS_PER_S)
        for code, seconds in wire.idle_limits(state.timeouts).items()
    }
    limits[int(FlowCode.RESERVED)] = 1 << 32
    newest = now + 2  # another CPU may be a tick ahead of the clock that was asked
    live: Counter[int] = Counter()
    record = wire.SIZES[maps.version]["flow"]
    for word, count in _owner_words(maps["reverse_lookup"], state.capacity, record).items():
        limit = limits.get(word >> 48 & 0xFF)
        if limit is not None and (newest - word & 0xFFFFFFFF) <= limit + 2:
            live[word >> 32 & 0xFFFF] += count
    return live


def _owner_words(fd: int, capacity: int, record: int) -> Counter[int]:
    """How often each owner word occurs in ``reverse_lookup``, with records of so many bytes."""
    size = capacity * record
    with (
        mmap.mmap(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE, prot=mmap.PROT_READ) as records,
        memoryview(records) as whole,
        whole[:size].cast("Q") as words,
        words[:: record // wire.U64.size] as owners,
    ):
        found: Counter[int] = Counter()
        for first in range(0, len(owners), _CHUNK):
            with owners[first : first + _CHUNK] as part:
                found.update(part.tolist())
        return found


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
    return StatsRecord.unpack(data) if data else StatsRecord(0, 0, 0, 0)


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
    for protocol in state.protocols:
        number = wire.U32.pack(active_table(maps, protocol))
        data = libbpf.lookup(maps["maglev"], number, _MAGLEV_BYTES) or b""
        shares.update(memoryview(data).cast("H")[:MAGLEV_SIZE])
    return shares


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
        raise LoadError(
            f"the kernel does not keep the balancer's description: {error.strerror}",
            "xdplb needs Linux 5.10 or later",
        ) from error


def write_meta(maps: Descriptors, state: State) -> None:
    """Replace the description of a running balancer.

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
    libbpf.update(maps[META], wire.U32.pack(0), text.ljust(size, b"\0"))


def _meta_text(maps: Descriptors) -> bytes:
    if META not in maps:
        return b""
    size = libbpf.map_info(maps[META]).value_size
    return libbpf.lookup(maps[META], wire.U32.pack(0), size) or b""


def read_interfaces(maps: Descriptors) -> list[int]:
    """The interfaces that a balancer of any version says it sits on; none if it is no balancer."""
    return interface_indexes(_meta_text(maps))


def read_meta(maps: Descriptors) -> State:
    """What the balancer knows of itself.

    Raises:
        TableError: It is of another version.
    """
    state = State.from_bytes(_meta_text(maps))
    for version in state.versions:
        for name, sizes in _records(version).items():
            _refuse_other(name, maps.of(version)[name], *sizes)
    return state


@cache
def possible_cpus() -> int:
    """How many CPUs a per-CPU value has room for."""
    count = 0
    for part in _POSSIBLE_CPUS.read_text().strip().split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count
