"""Packets made by scapy, which computes every checksum that we compare with."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether

OUR_MAC = "02:00:00:00:00:01"
CLIENT_MAC = "02:00:00:00:00:22"
BACKEND_MAC = "02:00:00:00:01:00"
"""The MAC address of backend number 0; number n has n in the last two bytes."""

SERVICE = "172.11.0.1"
CLIENT = "172.11.0.22"
SERVICE6 = "2001:db8::1"
CLIENT6 = "2001:db8::22"
SERVICE_OF = {4: SERVICE, 6: SERVICE6}


def backend_mac(number: int) -> str:
    """What backend ``number`` of the harness is reached at."""
    return f"02:00:00:00:{1 + number // 256:02x}:{number % 256:02x}"


def _frame(layers: Any, ip: dict[str, Any], ether: dict[str, Any] | None) -> bytes:
    """Layers in IP and Ethernet, by default as a client sends them; "then" is put between."""
    frame = Ether(**{"src": CLIENT_MAC, "dst": OUR_MAC, **(ether or {})})
    then = ip.pop("then", None)
    dst = ip.pop("dst") or SERVICE_OF[6 if ":" in ip["src"] else 4]
    if ":" in dst:
        header: Any = IPv6(**{"hlim": 64, **ip, "dst": dst})
    else:
        header = IP(**{"ttl": 64, "id": 0x1234, **ip, "dst": dst})
    return bytes(frame / (header if then is None else header / then) / layers)


def network(frame: Any) -> Any:
    """The IP layer of a frame, of either version."""
    return frame[IPv6] if IPv6 in frame else frame[IP]


def udp(
    payload: bytes = b"hello",
    *,
    src: str = CLIENT,
    sport: int = 5555,
    dst: str | None = None,
    dport: int = 53,
    ether: dict[str, Any] | None = None,
    ip: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
) -> bytes:
    """A datagram, by default from the client to the service, as it lies on the wire."""
    layer = UDP(**{"sport": sport, "dport": dport, **(header or {})})
    return _frame(layer / payload, {"src": src, "dst": dst, **(ip or {})}, ether)


def tcp(
    flags: str,
    payload: bytes = b"",
    *,
    src: str = CLIENT,
    sport: int = 5555,
    dst: str | None = None,
    dport: int = 53,
    ether: dict[str, Any] | None = None,
    ip: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
) -> bytes:
    """A segment with these flags, by default from the client to the service."""
    fields = {"sport": sport, "dport": dport, "seq": 1000, "ack": 2000, **(header or {})}
    layer = TCP(flags=flags, **fields)
    return _frame(layer / payload, {"src": src, "dst": dst, **(ip or {})}, ether)


def icmp_error(about: bytes, **fields: Any) -> bytes:
    """A port-unreachable error to the service that quotes 28 bytes of what it sent."""
    frame = Ether(src=CLIENT_MAC, dst=OUR_MAC) / IP(src="192.0.2.9", dst=SERVICE)
    return bytes(frame / ICMP(**{"type": 3, "code": 3, **fields}) / about[14:42])


def icmp6_error(about: bytes, layer: Any = None, **ip: Any) -> bytes:
    """An ICMPv6 error, by default that a port is unreachable, that quotes what was sent."""
    frame = Ether(src=CLIENT_MAC, dst=OUR_MAC) / IPv6(
        **{"src": "2001:db8:9::9", "dst": SERVICE6, **ip}
    )
    return bytes(frame / (layer or ICMPv6DestUnreach(code=4)) / about[14:1246])


def readdressed(packet: bytes, *, keep_checksum: int | None = None, **fields: Any) -> bytes:
    """``packet`` as a NAT should send it on, checksums computed anew.

    Args:
        packet: What came in.
        keep_checksum: A checksum of UDP or TCP to have instead of the right one.
        fields: src, dst, sport, dport, smac, dmac; what is left out stays.
    """
    frame = Ether(packet)
    datagram = frame[TCP] if TCP in frame else frame[UDP]
    address = network(frame)
    frame.src = fields.get("smac", frame.src)
    frame.dst = fields.get("dmac", frame.dst)
    address.src = fields.get("src", address.src)
    address.dst = fields.get("dst", address.dst)
    datagram.sport = fields.get("sport", datagram.sport)
    datagram.dport = fields.get("dport", datagram.dport)
    if IPv6 in frame:
        address.hlim -= 1
    else:
        address.ttl -= 1
        del address.chksum
    if keep_checksum is None:
        del datagram.chksum
    else:
        datagram.chksum = keep_checksum
    return bytes(frame)


def udp_checksum(packet: bytes) -> int:
    """The UDP or TCP checksum that stands in ``packet``."""
    frame = Ether(packet)
    return int((frame[TCP] if TCP in frame else frame[UDP]).chksum)


def pseudo_sum(packet: bytes) -> int:
    """The folded sum of the pseudo-header: what a sender leaves to its device."""
    frame = Ether(packet)
    addresses = network(frame)
    layer = frame[TCP] if TCP in frame else frame[UDP]
    pseudo = b"".join(ip_address(item).packed for item in (addresses.src, addresses.dst))
    pseudo += bytes((0, 6 if TCP in frame else 17)) + len(bytes(layer)).to_bytes(2, "big")
    total = sum(high << 8 | low for high, low in zip(pseudo[::2], pseudo[1::2], strict=True))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def arp_reply(address: str, mac: str, *, source: str | None = None, op: int = 2) -> bytes:
    """An answer to ARP for ``address``, padded as Ethernet wants."""
    frame = Ether(src=source or mac, dst=OUR_MAC) / ARP(
        op=op, hwsrc=mac, psrc=address, hwdst=OUR_MAC, pdst=SERVICE
    )
    return bytes(frame).ljust(60, b"\0")


def advertisement(address: str, mac: str, *, source: str | None = None, **fields: Any) -> bytes:
    """An answer to neighbour discovery for ``address``."""
    options = {"R": 0, "S": 1, "O": 1, **fields}
    frame = Ether(src=source or mac, dst=OUR_MAC) / IPv6(
        src=address, dst=SERVICE6, hlim=options.pop("hlim", 255)
    )
    return bytes(frame / ICMPv6ND_NA(tgt=address, **options) / ICMPv6NDOptDstLLAddr(lladdr=mac))


def solicitation(address: str, mac: str) -> bytes:
    """A question of ``address`` for the service."""
    frame = Ether(src=mac, dst="33:33:ff:00:00:01") / IPv6(
        src=address, dst="ff02::1:ff00:1", hlim=255
    )
    return bytes(frame / ICMPv6ND_NS(tgt=SERVICE6) / ICMPv6NDOptSrcLLAddr(lladdr=mac))
