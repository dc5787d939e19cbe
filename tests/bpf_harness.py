"""The program in the kernel, with maps, but on no interface: packet in, verdict and bytes out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packets import CLIENT, CLIENT6, OUR_MAC, SERVICE_OF, backend_mac, readdressed, udp

from xdplb import source, wire
from xdplb.flags import flags as compiler_flags
from xdplb.kernel import clock, libbpf, program, reservations, tables
from xdplb.kernel.closing import Closing
from xdplb.kernel.compiler import Compiler, ObjectCode
from xdplb.kernel.memory import WRITE, mapped
from xdplb.model import IPV4, Backend, Endpoint, Mode, PortRange, Protocol, Reservation
from xdplb.plan import Facts, Hop, Plan, Port, make_plan
from xdplb.request import Request, simple_request

if TYPE_CHECKING:
    from xdplb.kernel.program import Descriptors
    from xdplb.model import Address

XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX, XDP_REDIRECT = range(5)
EPHEMERAL = PortRange(32768, 60999)
KEYS = (0x0123456789ABCDEF, 0xFEDCBA9876543211)
LOOPBACK = 1


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one packet."""

    verdict: str
    action: int
    packet: bytes


_Kind = tuple[int, tuple[str, ...], tuple[tuple[str, int], ...]]
_IDLE: dict[_Kind, list[tuple[int, Descriptors]]] = {}
_MOST_IDLE = 12
"""Of so many kinds, programs are kept: the verifier takes longer over one than all of a test."""


def free_all() -> None:
    """Free what tests have left: others count programs and maps."""
    for kind in list(_IDLE):
        _free(kind)
    while _WARM:
        _WARM.pop().close()


def _free(kind: _Kind) -> None:
    for fd, every in _IDLE.pop(kind):
        os.close(fd)
        every.close()


def _taken(kind: _Kind) -> tuple[int, Descriptors] | None:
    """A program that a test has left, with maps as if they were new."""
    left = _IDLE.pop(kind, [])
    if not left:
        return None
    fd, every = left.pop()
    if left:
        _IDLE[kind] = left
    for name in every.names():
        _empty(every[name])
    return fd, every


def _empty(fd: int) -> None:
    """Make a map as it was when it was created."""
    info = libbpf.map_info(fd)
    if info.type in {libbpf.MAP_TYPE_HASH, libbpf.MAP_TYPE_LRU_HASH}:
        keys, _ = libbpf.lookup_all(fd, info.key_size, info.value_size, info.max_entries)
        for at in range(0, len(keys), info.key_size):
            libbpf.delete(fd, keys[at : at + info.key_size])
        return
    if info.map_flags & libbpf.MAP_MMAPABLE:
        size = info.max_entries * (info.value_size + 7 & ~7)
        with mapped(fd, size, WRITE) as memory:
            memory[:] = bytes(size)
        return
    copies = tables.possible_cpus() if info.type == libbpf.MAP_TYPE_PERCPU_ARRAY else 1
    nothing = bytes((info.value_size + 7 & ~7) * copies if copies > 1 else info.value_size)
    for index in range(info.max_entries):
        libbpf.update(fd, wire.U32.pack(index), nothing)


_WARM: list[Compiler] = []


@cache
def compiled(version: int, flags: tuple[str, ...]) -> ObjectCode:
    """Compile; the child for the next time loads BCC while tests run."""
    ready = _WARM.pop() if _WARM else Compiler(source.headers())
    _WARM.append(Compiler(source.headers()))
    with ready as compiler:
        every = ["-Wall", "-Werror", clock.flag(), *flags]
        return compiler.compile(source.text(version), every, source.FUNCTION)


def make_request(*backends: str, **options: Any) -> Request:
    """A request for backends written ``ADDR`` or ``ADDR:PORT``."""
    items = []
    for text in backends or ("172.11.0.20", "172.11.0.21"):
        address, _, port = text.strip("[").partition("]:" if "[" in text else ":")
        address, port = (text, "") if text.count(":") > 1 and "[" not in text else (address, port)
        items.append(Backend(ip_address(address), int(port) if port else None))
    return simple_request(("lo",), tuple(items), **options)


def reservation(client: str, port: int, nat_port: int) -> Reservation:
    """A reserved mapping."""
    return Reservation(Endpoint(ip_address(client), port), nat_port)


class Loaded(Closing):
    """A balancer that only ``run`` feeds. Backend number n is at ``backend_mac(n)``."""

    def __init__(
        self, request: Request | None = None, *, shares_ports: bool = False, **facts: Any
    ) -> None:
        """Compile (once for each set of constants), create and fill the maps, load."""
        request = request or make_request()
        mode = Mode.GENERIC if request.mode is Mode.GENERIC else Mode.NATIVE
        mac = bytes.fromhex(OUR_MAC.replace(":", ""))
        ports = facts.pop("ports", (Port("lo", LOOPBACK, mac, mode, redirect=False),))
        self.flags = facts.pop("flags", ())
        hops = {item.address: Hop(item.address, 0, LOOPBACK) for item in request.backends}
        version = request.versions[0]
        request = request.with_addresses({version: ip_address(SERVICE_OF[version])})
        known = Facts(
            version=version,
            ports=ports,
            hops={**hops, **facts.pop("hops", {})},
            ephemeral=EPHEMERAL,
            hash_keys=facts.pop("hash_keys", KEYS),
            **facts,
        )
        self.plan = self._with_macs(make_plan(request, known))
        self.version = self.plan.version
        flags = (*compiler_flags(self.plan, shares_ports=shares_ports), *self.flags)
        self.code = compiled(self.version, flags)
        self._kind = (self.version, flags, tables.sizes(self.plan))
        self.fd, self.every = _taken(self._kind) or self._made()
        self.maps = self.every.of(self.version)
        tables.fill(self.maps, self.plan)
        reservations.reserve(self.every, [self.plan], None)

    def _made(self) -> tuple[int, Descriptors]:
        """A new program with its maps."""
        code = {self.version: self.code}
        every = tables.create([self.plan], code, None)
        return program.load(code, every), every

    @staticmethod
    def _with_macs(plan: Plan) -> Plan:
        records = [
            record._replace(mac=bytes.fromhex(backend_mac(number).replace(":", "")))
            for number, record in enumerate(plan.records)
        ]
        return replace(plan, records=tuple(records))

    def close(self) -> None:
        """Leave program and maps to the next test that needs the same."""
        _IDLE.setdefault(self._kind, []).append((self.fd, self.every))
        if len(_IDLE) > _MOST_IDLE:
            _free(next(iter(_IDLE)))

    def run(self, packet: bytes) -> Result:
        """Give one packet to the program."""
        before = self.verdicts()
        done = libbpf.run_program(self.fd, packet, room=70000)
        counted = {
            name: count - before[name]
            for name, count in self.verdicts().items()
            if count != before[name]
        }
        assert len(counted) == 1, f"one packet, counted as {counted}"
        ((verdict, times),) = counted.items()
        assert times == 1
        SEEN_VERDICTS.add(verdict)
        return Result(verdict, done.returned, done.packet)

    def verdicts(self) -> dict[str, int]:
        """Packets by verdict."""
        return tables.read_verdicts(self.every, source.verdicts())

    def backend(self, number: int) -> wire.BackendRecord:
        """A backend as it stands in the map."""
        data = libbpf.lookup(self.maps["backends"], wire.U32.pack(number), 64)
        assert data is not None
        return wire.BackendRecord.unpack(data, self.version)

    def change_backend(self, number: int, **fields: Any) -> None:
        """Write some fields of a backend."""
        tables.write_backend(self.maps, number, self.backend(number)._replace(**fields))

    def index(
        self,
        client: str | None = None,
        port: int = 5555,
        dport: int = 53,
        protocol: Protocol = Protocol.UDP,
    ) -> wire.ClientValue:
        """Where the flow of a client leads."""
        client = client or self.client
        key = wire.ClientKey(ip_address(client), port, *self.dialled(dport, protocol))
        data = libbpf.lookup(self.maps["client_port"], key.pack(), 8)
        assert data is not None, f"no flow of {client}:{port}"
        return wire.ClientValue.unpack(data)

    def dialled(self, port: int, protocol: Protocol = Protocol.UDP) -> tuple[Address, int, int]:
        """The address, ``port`` and number of the service there; of the first, where it is 0."""
        for item in self.plan.services:
            service = item.service
            if service.protocol is protocol and (
                not port or any(port in ports for ports in service.ports)
            ):
                return service.dialled, port, item.number
        raise AssertionError(port)

    def flow_place(self, value: wire.ClientValue) -> int:
        """The index in reverse_lookup that an entry of client_port leads to."""
        offset = self.plan.pool.offset(value.nat_port)
        assert offset is not None
        return self.backend(value.backend).slot_first + offset

    def flow(self, value: wire.ClientValue) -> wire.FlowRecord:
        """The record that an entry of client_port leads to."""
        return tables.read_flow(self.maps, self.flow_place(value))

    def age(
        self,
        seconds: float,
        client: str | None = None,
        port: int = 5555,
        dport: int = 53,
        protocol: Protocol = Protocol.UDP,
    ) -> None:
        """Let the flow of a client look as if it had been idle for so long."""
        value = self.index(client, port, dport, protocol)
        ticks = round(seconds * wire.TICKS_PER_S)
        flow = self.flow(value)
        owner = flow.owner._replace(seen=(clock.ticks() - ticks) & 0xFFFFFFFF)
        libbpf.update(
            self.maps["reverse_lookup"],
            wire.U32.pack(self.flow_place(value)),
            flow._replace(owner=owner).pack(),
        )

    def entries(self) -> dict[wire.ClientKey, wire.ClientValue]:
        """The whole of client_port."""
        size = wire.SIZES[self.version]["client_key"]
        keys, values = libbpf.lookup_all(self.maps["client_port"], size, 8, self.plan.capacity)
        return {
            wire.ClientKey.unpack(keys[at * size : at * size + size]): wire.ClientValue.unpack(
                values[at * 8 : at * 8 + 8]
            )
            for at in range(len(keys) // size)
        }

    @property
    def client(self) -> str:
        """The usual client."""
        return CLIENT if self.version == IPV4 else CLIENT6

    def open(
        self, client: str | None = None, port: int = 5555, dport: int = 53
    ) -> wire.ClientValue:
        """Let a client send one datagram, and return where its flow leads."""
        client = client or self.client
        assert self.run(udp(src=client, sport=port, dport=dport)).verdict == "forward"
        return self.index(client, port, dport)

    def forwarded(self, packet: bytes, **fields: Any) -> bytes:
        """What should leave for the backend when the client's flow sends ``packet``.

        Args:
            packet: From the default client to port 53.
            fields: More, or other, of what ``packets.readdressed`` takes.
        """
        value = self.index()
        return readdressed(
            packet,
            **{
                "src": f"{self.plan.addresses[0]}",
                "dst": f"{self.backend(value.backend).address}",
                "sport": value.nat_port,
                "smac": OUR_MAC,
                "dmac": backend_mac(value.backend),
                **fields,
            },
        )

    def answer(self, value: wire.ClientValue, payload: bytes = b"answer", **more: Any) -> bytes:
        """What the backend of a flow sends back."""
        record = self.backend(value.backend)
        fields = {
            "src": f"{record.address}",
            "sport": record.port or 53,
            "dport": value.nat_port,
            "ether": {"src": backend_mac(value.backend)},
            **more,
        }
        return udp(payload, **fields)


def verified(fd: int) -> int:
    """How many instructions of a program the verifier looked at."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(info.split("verified_insns:")[1].split()[0])


def joined(one: Loaded, other: Loaded) -> int:
    """The descriptor of one program made of two, of IPv4 and IPv6."""
    maps = program.Descriptors()
    for part in (one, other):
        for name in part.code.maps:
            if name not in maps.of(part.version):
                maps.of(part.version).add(name, os.dup(part.maps[name]))
    fd = program.load({one.version: one.code, other.version: other.code}, maps)
    maps.close()
    return fd


SEEN_VERDICTS: set[str] = set()
"""Every verdict that any test has met."""
