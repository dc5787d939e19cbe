"""Saved flows: read those of a balancer, and write them into another one.

Reading takes nothing from anybody: the records are copied where they lie, and no program waits.

Writing goes by the rules that the program has for its own flows (``bpf/flow.h``): claim a free
record, fill it in, enter it in the index, count it, publish it. It never touches the record of a
flow that has not timed out, and the kernel itself refuses an index entry where the client has one.
Claims go ahead of everything else by a whole chunk, so that a program that had just chosen a
record before the claim has long ended when the record is filled in.

What remains, where the balancer runs meanwhile: Python cannot compare and swap. A program that
takes a record between Python's look at the owner word and its claim, a fraction of a microsecond
unless the process is interrupted just there, loses it: its flow is opened anew, with another port,
by the client's next packet. A counter of ``client_flows`` that a program changes at the very same
moment can be off by one.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from xdplb import wire
from xdplb.kernel import clock, libbpf
from xdplb.kernel.memory import WRITE, mapped
from xdplb.kernel.newcomers import Newcomers
from xdplb.ports import NatPool
from xdplb.restoring import IDENTITY, Batch, Destination, claimed, is_free
from xdplb.saved import Part, Skip
from xdplb.saving import STATES, idle_ticks, origin, pick, side_of
from xdplb.sketch import ROWS, counter_places, is_counted
from xdplb.wire import ClientKey, ClientValue, FlowCode, FlowRecord

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Sequence

    from xdplb.facts import Running
    from xdplb.kernel.program import Maps

_CHUNK: Final = 1 << 13
_WORD: Final = wire.U64.size
_AT_SERVICE: Final = 15
_AT_CLIENT: Final = 24
"""Where the number of the service lies in a record, and where begins who it is of."""
_NEWER: Final = 1 << 31


@contextmanager
def _counters(maps: Maps) -> Iterator[memoryview]:
    """``client_flows``, number by number; none where the program has no limit and no such map."""
    if "client_flows" not in maps:
        with memoryview(b"") as nothing, nothing.cast("i") as counts:
            yield counts
        return
    size = libbpf.map_info(maps["client_flows"]).max_entries * _WORD
    with (
        mapped(maps["client_flows"], size, WRITE) as memory,
        memory.cast("i") as counts,
    ):
        yield counts


def read(maps: Maps, running: Running, now: int, codes: Sequence[FlowCode] = STATES) -> Part:
    """The flows of one IP version that have not timed out.

    Args:
        maps: The balancer's.
        running: What it knows of itself.
        now: The time in ticks.
        codes: The states that are meant.
    """
    state, version = running.state, maps.version
    meaning = origin(state, side_of(state, version), running.records[version])
    size = wire.SIZES[version]["flow"]
    states = {int(code): place for place, code in enumerate(codes)}
    flows = bytearray()
    with mapped(maps["reverse_lookup"], state.capacity * size) as records:
        for first in range(0, state.capacity, _CHUNK):
            copied = records[first * size : (first + _CHUNK) * size].tobytes()
            flows += pick(copied, count(first), meaning, now, states)
    return Part(version, meaning.lanes, memoryview(flows))


def write(  # noqa: PLR0913 - what is written, where, and how
    maps: Maps,
    running: Running,
    destination: Destination,
    flows: int,
    *,
    is_attached: bool,
    rules: bool = False,
) -> None:
    """Restore flows of one IP version; those that cannot be are counted in the destination.

    Args:
        maps: Of the balancer.
        running: What it knows of itself.
        destination: Where the flows go.
        flows: How many there are.
        is_attached: The balancer may have flows, and more may come meanwhile.
        rules: They are a peer's, whose word counts; else what is there stays.
    """
    state, version = running.state, maps.version
    size = state.capacity * wire.SIZES[version]["flow"]
    with (
        mapped(maps["reverse_lookup"], size, WRITE) as records,
        records.cast("Q") as words,
        _counters(maps) as counts,
    ):
        newcomers = Newcomers(maps["client_port"], flows, is_shared=is_attached)
        kind = _RuledTable if rules else _Table
        table = kind(maps, running, newcomers, _Memory(records, words, counts))
        for first in range(0, flows, _CHUNK):
            now = clock.ticks()
            table.add(destination.place(first, _CHUNK, now), destination.skipped, now)


class _Memory(NamedTuple):
    """Where maps lie: ``reverse_lookup`` byte by byte and word by word, and ``client_flows``."""

    records: memoryview
    words: memoryview
    counts: memoryview


class _Table:
    """The flow table of one IP version, under the program."""

    def __init__(
        self,
        maps: Maps,
        running: Running,
        newcomers: Newcomers,
        memory: _Memory,
    ) -> None:
        """Write into ``memory`` and, by ``newcomers``, into the index."""
        state, version = running.state, maps.version
        self._maps = maps
        self._side = side_of(state, version)
        self._backends = running.records[version]
        self._newcomers = newcomers
        self._records, self._words, self._counts = memory
        self._size = wire.SIZES[version]["flow"]
        self._limits = idle_ticks(self._side)
        self._pool = NatPool(state.nat_ports)
        self._is_counted = is_counted(state.max_client_flows, self._pool.size)
        self._hash = (version, state.hash_keys, len(memory.counts) // 2 // ROWS)
        self._mine = bytearray(state.capacity)

    def add(self, batch: Batch, skipped: Counter[Skip], now: int) -> None:
        """Add flows; those that find their place taken, or their client known, are counted.

        Args:
            batch: The flows.
            skipped: Where those that are not added are counted.
            now: The time in ticks that they are claimed with.
        """
        mine = self._claim(batch, now)
        skipped[Skip.PORT_TAKEN] += len(batch.indexes) - len(mine)
        size, records, indexes, flows = self._size, self._records, batch.indexes, batch.flows
        for at in mine:
            start = indexes[at] * size
            records[start : start + size] = flows[at]
        refused = self._newcomers.insert(
            [batch.keys[at] for at in mine], [batch.values[at] for at in mine]
        )
        gone = {mine[number]: code for number, code in refused.items()}
        self._publish(batch, [at for at in mine if at not in gone])
        for at, code in gone.items():
            if code != errno.EEXIST:
                self._words[indexes[at] * (size // _WORD)] = 0
                skipped[Skip.NO_ROOM] += 1
            elif not self._meets(batch, at):
                skipped[Skip.CLIENT_KNOWN] += 1

    def _claim(self, batch: Batch, now: int) -> list[int]:
        """Claim the records of a batch that are free; returns which of its flows have one now."""
        words, stride = self._words, self._size // _WORD
        mine = []
        for at, index in enumerate(batch.indexes):
            found = words[index * stride]
            if found:
                service = self._records[index * self._size + _AT_SERVICE]
                if not self._may_take(found, service, now):
                    continue
            words[index * stride] = claimed(batch.owners[at], now)
            if found:
                self._forget(index, found)
            mine.append(at)
        return mine

    def _may_take(self, found: int, service: int, now: int) -> bool:
        """Whether a record may be given to a restored flow.

        Args:
            found: Its owner word.
            service: The number of its service.
            now: The time in ticks.
        """
        return is_free(found, service, self._limits, now)

    def _meets(self, batch: Batch, at: int) -> bool:
        """Decide between a flow and another one of its client; whether none of them is lost."""
        if self._supersedes(batch, at):
            self._publish(batch, [at])
        else:
            self._words[batch.indexes[at] * (self._size // _WORD)] = 0
        return False

    def _supersedes(self, batch: Batch, at: int) -> bool:
        """Give a flow the index entry that its client has, if that is of an older saved flow.

        A client whose backend was down for a while can have two flows that have not timed out.
        """
        key = batch.keys[at]
        value = libbpf.lookup(self._maps["client_port"], key, len(batch.values[at]))
        other = None if value is None else self._place(ClientValue.unpack(value))
        if other is None or not self._mine[other]:
            return False
        word = other * (self._size // _WORD)
        newer = batch.owners[at] - self._words[word] & 0xFFFFFFFF
        if not 0 < newer < _NEWER:
            return False
        libbpf.update(self._maps["client_port"], key, batch.values[at])
        self._words[word] = 0
        self._count([batch.clients[at]], -1)
        return True

    def _forget(self, index: int, owner: int) -> None:
        """Take a timed out flow, whose record is claimed now, from its client."""
        size = self._size
        data = self._records[index * size : (index + 1) * size].tobytes()
        flow = FlowRecord.unpack(wire.U64.pack(owner) + data[_WORD:])
        if flow.owner.state not in {FlowCode.FREE, FlowCode.CLAIMED, FlowCode.RESERVED}:
            self._count([flow.client.packed], -1)
        service = self._side.service(flow.service)
        if service is None:
            return
        key = ClientKey(
            flow.client, flow.client_port, service.dialled, flow.service_port, flow.service
        ).pack()
        value = libbpf.lookup(self._maps["client_port"], key, wire.SIZES[4]["client_value"])
        if value is not None and self._place(ClientValue.unpack(value)) == index:
            libbpf.delete(self._maps["client_port"], key)

    def _place(self, value: ClientValue) -> int | None:
        """The record that an index entry leads to."""
        offset = self._pool.offset(value.nat_port)
        if offset is None or value.backend >= len(self._backends):
            return None
        return self._backends[value.backend].slot_first + offset

    def _publish(self, batch: Batch, which: list[int]) -> None:
        """Count the flows that have a record and an index entry, and let them be flows."""
        words, stride = self._words, self._size // _WORD
        indexes, owners = batch.indexes, batch.owners
        self._count([batch.clients[at] for at in which], 1)
        for at in which:
            index = indexes[at]
            self._mine[index] = 1
            words[index * stride] = owners[at]

    def _count(self, clients: Sequence[bytes], more: int) -> None:
        """Add to the counters of clients, each in a word of 64 bits, but never go below 0."""
        if not self._is_counted:
            return
        counts = self._counts
        for places in counter_places(*self._hash, clients):
            for place in places:
                value = counts[2 * place] + more
                counts[2 * place] = max(value, 0)


class _RuledTable(_Table):
    """The flow table of a balancer that stands by for another one, whose word counts.

    Flows that are there already are renewed, those that are in the way or have ended are let go.
    A reservation stays: it is of the options, and not of the peer.
    """

    def add(self, batch: Batch, skipped: Counter[Skip], now: int) -> None:
        """The same; but for flows that are there, or have ended, only what is new of them."""
        new = Batch()
        for at, owner in enumerate(batch.owners):
            is_there = self._is_there(batch, at)
            if owner >> 48 & 0xFF == FlowCode.FREE:
                if is_there:
                    self._end(batch.indexes[at], claimed(owner, now))
            elif is_there:
                self._renew(batch, at)
            else:
                new.take(batch, at)
        super().add(new, skipped, now)

    def _may_take(self, found: int, service: int, now: int) -> bool:
        del service, now
        return found >> 48 & 0xFF not in {FlowCode.CLAIMED, FlowCode.RESERVED}

    def _meets(self, batch: Batch, at: int) -> bool:
        """Let the client have this flow, and not the one that it had."""
        key, value = batch.keys[at], batch.values[at]
        known = libbpf.lookup(self._maps["client_port"], key, len(value))
        other = None if known is None else self._place(ClientValue.unpack(known))
        if other is not None and self._is_client(batch, at, other):
            self._end(other, claimed(batch.owners[at], batch.owners[at]))
        libbpf.update(self._maps["client_port"], key, value)
        self._publish(batch, [at])
        return True

    def _is_there(self, batch: Batch, at: int) -> bool:
        """Whether a flow's record is that flow's."""
        index = batch.indexes[at]
        found = self._words[index * (self._size // _WORD)]
        return (found ^ batch.owners[at]) & IDENTITY == 0 and self._is_client(batch, at, index)

    def _is_client(self, batch: Batch, at: int, index: int) -> bool:
        """Whether a record is of a flow of this client to this port, toward whatever backend."""
        size, flow = self._size, batch.flows[at]
        record = self._records[index * size : (index + 1) * size].tobytes()
        code = self._words[index * (size // _WORD)] >> 48 & 0xFF
        return (
            code not in {FlowCode.FREE, FlowCode.CLAIMED, FlowCode.RESERVED}
            and record[_AT_SERVICE] == flow[_AT_SERVICE]
            and record[_AT_CLIENT:] == flow[_AT_CLIENT:]
        )

    def _renew(self, batch: Batch, at: int) -> None:
        """Let a flow be as the peer says; but a packet that it has had here is not forgotten."""
        index, owner, size = batch.indexes[at], batch.owners[at], self._size
        found = self._words[index * (size // _WORD)]
        start = index * size
        self._records[start + _WORD : start + _AT_CLIENT] = batch.flows[at][_WORD:_AT_CLIENT]
        if owner - found & 0xFFFFFFFF >= _NEWER:
            owner = owner & ~0xFFFFFFFF | found & 0xFFFFFFFF
        self._words[index * (size // _WORD)] = owner

    def _end(self, index: int, claim: int) -> None:
        """End the flow of a record, which is claimed with a word meanwhile."""
        word = index * (self._size // _WORD)
        found = self._words[word]
        self._words[word] = claim
        self._forget(index, found)
        self._words[word] = 0
