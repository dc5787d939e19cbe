"""A second program beside one that runs, made of the same text.

One that is to take its place shares its maps. One that is only asked shares what the program reads,
and has a copy, or an empty map, of what it writes: a packet can be given to it, and nobody notices.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, TypeAlias

from xdplb import wire
from xdplb.errors import LoadError, surroundings
from xdplb.facts import Rehearsal
from xdplb.kernel import clock, flows, libbpf, program, tables
from xdplb.kernel.memory import WRITE, mapped
from xdplb.kernel.program import META, OF_A_TRACE, Descriptors
from xdplb.ports import NatPool
from xdplb.wire import ClientKey, ClientValue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdplb.facts import Question, Running
    from xdplb.kernel.compiler import ObjectCode
    from xdplb.kernel.program import Maps
    from xdplb.wire import FlowRecord

_Known: TypeAlias = "tuple[ClientKey, ClientValue, FlowRecord | None]"

_COPIED: Final = frozenset({"client_port", "reverse_lookup", "client_flows"})
_NEW: Final = frozenset({"fragments", "fragment_ids", "verdicts", "backend_stats", "reply_limits"})
"""What the program writes, and what of it no single packet can depend on."""


def shared(every: Descriptors) -> Descriptors:
    """The maps of a balancer, for a program that is to take its place."""
    maps = Descriptors()
    try:
        for name in every.names():
            if name not in OF_A_TRACE:
                maps.add(name, os.dup(every[name]))
    except BaseException:
        maps.close()
        raise
    return maps


def load_again(every: Descriptors, code: Mapping[int, ObjectCode]) -> int:
    """Load a balancer's program once more, with the same maps; returns its descriptor."""
    maps = shared(every)
    try:
        fd = program.load(code, maps)
        try:
            libbpf.bind_map(fd, maps[META])
        except BaseException:
            os.close(fd)
            raise
        return fd
    finally:
        maps.close()


def rehearse(
    every: Descriptors,
    running: Running,
    code: Mapping[int, ObjectCode],
    question: Question,
) -> Rehearsal:
    """Find out what a balancer would do with a packet; nothing of it changes.

    Args:
        every: Its maps.
        running: What it knows of itself.
        code: Its program, compiled once more.
        question: The packet.

    Raises:
        LoadError: There is no memory for a copy of its flows.
    """
    maps = _copies(every)
    try:
        fd = program.load(code, maps)
        try:
            chosen, known = _expected(maps, running, question)
            frame = question.goes_on if known else question.frame
            done = libbpf.run_program(fd, frame, ifindex=question.ifindex)
            tag = bytes(libbpf.program_info(fd)[0].tag).hex()
        finally:
            os.close(fd)
        counts = tables.read_verdicts(maps, running.state.verdicts)
        return Rehearsal(
            verdict=next((name for name, count in counts.items() if count), ""),
            frame=done.packet,
            backend=_counted(maps, running),
            chosen=chosen,
            known=known,
            now=clock.ticks(),
            is_same=tag == running.tag or any(name in every for name in OF_A_TRACE),
        )
    finally:
        maps.close()


def _counted(maps: Descriptors, running: Running) -> tuple[int, int] | None:
    """IP version and number of the backend that the packet went to, or came from."""
    for version, records in running.records.items():
        for number in range(len(records)):
            if any(tables.read_stats(maps.of(version), number)):
                return version, number
    return None


def _expected(
    maps: Descriptors, running: Running, question: Question
) -> tuple[int | None, _Known | None]:
    """Whom the table has for the packet, and the flow that there is."""
    if question.service is None:
        return None, None
    mine = maps.of(question.keys[0].client.version)
    return (
        tables.read_slot(mine, question.service, question.slot),
        _known(mine, running, question.keys),
    )


def _known(maps: Maps, running: Running, keys: tuple[ClientKey, ...]) -> _Known | None:
    """The first of some entries of ``client_port`` that there is, and the record it leads to."""
    size = wire.SIZES[maps.version]["client_value"]
    for key in keys:
        data = libbpf.lookup(maps["client_port"], key.pack(), size)
        if data is not None:
            value = ClientValue.unpack(data)
            pool = NatPool(running.state.nat_ports)
            index = flows.place(pool, running.records[maps.version], value)
            return key, value, None if index is None else tables.read_flow(maps, index)
    return None


def _copies(every: Descriptors) -> Descriptors:
    """Maps for a twin.

    Raises:
        LoadError: There is no memory for them.
    """
    maps = Descriptors()
    try:
        for name in every.names():
            if name == META or name in OF_A_TRACE:
                continue
            plain = name.removesuffix("6")
            if plain not in _COPIED | _NEW:
                maps.add(name, os.dup(every[name]))
                continue
            maps.add(name, _like(every[name]))
            if plain in _COPIED:
                _copy(every[name], maps[name])
    except OSError as error:
        maps.close()
        if surroundings(error):
            raise
        raise LoadError(
            f"the kernel has no room for a copy of the flows: {error.strerror}",
            "'xdplb flows --client' shows a live flow without one",
        ) from error
    except BaseException:
        maps.close()
        raise
    return maps


def _like(fd: int) -> int:
    """A new map of the same kind and size."""
    info = libbpf.map_info(fd)
    sizes = info.key_size, info.value_size, info.max_entries
    return libbpf.create_map(info.type, info.name.decode(), *sizes, flags=info.map_flags)


def _copy(old: int, new: int) -> None:
    info = libbpf.map_info(old)
    if info.map_flags & libbpf.MAP_MMAPABLE:
        size = info.max_entries * (info.value_size + 7 & ~7)
        with mapped(old, size) as source, mapped(new, size, WRITE) as target:
            target[:] = source
        return
    keys, values = libbpf.lookup_all(old, info.key_size, info.value_size, info.max_entries)
    count = len(keys) // info.key_size
    if count:
        libbpf.update_batch(new, keys, values, count)
