"""nftables NAT as an oracle: the same frames through it and through xdplb, and what comes out."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from bench.systems import start_nft
from lab import SERVICE, SERVICE6, Lab, run
from packets import CLIENT6, network, udp
from scapy.layers.inet import IP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import Ether

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKEND, BACKEND6 = "172.11.0.20", "2001:db8::20"
PORT = 7777
SAME = ("version", "ihl", "tos", "len", "flags", "frag", "ttl", "proto", "src", "dst", "options")
FRAMES: dict[str, dict[str, Any]] = {
    "plain": {},
    "empty": {"payload": b""},
    "odd": {"payload": b"abc"},
    "full": {"payload": bytes(range(256)) * 5 + bytes(192)},
    "no checksum": {"header": {"chksum": 0}},
    "DSCP and ECN": {"ip": {"tos": 0xBB}},
    "may be fragmented": {"ip": {"flags": 0}},
    "may not be": {"ip": {"flags": "DF"}},
    "long way behind it": {"ip": {"ttl": 2}},
    "record route": {"ip": {"options": [IPOption_RR(length=7, pointer=4)]}},
    "wrong checksum": {"header": {"chksum": 0x1234}},
    "length beyond the packet": {"header": {"len": 300}},
    "length below 8": {"header": {"len": 5}},
    "cut short": {"ip": {"len": 27}},
    "bad header checksum": {"ip": {"chksum": 0x4321}},
    "loopback source": {"src": "127.0.0.9"},
}
DIFFERENT = {
    "wrong checksum": "conntrack drops it; here it stays wrong, and the receiver drops it",
    "bad header checksum": "the kernel drops it; here it stays wrong, and the next hop drops it",
    "record route": "the kernel writes itself into the option; here options stay as they are",
}

OPTIONS = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])
FRAMES6: dict[str, dict[str, Any]] = {
    "plain": {},
    "empty": {"payload": b""},
    "odd": {"payload": b"abc"},
    "full": {"payload": bytes(range(256)) * 5 + bytes(172)},
    "DSCP and ECN": {"ip": {"tc": 0xBB}},
    "flow label": {"ip": {"fl": 0x12345}},
    "long way behind it": {"ip": {"hlim": 2}},
    "end of the way": {"ip": {"hlim": 1}},
    "hop-by-hop options": {"ip": {"then": IPv6ExtHdrHopByHop()}},
    "destination options": {"ip": {"then": OPTIONS}},
    "routing that is done": {"ip": {"then": IPv6ExtHdrRouting(segleft=0)}},
    "several headers": {"ip": {"then": IPv6ExtHdrHopByHop() / OPTIONS / OPTIONS}},
    "atomic fragment": {"ip": {"then": IPv6ExtHdrFragment(id=7)}},
    "no checksum": {"header": {"chksum": 0}},
    "wrong checksum": {"header": {"chksum": 0x1234}},
    "length beyond the packet": {"header": {"len": 300}},
    "length below 8": {"header": {"len": 5}},
    "cut short": {"ip": {"plen": 7}},
    "no next header": {"ip": {"nh": 59}},
    "loopback source": {"src": "::1"},
    "multicast source": {"src": "ff02::9"},
    "unspecified source": {"src": "::"},
    "link-local source": {"src": "fe80::9"},
    "source of IPv4": {"src": "::ffff:192.0.2.9"},
}
DIFFERENT6 = {
    "atomic fragment": "conntrack puts it together from its one part; here its header stays",
    "wrong checksum": DIFFERENT["wrong checksum"],
    "no checksum": "the kernel passes it on; here RFC 8200 8.1 is kept",
    "unspecified source": "the kernel passes it on, to be answered by nobody",
    "link-local source": "the kernel passes it on, in spite of RFC 4291 2.5.6",
    "source of IPv4": "the kernel passes on what no packet may have (RFC 4291 2.5.5.2)",
}


class Side:
    """A lab, frames in and frames out."""

    def __init__(self, stack: ExitStack) -> None:
        """Build it."""
        self.lab = stack.enter_context(Lab())
        (_, balancer), (_, outside) = self.lab.link("b", "balancer"), self.lab.link("h", "outside")
        self.macs = {"src": outside, "dst": balancer}
        for backend in (BACKEND, BACKEND6):
            self.lab.ip("b", f"neighbour replace {backend} lladdr {outside} dev balancer")
        self.wire = self.lab.packet_socket("outside")

    def send(self, options: dict[str, Any]) -> Any:
        """What comes out on the way to the backend; None for nothing."""
        fields = {"payload": b"hello", "dport": PORT, **options}
        self.wire.send(udp(**{**fields, "ether": self.macs}))
        while select.select([self.wire], [], [], 0.3)[0]:
            frame, place = self.wire.recvfrom(4096)
            if place[2] == socket.PACKET_OUTGOING:
                continue
            packet = Ether(frame)
            if UDP in packet and network(packet).dst in {BACKEND, BACKEND6}:
                return network(packet)
        return None


@pytest.fixture(scope="module")
def sides() -> Iterator[tuple[Side, Side]]:
    with ExitStack() as stack:
        ours, theirs = Side(stack), Side(stack)
        services = ("--service", SERVICE, "--service", SERVICE6)
        ours.lab.up(*services, backends=(BACKEND, BACKEND6))
        start_nft(theirs.lab.balancer, SERVICE, [BACKEND])
        start_nft(theirs.lab.balancer, SERVICE6, [BACKEND6])
        yield ours, theirs


@pytest.mark.parametrize("name", FRAMES)
def test_both_make_the_same_of_a_frame(sides: tuple[Side, Side], name: str) -> None:
    ours, theirs = (side.send(FRAMES[name]) for side in sides)
    if name in DIFFERENT:
        return
    if theirs is None:
        assert ours is None
        return
    assert ours is not None
    assert {field: ours.getfieldval(field) for field in SAME} == {
        field: theirs.getfieldval(field) for field in SAME
    }
    assert (ours[UDP].dport, ours[UDP].len) == (theirs[UDP].dport, theirs[UDP].len)
    assert bytes(ours[UDP].payload) == bytes(theirs[UDP].payload)
    for packet in (ours, theirs):
        sent = packet.chksum, packet[UDP].chksum
        if packet[UDP].chksum:
            del packet[UDP].chksum
        del packet.chksum
        again = IP(bytes(packet))
        assert (again.chksum, again[UDP].chksum) == sent


def test_where_they_differ_it_is_on_purpose(sides: tuple[Side, Side]) -> None:
    for name in ("wrong checksum", "bad header checksum"):
        ours, theirs = (side.send(FRAMES[name]) for side in sides)
        assert theirs is None, DIFFERENT[name]
        assert ours is not None
        before = (ours.chksum, ours[UDP].chksum)
        del ours.chksum, ours[UDP].chksum
        again = IP(bytes(ours))
        assert (again.chksum, again[UDP].chksum) != before, "it is still wrong"
    ours, _ = (side.send(FRAMES["record route"]) for side in sides)
    assert ours is not None
    sent = bytes(Ether(udp(**FRAMES["record route"]))[IP])
    assert bytes(ours)[20 : 4 * ours.ihl] == sent[20 : 4 * ours.ihl]


def test_the_oracle_is_nft(sides: tuple[Side, Side]) -> None:
    inside = sides[1].lab.inside("b", "nft", "list", "ruleset")
    assert "jhash" in run(*inside).stdout


@pytest.mark.parametrize("name", FRAMES6)
def test_both_make_the_same_of_an_ipv6_frame(sides: tuple[Side, Side], name: str) -> None:
    ours, theirs = (side.send({"src": CLIENT6, **FRAMES6[name]}) for side in sides)
    if name in DIFFERENT6:
        return
    if theirs is None:
        assert ours is None
        return
    assert ours is not None
    outs = [without_port(packet) for packet in (ours, theirs)]
    assert outs[0] == outs[1]


def without_port(packet: Any) -> bytes:
    """All of a packet, without the port that each NAT chooses for itself; its checksum is right."""
    sent = packet[UDP].chksum
    del packet[UDP].chksum
    assert IPv6(bytes(packet))[UDP].chksum == sent
    packet[UDP].sport = 0
    return bytes(packet)


def test_where_they_differ_over_ipv6_it_is_on_purpose(sides: tuple[Side, Side]) -> None:
    for name, reason in DIFFERENT6.items():
        ours, theirs = (side.send({"src": CLIENT6, **FRAMES6[name]}) for side in sides)
        if name == "atomic fragment":
            assert ours is not None
            assert theirs is not None
            assert IPv6ExtHdrFragment in ours, reason
            assert IPv6ExtHdrFragment not in theirs, reason
        elif name == "wrong checksum":
            assert theirs is None, reason
            assert ours is not None
            sent = ours[UDP].chksum
            del ours[UDP].chksum
            assert IPv6(bytes(ours))[UDP].chksum != sent, reason
        else:
            assert ours is None, reason
            assert theirs is not None, reason
