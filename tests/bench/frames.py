"""Packets as the benchmark's C programs want them: what is common, and what differs."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import ClassVar, Final

HEAD: Final = struct.Struct("=24s2s6x")
SERVICE: Final = IPv4Address("172.11.0.1")
_FIRST_CLIENT: Final = int(IPv4Address("100.64.0.0"))
_CLIENT_PORTS: Final = 2
SERVICE_PORT: Final = 7777
_IP_HEADER: Final = 20
_UDP_HEADER: Final = 8
_ETH_HEADER: Final = 14


def mac_bytes(text: str) -> bytes:
    """A MAC address, ``02:00:...``, as it lies in a frame."""
    return bytes.fromhex(text.replace(":", ""))


def fold(total: int) -> int:
    """One's complement sum in 16 bits (RFC 1071)."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def words(data: bytes) -> int:
    """The sum of the 16-bit words of ``data``, of even length."""
    return sum(struct.unpack(f">{len(data) // 2}H", data))


@dataclass(frozen=True, slots=True)
class Template:
    """What all packets of a run have in common.

    Attributes:
        source, destination: MAC addresses, six bytes each.
        payload: Bytes of UDP payload, all 0.
    """

    source: bytes
    destination: bytes
    payload: int = 18

    def frame(self) -> bytes:
        """A frame of the right length, to be filled in."""
        return bytes(_ETH_HEADER + _IP_HEADER + _UDP_HEADER + self.payload)

    @property
    def udp_length(self) -> int:
        """The length in the UDP header."""
        return _UDP_HEADER + self.payload

    def start(self) -> bytes:
        """The IP header up to its checksum: no options, TTL 64, DF."""
        length = _IP_HEADER + self.udp_length
        return struct.pack(">BBHHHBB", 0x45, 0, length, 0, 0x4000, 64, 17)

    def fill(self, item: Item) -> bytes:
        """The whole frame of one packet."""
        header = self.destination + self.source + b"\x08\x00" + self.start()
        data = item.pack()
        udp = data[8:12] + self.udp_length.to_bytes(2, "big") + data[14:16]
        return header + data[12:14] + data[:8] + udp + bytes(self.payload)

    def head(self) -> bytes:
        """``struct head``."""
        first = self.destination + self.source + b"\x08\x00" + self.start()
        return HEAD.pack(first, self.udp_length.to_bytes(2, "big"))


@dataclass(frozen=True, slots=True)
class Item:
    """What differs from packet to packet; checksums as 16-bit numbers of the wire."""

    source: IPv4Address
    source_port: int
    destination: IPv4Address
    destination_port: int
    ip_check: int = 0
    udp_check: int = 0x1357

    SIZE: ClassVar[int] = 16

    def pack(self) -> bytes:
        """``struct item``."""
        return struct.pack(
            ">4s4sHHHH",
            self.source.packed,
            self.destination.packed,
            self.source_port,
            self.destination_port,
            self.ip_check,
            self.udp_check,
        )

    def summed(self, template: Template, *, partial: bool = False) -> Item:
        """The same with checksums: whole, or as a sender on veth leaves it."""
        addresses = words(self.source.packed + self.destination.packed)
        pseudo = addresses + 17 + template.udp_length
        ports = self.source_port + self.destination_port + template.udp_length
        return Item(
            self.source,
            self.source_port,
            self.destination,
            self.destination_port,
            0xFFFF ^ fold(words(template.start()) + addresses),
            fold(pseudo) if partial else 0xFFFF ^ fold(pseudo + ports) or 0xFFFF,
        )


def client(number: int) -> tuple[IPv4Address, int]:
    """One of up to eight million clients, two ports to an address."""
    return (
        IPv4Address(_FIRST_CLIENT + number // _CLIENT_PORTS),
        20000 + number % _CLIENT_PORTS,
    )


def requests(first: int, count: int, destination: IPv4Address = SERVICE) -> list[Item]:
    """What ``count`` clients send to the service, in no order."""
    items = [
        Item(*client(number), destination, SERVICE_PORT) for number in range(first, first + count)
    ]
    random.Random(1).shuffle(items)
    return items
