"""Map records as bytes: the layouts of ``bpf/types.h``, and the only place with byte order.

A record is a named tuple with ``pack`` and ``unpack``. Addresses and the ports of a packet
lie in network order, everything else in the machine's. A record with addresses has one layout
for IPv4 and a longer one for IPv6: its addresses say which, or its length. A test compares
every layout with the one that the C compiler made.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from ipaddress import ip_address
from typing import Final, NamedTuple, Self

from xdplb.model import IPV4, IPV6, Address, Protocol, Timeouts

TICK_NS: Final = 1 << 26
TICKS_PER_S: Final = 10**9 / TICK_NS
AHEAD_TICKS: Final = 2
"""So far ahead of the clock that was asked another CPU may be."""

NO_INDEX: Final = 0xFFFF
NO_SERVICE: Final = 0xFF
NO_ADDRESS: Final = 0xFF
MAX_SERVICES: Final = NO_SERVICE
MAX_ADDRESSES: Final = 64
PORT_BLOCK: Final = 256

U16: Final = struct.Struct("=H")
U32: Final = struct.Struct("=I")
U64: Final = struct.Struct("=Q")


NO_TAG: Final = bytes(4)


def vlan_tag(protocol: int, number: int) -> bytes:
    """The tag of a VLAN as it lies in a frame: EtherType and number (IEEE 802.1Q)."""
    return struct.pack(">HH", protocol, number)


class BackendCode(IntEnum):
    """``enum backend_state``; HELD is a backend that is down, whose flows wait for it."""

    UNUSED = 0
    UP = 1
    DRAIN = 2
    DOWN = 3
    HELD = 4


class FlowCode(IntEnum):
    """``enum flow_state``."""

    FREE = 0
    CLAIMED = 1
    UNREPLIED = 2
    ANSWERED = 3
    RESERVED = 4
    TCP_OPENING = 5
    TCP_ACCEPTED = 6
    TCP_ESTABLISHED = 7
    TCP_CLIENT_FIN = 8
    TCP_BACKEND_FIN = 9
    TCP_CLOSING = 10
    TCP_CLIENT_RST = 11
    TCP_BACKEND_RST = 12


def ticks(seconds: float) -> int:
    """So many seconds in ticks, at least one."""
    return max(round(seconds * TICKS_PER_S), 1)


def idle_ticks(timeouts: Timeouts) -> dict[int, int]:
    """Idle ticks after which a record may be taken over, by its state."""
    open_states = (FlowCode.TCP_ESTABLISHED, FlowCode.TCP_CLIENT_FIN, FlowCode.TCP_BACKEND_FIN)
    seconds = {
        FlowCode.CLAIMED: timeouts.unreplied,
        FlowCode.UNREPLIED: timeouts.unreplied,
        FlowCode.ANSWERED: timeouts.answered,
        **{
            code: timeouts.established if code in open_states else timeouts.transitory
            for code in FlowCode
            if code >= FlowCode.TCP_OPENING
        },
    }
    return {int(code): ticks(limit) for code, limit in seconds.items()}


def port_bytes(port: int) -> bytes:
    """A port as it lies in a packet."""
    return port.to_bytes(2, "big")


def protocol_of(service: int) -> Protocol:
    """The protocol of a service by its number: those of UDP are even, those of TCP odd."""
    return Protocol.TCP if service & 1 else Protocol.UDP


def _by_size(layouts: dict[int, struct.Struct], data: bytes) -> struct.Struct:
    """The layout whose records are as long as ``data``."""
    return next(layout for layout in layouts.values() if layout.size == len(data))


def mac_to_word(mac: bytes | None) -> int:
    """Six bytes as the program compares them; None, not known, is 0."""
    first, second, third = struct.unpack("=HHH", mac or bytes(6))
    return int(first | second << 16 | third << 32)


def word_to_mac(word: int) -> bytes | None:
    """The reverse of ``mac_to_word``."""
    parts = (word & 0xFFFF, word >> 16 & 0xFFFF, word >> 32 & 0xFFFF)
    return struct.pack("=HHH", *parts) if word else None


class BackendRecord(NamedTuple):
    """``struct backend``.

    Attributes:
        service: The number of the service that it answers.
        local: The number of the balancer's address that it is spoken to from.
        tag: That of its VLAN, four bytes as they lie in a frame.
    """

    mac: bytes | None
    address: Address
    port: int | None
    state: BackendCode
    generation: int
    slot_first: int
    slot_count: int
    interface: int
    weight: int
    next_hop: Address
    next_neighbour: int
    mac_is_fixed: bool
    service: int
    local: int = 0
    tag: bytes = NO_TAG

    @property
    def protocol(self) -> Protocol:
        """What it answers."""
        return protocol_of(self.service)

    def pack(self) -> bytes:
        """The 64 bytes of the record."""
        return _BACKEND[self.address.version].pack(
            mac_to_word(self.mac),
            self.address.packed,
            self.slot_first,
            self.slot_count,
            port_bytes(self.port or 0),
            self.weight,
            self.next_neighbour,
            self.interface,
            self.mac_is_fixed,
            self.state,
            self.generation,
            self.service,
            self.local,
            self.tag,
            self.next_hop.packed,
        )

    @classmethod
    def unpack(cls, data: bytes, version: int = IPV4) -> Self:
        """The record in ``data``, which is as long for either IP version."""
        mac, address, first, count, port, weight, neighbour, *more = _BACKEND[version].unpack(data)
        interface, fixed, state, generation, service, local, tag, hop = more
        return cls(
            mac=word_to_mac(mac),
            address=ip_address(address),
            port=int.from_bytes(port, "big") or None,
            state=BackendCode(state),
            generation=generation,
            slot_first=first,
            slot_count=count,
            interface=interface,
            weight=weight,
            next_hop=ip_address(hop),
            next_neighbour=neighbour,
            mac_is_fixed=bool(fixed),
            service=service,
            local=local,
            tag=tag,
        )


_BACKEND: Final = {
    IPV4: struct.Struct("=Q4sII2sHHBBBBBB4s4s24x"),
    IPV6: struct.Struct("=Q16sII2sHHBBBBBB4s16s"),
}


class ClientKey(NamedTuple):
    """``struct client_key``. A reservation has service port 0: any. ``number`` is the service's."""

    client: Address
    client_port: int
    service: Address
    service_port: int
    number: int = 0

    @property
    def protocol(self) -> Protocol:
        """That of the service."""
        return protocol_of(self.number)

    def pack(self) -> bytes:
        """The 16 or 40 bytes of the record."""
        return _CLIENT_KEY[self.client.version].pack(
            self.client.packed,
            self.service.packed,
            port_bytes(self.client_port),
            port_bytes(self.service_port),
            self.protocol.number,
            self.number,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The record in ``data``."""
        layout = _by_size(_CLIENT_KEY, data)
        client, service, client_port, service_port, _, number = layout.unpack(data)
        return cls(
            ip_address(client),
            int.from_bytes(client_port, "big"),
            ip_address(service),
            int.from_bytes(service_port, "big"),
            number,
        )


_CLIENT_KEY: Final = {
    IPV4: struct.Struct("=4s4s2s2sBB2x"),
    IPV6: struct.Struct("=16s16s2s2sBB2x"),
}


class ClientValue(NamedTuple):
    """``struct client_value``."""

    nat_port: int
    backend: int

    def pack(self) -> bytes:
        """The 8 bytes of the record."""
        return _CLIENT_VALUE.pack(port_bytes(self.nat_port), self.backend)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The record in ``data``."""
        port, backend = _CLIENT_VALUE.unpack(data)
        return cls(int.from_bytes(port, "big"), backend)


_CLIENT_VALUE: Final = struct.Struct("=2sH4x")


class Owner(NamedTuple):
    """The owner word of ``struct flow``; ``seen`` is in ticks."""

    seen: int
    backend: int
    state: FlowCode
    generation: int

    def word(self) -> int:
        """The 64-bit number."""
        return self.seen | self.backend << 32 | self.state << 48 | self.generation << 56

    @classmethod
    def of(cls, word: int) -> Self:
        """The parts of ``word``."""
        return cls(word & 0xFFFFFFFF, word >> 32 & 0xFFFF, FlowCode(word >> 48 & 0xFF), word >> 56)


class FlowRecord(NamedTuple):
    """``struct flow``; ``service`` is the number of the one that was dialled."""

    owner: Owner
    client: Address
    client_port: int
    service_port: int
    client_mac: bytes | None
    interface: int
    tags: bytes = bytes(8)
    service: int = 0

    def pack(self) -> bytes:
        """The 32 or 64 bytes of the record."""
        return _FLOW[self.client.version].pack(
            self.owner.word(),
            self.client_mac or bytes(6),
            self.interface,
            self.service,
            self.tags,
            self.client.packed,
            port_bytes(self.client_port),
            port_bytes(self.service_port),
        )

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The record in ``data``."""
        layout = _by_size(_FLOW, data)
        owner, mac, interface, service, tags, client, client_port, service_port = layout.unpack(
            data
        )
        return cls(
            Owner.of(owner),
            ip_address(client),
            int.from_bytes(client_port, "big"),
            int.from_bytes(service_port, "big"),
            mac if any(mac) else None,
            interface,
            tags,
            service,
        )


_FLOW: Final = {
    IPV4: struct.Struct("=Q6sBB8s4s2s2s"),
    IPV6: struct.Struct("=Q6sBB8s16s2s2s20x"),
}


class BucketEntry(NamedTuple):
    """One place of ``struct address_bucket``; its part of ``reverse_lookup`` has ``records``."""

    address: Address
    protocol: Protocol
    local: int
    first: int
    records: int


class AddressBucket(NamedTuple):
    """``struct address_bucket``: up to four places."""

    entries: tuple[BucketEntry, ...]
    continues: bool
    version: int = IPV4

    def pack(self) -> bytes:
        """The 64 or 128 bytes of the record."""
        full = (*self.entries, *[None] * (BUCKET_SIZE - len(self.entries)))
        addresses = (item.address.packed if item else b"" for item in full)
        slots = (number for item in full for number in (item[3:] if item else (0, 0)))
        protocols = (item.protocol.number if item else 0 for item in full)
        locals_ = (item.local if item else 0 for item in full)
        return _ADDRESS_BUCKET[self.version].pack(
            *addresses, *slots, *protocols, *locals_, self.continues
        )


BUCKET_SIZE: Final = 4
_ADDRESS_BUCKET: Final = {
    IPV4: struct.Struct("=4s4s4s4s8I8BI4x"),
    IPV6: struct.Struct("=16s16s16s16s8I8BI20x"),
}


class InterfaceRecord(NamedTuple):
    """``struct interface``."""

    mac: bytes | None
    ifindex: int
    redirect: bool
    mtu: int

    def pack(self) -> bytes:
        """The 24 bytes of the record."""
        return _INTERFACE.pack(mac_to_word(self.mac), self.ifindex, self.redirect, self.mtu)


_INTERFACE: Final = struct.Struct("=QIII4x")


class StatsRecord(NamedTuple):
    """``struct backend_stats``."""

    packets_in: int
    bytes_in: int
    packets_out: int
    bytes_out: int
    refused: int = 0

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The record in ``data``, summed over the CPUs that it holds one after the other."""
        return cls(*(sum(column) for column in zip(*_STATS.iter_unpack(data), strict=True)))


_STATS: Final = struct.Struct("=QQQQQ")
NO_TRAFFIC: Final = StatsRecord(0, 0, 0, 0)


class ServiceRecord(NamedTuple):
    """``struct service``.

    Attributes:
        table: Which Maglev table counts.
        local: The number of the address that clients dial.
        hash: What is hashed, as the program numbers it.
        timeouts: Idle ticks.
    """

    table: int
    local: int
    hash: int
    timeouts: tuple[int, int, int, int]

    def pack(self) -> bytes:
        """The 24 bytes of the record."""
        return _SERVICE.pack(self.table, self.local, self.hash, *self.timeouts)

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The record in ``data``."""
        table, local, kind, *timeouts = _SERVICE.unpack(data)
        unreplied, answered, transitory, established = timeouts
        return cls(table, local, kind, (unreplied, answered, transitory, established))


_SERVICE: Final = struct.Struct("=IBB2xIIII")

_ADDRESSED: Final = {
    "backend": _BACKEND,
    "client_key": _CLIENT_KEY,
    "flow": _FLOW,
    "address_bucket": _ADDRESS_BUCKET,
}

SIZES: Final = {
    version: {
        **{name: layouts[version].size for name, layouts in _ADDRESSED.items()},
        "client_value": _CLIENT_VALUE.size,
        "interface": _INTERFACE.size,
        "service": _SERVICE.size,
        "backend_stats": _STATS.size,
    }
    for version in (IPV4, IPV6)
}
"""Bytes of each record, by IP version and the name of its C structure."""

LAYOUTS: Final = {
    version: {name: layouts[version] for name, layouts in _ADDRESSED.items()}
    for version in (IPV4, IPV6)
}
"""The layouts of the records with addresses, for whoever reads or writes very many."""
