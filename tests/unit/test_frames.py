"""Frames, compared with what scapy makes and reads."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from xdplb import frames
from xdplb.model import Endpoint, Protocol

MAC = bytes.fromhex("02aabbccddee")
V4 = (Endpoint(ip_address("198.51.100.7"), 5555), Endpoint(ip_address("192.0.2.1"), 53))
V6 = (Endpoint(ip_address("2001:db8:7::7"), 5555), Endpoint(ip_address("2001:db8::1"), 53))


def _checksums(packet: Any) -> list[int | None]:
    found = []
    layer = packet
    while layer:
        found.append(getattr(layer, "chksum", None))
        layer = layer.payload
    return found


@pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("opens", [True, False])
def test_what_is_made_is_as_scapy_reads_and_would_make_it(
    ends: tuple[Endpoint, Endpoint], protocol: Protocol, *, opens: bool
) -> None:
    data = frames.make(*ends, protocol, MAC, opens=opens)
    packet: Any = Ether(data)
    assert bytes.fromhex(packet.dst.replace(":", "")) == MAC
    again = packet.copy()
    layer = again
    while layer:
        if hasattr(layer, "chksum"):
            del layer.chksum
        layer = layer.payload
    assert _checksums(Ether(bytes(again))) == _checksums(packet)
    transport = packet[UDP if protocol is Protocol.UDP else TCP]
    assert (transport.sport, transport.dport) == (5555, 53)
    if protocol is Protocol.TCP:
        assert str(transport.flags) == ("S" if opens else "A")
    frame = frames.read(data)
    assert f"{frame}" == f"{ends[0]} > {ends[1]} {protocol}"


def _ether(*layers: Any) -> bytes:
    packet = Ether(src="02:00:00:00:00:01", dst="02:aa:bb:cc:dd:ee")
    for layer in layers:
        packet /= layer
    return bytes(packet)


IP4 = IP(src="198.51.100.7", dst="192.0.2.1")
IP6 = IPv6(src="2001:db8:7::7", dst="2001:db8::1")
PLAIN = "198.51.100.7 > 192.0.2.1"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_ether(IP4, UDP(sport=1, dport=2)), "198.51.100.7:1 > 192.0.2.1:2 udp"),
        (
            _ether(Dot1Q(vlan=5), IP4, TCP(sport=1, dport=2)),
            "198.51.100.7:1 > 192.0.2.1:2 tcp vlan 5",
        ),
        (
            _ether(Dot1AD(vlan=7), Dot1Q(vlan=5), IP6, UDP(sport=1, dport=2)),
            "[2001:db8:7::7]:1 > [2001:db8::1]:2 udp vlan 7 vlan 5",
        ),
        (_ether(IP4, ICMP()), f"{PLAIN} icmp"),
        (
            _ether(IP(src="198.51.100.7", dst="192.0.2.1", proto=89), Raw(b"x" * 8)),
            f"{PLAIN} protocol 89",
        ),
        (
            _ether(IP(src="198.51.100.7", dst="192.0.2.1", frag=3, proto=17), Raw(b"x" * 8)),
            f"{PLAIN} udp",
        ),
        (
            _ether(
                IP(src="198.51.100.7", dst="192.0.2.1", options=[IPOption_NOP()] * 4),
                UDP(sport=1, dport=2),
            ),
            "198.51.100.7:1 > 192.0.2.1:2 udp",
        ),
        (
            _ether(IP6, IPv6ExtHdrDestOpt(), UDP(sport=1, dport=2)),
            "[2001:db8:7::7]:1 > [2001:db8::1]:2 udp",
        ),
        (
            _ether(IP6, IPv6ExtHdrFragment(offset=0, m=1), UDP(sport=1, dport=2)),
            "[2001:db8:7::7]:1 > [2001:db8::1]:2 udp",
        ),
        (
            _ether(IP6, IPv6ExtHdrFragment(offset=3, nh=17), Raw(b"x" * 8)),
            "2001:db8:7::7 > 2001:db8::1 udp",
        ),
        (_ether(ARP()), "arp"),
        (_ether(Raw(b""))[:14], "type 0x9000"),
        (b"", "type 0x0000"),
        (_ether(IP4)[:20], "type 0x0800"),
        (_ether(IP4, UDP())[:36], f"{PLAIN} udp"),
    ],
)
def test_what_is_read_is_what_scapy_made(data: bytes, words: str) -> None:
    assert f"{frames.read(data)}" == words
