"""nftables NAT as an oracle: the same frames through it and through xdplb, and what comes out."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from bench.systems import start_nft
from lab import SERVICE, Lab, run
from packets import udp
from scapy.layers.inet import IP, UDP, IPOption_RR
from scapy.layers.l2 import Ether

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKEND = "172.11.0.20"
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


class Side:
    """A lab, frames in and frames out."""

    def __init__(self, stack: ExitStack) -> None:
        """Build it."""
        self.lab = stack.enter_context(Lab())
        (_, balancer), (_, outside) = self.lab.link("b", "balancer"), self.lab.link("h", "outside")
        self.macs = {"src": outside, "dst": balancer}
        self.lab.ip("b", f"neighbour replace {BACKEND} lladdr {outside} dev balancer")
        self.wire = self.lab.packet_socket("outside")

    def send(self, options: dict[str, Any]) -> IP | None:
        """What comes out on the way to the backend; None for nothing."""
        fields = {"payload": b"hello", "dport": PORT, **options}
        self.wire.send(udp(**{**fields, "ether": self.macs}))
        while select.select([self.wire], [], [], 0.3)[0]:
            frame, place = self.wire.recvfrom(4096)
            if place[2] == socket.PACKET_OUTGOING:
                continue
            packet = Ether(frame)
            if IP in packet and packet[IP].dst == BACKEND:
                datagram: IP = packet[IP]
                return datagram
        return None


@pytest.fixture(scope="module")
def sides() -> Iterator[tuple[Side, Side]]:
    with ExitStack() as stack:
        ours, theirs = Side(stack), Side(stack)
        ours.lab.up(backends=(BACKEND,))
        start_nft(theirs.lab.balancer, SERVICE, [BACKEND])
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
