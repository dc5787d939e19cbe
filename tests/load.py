"""A load of many flows, each packet of which is numbered and accounted for.

A program in the kernel makes packets: ``BPF_PROG_TEST_RUN`` sends them as live frames into the
clients' end of a veth pair, a small batch at a time. The same program sits on the hosts'
interfaces and is both the backends, which send each packet back, and the clients, to whom it
returns. What it sees it writes down in BPF maps. So a packet costs less than a microsecond beside
the balancer, and two busy processors still carry all of them.

It is one program because of the kernel's dispatcher: each ``BPF_PROG_TEST_RUN`` of a program that
is attached nowhere is entered there and taken out again, which waits for all processors.

There is a generator on every processor. None sends while more than a few packets are on their
way: no ring of a veth can overflow then, however long the other processor is away, and a packet
that does not come back was lost by what is between the ends.
"""

from __future__ import annotations

import os
import random
import struct
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from socket import SOCK_STREAM
from typing import TYPE_CHECKING, Final

from lab import SERVICE, wait_for

from xdplb import source, wire
from xdplb.kernel import libbpf, netns, program
from xdplb.kernel.closing import Closing
from xdplb.kernel.compiler import Compiler, ObjectCode
from xdplb.model import IPV4

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

    from lab import Lab

TEXT: Final = Path(__file__).with_suffix(".c")
PORT: Final = 7000
FRAME: Final = 1514
_FIRST_LENGTH: Final = 1480
_TAIL_LENGTH: Final = 200
_IP_HEADER: Final = 20
_SMALLEST: Final = 40
_BATCH: Final = 32
_WINDOW: Final = 96
_STUCK_S: Final = 3.0
_BEHIND_S: Final = 0.1
_STRANGERS: Final = 1 << 17
_CLIENTS_FROM: Final = IPv4Address("100.64.0.1")
_STRANGERS_FROM: Final = IPv4Address("100.80.0.0")
_ITEM: Final = struct.Struct("=4s2s2sIHBx")
_WALK: Final = struct.Struct("=4I")
_FLOW: Final = struct.Struct("=Q 6IQ 6IQ")
_ROUTE: Final = struct.Struct("=6s6s4sI")
_STRANGER: Final = struct.Struct("=2I")


class Kind(IntEnum):
    """What a packet is; see load.c."""

    WHOLE = 0
    FIRST = 1
    TAIL = 2
    STRANGER = 3


@dataclass(frozen=True, slots=True)
class Item:
    """One step of a generator's walk; ``length`` is of the IP packet."""

    client: IPv4Address
    client_port: int
    flow: int
    length: int
    kind: Kind

    def pack(self) -> bytes:
        """``struct item``."""
        ports = (self.client_port.to_bytes(2, "big"), PORT.to_bytes(2, "big"))
        return _ITEM.pack(self.client.packed, *ports, self.flow, self.length, self.kind)


@dataclass(frozen=True, slots=True)
class Seen:
    """What came by at one end of a flow; see ``struct seen`` in load.c."""

    next: int
    count: int
    skipped: int
    late: int
    moved: int
    broken: int
    place: int


@dataclass(frozen=True, slots=True)
class Account:
    """What became of all packets.

    Attributes:
        sent: Packets of clients.
        asked: Those that a backend saw.
        answered: Those that came back to their client.
        skipped: Numbers that were missing when a later one came.
        late: Packets that came after a later one, or twice.
        moved: Packets that took another backend or NAT port than the one before.
        broken: Packets that were not as they should have been, by address, length or checksum.
        strangers: Flows of one packet.
        strangers_wrong: Those whose packet or answer did not come exactly once.
        seconds: For how long the generators ran.
    """

    sent: int
    asked: int
    answered: int
    skipped: int
    late: int
    moved: int
    broken: int
    strangers: int
    strangers_wrong: int
    seconds: float

    @property
    def faults(self) -> dict[str, int]:
        """What is not as it should be, by name."""
        found = {
            "lost on the way to a backend": self.sent - self.asked,
            "lost on the way back": self.asked - self.answered,
            "skipped": self.skipped,
            "late or twice": self.late,
            "moved": self.moved,
            "broken": self.broken,
            "strangers": self.strangers_wrong,
        }
        return {name: count for name, count in found.items() if count}

    def __str__(self) -> str:
        """One line for a log."""
        return (
            f"{self.sent} packets ({self.strangers} new flows) in {self.seconds:.1f} s, "
            f"{self.sent / self.seconds:.0f}/s each way, faults: {self.faults or 'none'}"
        )


def items(processor: int, flows: int) -> list[Item]:
    """The walk of one generator: ``flows`` flows, small, large, in fragments, and strangers.

    Args:
        processor: Which generator's.
        flows: How many, of numbers that no other generator has.
    """
    chance = random.Random(processor)
    first = processor * flows
    walk = []
    at = 0
    while at < flows - 1:
        number = first + at
        client, port = _CLIENTS_FROM + number // 2, 20000 + number % 2
        kind = at % 64
        if kind in {1, 33}:
            walk.append(Item(client, port, number, _IP_HEADER + _FIRST_LENGTH, Kind.FIRST))
            walk.append(Item(client, port, number + 1, _IP_HEADER + _TAIL_LENGTH, Kind.TAIL))
            at += 1
        elif kind == 3:
            walk.append(Item(client, port, number, chance.randint(_SMALLEST, 200), Kind.STRANGER))
        else:
            length = 1500 if kind % 8 == 5 else chance.randint(_SMALLEST, 600)
            walk.append(Item(client, port, number, length, Kind.WHOLE))
        at += 1
    return walk


@cache
def _compiled(ifindex: int) -> ObjectCode:
    flags = {
        "IFINDEX": ifindex,
        "FRAME_LENGTH": FRAME,
        "FIRST_LENGTH": _FIRST_LENGTH,
        "TAIL_LENGTH": _TAIL_LENGTH,
    }
    with Compiler(source.headers()) as compiler:
        words = [f"-D{name}={value}" for name, value in flags.items()]
        return compiler.compile(TEXT.read_text(), words, "load")


class Load(Closing):
    """Generators at the clients' end of a lab, and an end for their packets."""

    def __init__(self, lab: Lab, rate: int, flows: int = 512) -> None:
        """Load the program; nothing is sent yet.

        Args:
            lab: Where.
            rate: Packets a second toward the backends, of all generators together.
            flows: How many each generator has.
        """
        self._lab = lab
        self._processors = sorted(os.sched_getaffinity(0))
        self._rate = rate / len(self._processors)
        self._cleanup = ExitStack()
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sent = dict.fromkeys(self._processors, 0)
        self._given_up = 0
        self._seconds = 0.0
        self._failed: list[BaseException] = []
        try:
            self._load(flows)
        except BaseException:
            self._cleanup.close()
            raise

    def _load(self, flows: int) -> None:
        index, mac = self._lab.link("h", "outside")
        code = _compiled(index)
        self._walks = {cpu: items(at, flows) for at, cpu in enumerate(self._processors)}
        room = flows * len(self._processors)
        entries = {
            "items": room,
            "flows": room,
            "walks": max(self._processors) + 1,
            "strangers": _STRANGERS * len(self._processors),
            "totals": 2,
        }
        self._maps = program.Descriptors()
        self._cleanup.callback(self._maps.close)
        for name, kind in code.maps.items():
            sizes = (kind.key_size, kind.value_size, entries.get(name, kind.entries))
            self._maps.add(name, libbpf.create_map(libbpf.MAP_TYPE_ARRAY, name, *sizes))
        self._program = program.load({IPV4: code}, self._maps)
        self._cleanup.callback(os.close, self._program)
        self._fill(mac)

    def _fill(self, mac: str) -> None:
        """Write what the generators send, each from the first of its flows on."""
        for at, (processor, walk) in enumerate(self._walks.items()):
            for item in walk:
                libbpf.update(self._maps["items"], wire.U32.pack(item.flow), item.pack())
            packed = _WALK.pack(0, walk[0].flow, len(walk), at * _STRANGERS)
            libbpf.update(self._maps["walks"], wire.U32.pack(processor), packed)
        balancer = self._lab.link("b", "balancer")[1]
        macs = [bytes.fromhex(text.replace(":", "")) for text in (balancer, mac)]
        packed = _ROUTE.pack(*macs, IPv4Address(SERVICE).packed, int(_STRANGERS_FROM))
        libbpf.update(self._maps["routes"], wire.U32.pack(0), packed)

    def sit_on(self, where: str, device: str) -> None:
        """Be the hosts behind an interface.

        Args:
            where: As for ``Lab.inside``.
            device: Its name.
        """
        index, _ = self._lab.link(where, device)
        with netns.inside(self._lab.path(where)):
            libbpf.xdp_attach(index, self._program, libbpf.XDP_DRV_MODE)

    def close(self) -> None:
        """End the generators; the program goes with the lab's interfaces."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._cleanup.close()

    # Sending

    def start(self) -> None:
        """Start sending."""
        self._stopped.clear()
        self._since = time.monotonic()
        self._threads = [
            threading.Thread(target=self._generate, args=(cpu,)) for cpu in self._processors
        ]
        for thread in self._threads:
            thread.start()

    def send(self, packets: int) -> None:
        """Return when so many more packets have been sent."""
        wanted = self.sent + packets
        wait_for(lambda: self._failed or self.sent >= wanted, timeout=60)

    def stop(self) -> Account:
        """Stop sending, wait for what is on its way, and sum up since the beginning."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._seconds += time.monotonic() - self._since
        if self._failed:
            raise self._failed[0]
        last, moved = -1, time.monotonic()
        while self._on_their_way() and time.monotonic() < moved + _STUCK_S:
            if (now := self._total(1)) != last:
                last, moved = now, time.monotonic()
        return self._sum_up()

    @property
    def sent(self) -> int:
        """Packets that were sent."""
        return sum(self._sent.values())

    def _total(self, which: int) -> int:
        data = libbpf.lookup(self._maps["totals"], wire.U32.pack(which), wire.U64.size)
        return int(wire.U64.unpack(data or bytes(8))[0])

    def _on_their_way(self) -> int:
        return self.sent - self._given_up - self._total(1)

    def _generate(self, processor: int) -> None:
        """Send batches at a steady rate from one processor, until somebody stops it."""
        try:
            os.sched_setaffinity(0, {processor})  # of this thread
            with netns.inside(self._lab.path("h")):
                self._pace(processor)
        except BaseException as error:  # noqa: BLE001 - whoever waits for this thread raises it
            self._failed.append(error)

    def _pace(self, processor: int) -> None:
        due = time.monotonic()
        frame = bytes(FRAME)
        while not self._stopped.is_set():
            due = max(due + _BATCH / self._rate, time.monotonic() - _BEHIND_S)
            time.sleep(max(due - time.monotonic(), 0))
            self._await_room()
            libbpf.run_program(self._program, frame, repeat=_BATCH, live_batch=_BATCH)
            self._sent[processor] += _BATCH

    def _await_room(self) -> None:
        """Return when few packets are on their way, or when those will not come any more."""
        last, moved = -1, time.monotonic()
        while (left := self._on_their_way()) > _WINDOW - _BATCH and not self._stopped.is_set():
            if (now := self._total(1)) != last:
                last, moved = now, time.monotonic()
            elif time.monotonic() > moved + _STUCK_S:
                self._given_up += left
            time.sleep(0.0001)

    # Accounts

    def flows(self) -> dict[int, tuple[int, Seen, Seen]]:
        """By number: packets sent, and what the backend and the client saw of them."""
        found = {}
        for item in (item for walk in self._walks.values() for item in walk):
            data = libbpf.lookup(self._maps["flows"], wire.U32.pack(item.flow), _FLOW.size)
            sent, *fields = _FLOW.unpack(data or bytes(_FLOW.size))
            found[item.flow] = (sent, Seen(*fields[:7]), Seen(*fields[7:]))
        return found

    def faults(self) -> dict[str, int]:
        """What flows have suffered up to now; packets may be on their way."""
        seen = [one for _, *both in self.flows().values() for one in both]
        return {
            name: sum(getattr(one, name) for one in seen)
            for name in ("skipped", "late", "moved", "broken")
        }

    def _sum_up(self) -> Account:
        strangers = wrong = 0
        size = _STRANGER.size
        for at, processor in enumerate(self._processors):
            data = libbpf.lookup(self._maps["walks"], wire.U32.pack(processor), _WALK.size)
            first, last = at * _STRANGERS, _WALK.unpack(data or bytes(_WALK.size))[3]
            strangers += last - first
            for number in range(first, last):
                one = libbpf.lookup(self._maps["strangers"], wire.U32.pack(number), size)
                wrong += _STRANGER.unpack(one or bytes(size)) != (1, 1)
        return Account(
            sent=sum(sent for sent, *_ in self.flows().values()),
            asked=self._total(0),
            answered=self._total(1),
            **self.faults(),
            strangers=strangers,
            strangers_wrong=wrong,
            seconds=self._seconds,
        )


class Talk(Closing):
    """A few TCP connections through the balancer that speak all the time."""

    def __init__(self, lab: Lab, clients: Sequence[str], servers: Sequence[socket]) -> None:
        """Open one for each client, and start talking.

        Args:
            lab: Where.
            clients: Addresses among the hosts.
            servers: Sockets that listen at the backends.
        """
        self.exchanges = 0
        self._stopped = threading.Event()
        self._failed: list[BaseException] = []
        self._pairs: list[tuple[socket, socket]] = []
        for address in clients:
            client = lab.socket(address, kind=SOCK_STREAM)
            client.connect((SERVICE, PORT))
            server, _ = lab.first_ready(*servers).accept()
            lab.keep(server)
            for sock in (client, server):
                sock.settimeout(20)
            self._pairs.append((client, server))
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    def close(self) -> None:
        """Stop talking and close the connections, the clients' ends first."""
        self._stopped.set()
        self._thread.join()
        for pair in self._pairs:
            for sock in pair:
                sock.close()

    def finish(self) -> None:
        """Stop talking; fails if a connection broke, or a byte was another one."""
        self._stopped.set()
        self._thread.join()
        if self._failed:
            raise self._failed[0]

    def _talk(self) -> None:
        try:
            while not self._stopped.is_set():
                for client, server in self._pairs:
                    self._exchange(client, server)
                time.sleep(0.01)
        except BaseException as error:  # noqa: BLE001 - whoever waits for this thread raises it
            self._failed.append(error)

    def _exchange(self, client: socket, server: socket) -> None:
        text = self.exchanges.to_bytes(4, "big") * (1 + self.exchanges % 1500)
        for one, other in ((client, server), (server, client)):
            one.sendall(text)
            got = b""
            while len(got) < len(text):
                more = other.recv(len(text) - len(got))
                assert more, "a connection was closed"
                got += more
            assert got == text
        self.exchanges += 1
