"""Ethernet frames as far as xdplb speaks of them: what one says of itself, and how to make one.

Sources: IEEE 802.1Q, RFC 791, RFC 8200, RFC 768, RFC 9293, RFC 792, RFC 4443.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from xdplb.model import IPV4, IPV6, Protocol, bracketed

if TYPE_CHECKING:
    from xdplb.model import Address, Endpoint

_ETHERTYPES: Final = {IPV4: 0x0800, IPV6: 0x86DD}
_TAGS: Final = frozenset({0x8100, 0x88A8})
_OTHER_TYPES: Final = {0x0806: "arp"}
_TAG_LENGTH: Final = 4
_IPV4_LENGTH: Final = 20
_IPV6_LENGTH: Final = 40
_PORTS_LENGTH: Final = 4
_MORE_OFFSET: Final = 0x1FFF
_EXTENSIONS: Final = frozenset({0, 43, 60})
_FRAGMENT: Final = 44
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}
_HAVE_PORTS: Final = frozenset({6, 17})
_SYN: Final = 0x02
_ACK: Final = 0x10
_TTL: Final = 64


@dataclass(frozen=True, slots=True)
class Frame:
    """What a frame says of itself; what it does not say, or not clearly, is None.

    Attributes:
        protocol: ``udp``, ``tcp``, ``icmp``, ``arp``, or its number.
        vlans: The numbers of its VLANs, the outermost first.
    """

    protocol: str
    source: Address | None = None
    source_port: int | None = None
    destination: Address | None = None
    destination_port: int | None = None
    vlans: tuple[int, ...] = ()

    def __str__(self) -> str:
        """``SOURCE > DESTINATION PROTOCOL``."""
        vlans = "".join(f" vlan {number}" for number in self.vlans)
        if self.source is None or self.destination is None:
            return f"{self.protocol}{vlans}"
        ends = (
            _end(self.source, self.source_port),
            _end(self.destination, self.destination_port),
        )
        return f"{' > '.join(ends)} {self.protocol}{vlans}"


def _end(address: Address, port: int | None) -> str:
    return f"{address}" if port is None else f"{bracketed(address)}:{port}"


def read(data: bytes) -> Frame:
    """Read the headers of a frame, or of the beginning of one."""
    at, vlans = 12, []
    kind = _number(data, at)
    while kind in _TAGS:
        vlans.append(_number(data, at + 2) & 0xFFF)
        at += _TAG_LENGTH
        kind = _number(data, at)
    rest = data[at + 2 :]
    if kind == _ETHERTYPES[IPV4] and len(rest) >= _IPV4_LENGTH:
        return _read_ipv4(rest, tuple(vlans))
    if kind == _ETHERTYPES[IPV6] and len(rest) >= _IPV6_LENGTH:
        return _read_ipv6(rest, tuple(vlans))
    return Frame(_OTHER_TYPES.get(kind, f"type {kind:#06x}"), vlans=tuple(vlans))


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big")


def _read_ipv4(ip: bytes, vlans: tuple[int, ...]) -> Frame:
    payload = b"" if _number(ip, 6) & _MORE_OFFSET else ip[(ip[0] & 15) * 4 :]
    return _frame(ip[9], ip_address(ip[12:16]), ip_address(ip[16:20]), payload, vlans)


def _read_ipv6(ip: bytes, vlans: tuple[int, ...]) -> Frame:
    protocol, payload = ip[6], ip[_IPV6_LENGTH:]
    while protocol in _EXTENSIONS and len(payload) > 1:
        protocol, payload = payload[0], payload[(payload[1] + 1) * 8 :]
    if protocol == _FRAGMENT and len(payload) >= 8:  # noqa: PLR2004 - its header (RFC 8200 4.5)
        is_first = not _number(payload, 2) >> 3
        protocol, payload = payload[0], payload[8:] if is_first else b""
    return _frame(protocol, IPv6Address(ip[8:24]), IPv6Address(ip[24:40]), payload, vlans)


def _frame(
    protocol: int, source: Address, destination: Address, payload: bytes, vlans: tuple[int, ...]
) -> Frame:
    has_ports = protocol in _HAVE_PORTS and len(payload) >= _PORTS_LENGTH
    return Frame(
        protocol=_PROTOCOLS.get(protocol, f"protocol {protocol}"),
        source=source,
        source_port=_number(payload, 0) if has_ports else None,
        destination=destination,
        destination_port=_number(payload, 2) if has_ports else None,
        vlans=vlans,
    )


def make(
    client: Endpoint, service: Endpoint, protocol: Protocol, mac: bytes, *, opens: bool = True
) -> bytes:
    """A frame without payload from ``client`` to ``service``, with checksums that are right.

    Args:
        client: Who sends it.
        service: Of the same IP version.
        protocol: UDP or TCP.
        mac: The six bytes that it is sent to.
        opens: A TCP segment is a SYN; else it is one of an established connection.
    """
    version = client.address.version
    ports = struct.pack(">HH", client.port, service.port)
    if protocol is Protocol.UDP:
        head, tail = ports + struct.pack(">H", 8), b""
    else:
        flags = _SYN if opens else _ACK
        head, tail = ports + struct.pack(">IIBBH", 1, 0, 5 << 4, flags, 65535), bytes(2)
    length = len(head) + 2 + len(tail)
    pseudo = _pseudo(client.address, service.address, protocol, length)
    check = _checksum(pseudo + head + bytes(2) + tail) or 0xFFFF
    payload = head + struct.pack(">H", check) + tail
    sender = bytes((2, 0, 0, 0, 0, 1))  # some local one (IEEE 802, 8.2)
    eth = mac + sender + struct.pack(">H", _ETHERTYPES[version])
    return eth + _ip(client.address, service.address, protocol, length) + payload


def _ip(source: Address, destination: Address, protocol: Protocol, length: int) -> bytes:
    addresses = source.packed + destination.packed
    if source.version == IPV6:
        return struct.pack(">IHBB", 6 << 28, length, protocol.number, _TTL) + addresses
    total = _IPV4_LENGTH + length
    head = struct.pack(">BBHHHBB", 0x45, 0, total, 0, 0x4000, _TTL, protocol.number)
    check = _checksum(head + bytes(2) + addresses)
    return head + struct.pack(">H", check) + addresses


def _pseudo(source: Address, destination: Address, protocol: Protocol, length: int) -> bytes:
    layout = ">xBH" if source.version == IPV4 else ">I3xB"
    numbers = (protocol.number, length) if source.version == IPV4 else (length, protocol.number)
    return source.packed + destination.packed + struct.pack(layout, *numbers)


def _checksum(data: bytes) -> int:
    """The internet checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
