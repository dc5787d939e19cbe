"""Packets that nobody would send: seeded and bounded here, as long as you like in ``make fuzz``.

Whatever comes, the program must say why it did what it did, must leave alone what it does
not send, must change nothing but the fields that a NAT changes, and must not break a
checksum that was right.
"""

from __future__ import annotations

import os
import random
import struct
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import (
    XDP_ABORTED,
    XDP_DROP,
    XDP_PASS,
    XDP_TX,
    Loaded,
    Result,
    make_request,
    reservation,
)
from packets import CLIENT, arp_reply, backend_mac, icmp_error, pseudo_sum, tcp, udp
from scapy.layers.inet import IPOption_RR

from xdplb.model import Hash, Mode, PortRange, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKETS = int(os.environ.get("XDPLB_FUZZ_PACKETS", "8000"))
SEED = int(os.environ.get("XDPLB_FUZZ_SEED", "1"))
PORTS = (PortRange(53, 53), PortRange(7000, 7100))
ETH, IPV4, UDP, TCP, ICMP = 14, 0x0800, 17, 6, 1
WITH: dict[str, dict[str, Any]] = {
    "udp": {},
    "generic": {"mode": Mode.GENERIC},
    "both": {"protocols": tuple(Protocol), "ports": PORTS, "hash": Hash.FIVE_TUPLE},
    "reserved": {"reservations": (reservation(CLIENT, 5555, 6666),), "ports": PORTS},
}


def total(data: bytes) -> int:
    """One's complement sum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    value: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while value >> 16:
        value = (value & 0xFFFF) + (value >> 16)
    return value


class View:
    """A frame that claims to hold IPv4, read without any mercy for what it claims."""

    def __init__(self, frame: bytes) -> None:
        """Look at ``frame``."""
        self.header = (frame[ETH] & 15) * 4
        self.length = int.from_bytes(frame[ETH + 2 : ETH + 4], "big")
        self.ip = frame[ETH : ETH + self.header]
        self.protocol = frame[ETH + 9]
        self.l4 = frame[ETH + self.header : ETH + self.length]
        self.is_tail = bool(int.from_bytes(frame[ETH + 6 : ETH + 8], "big") & 0x1FFF)
        self.is_fragment = bool(int.from_bytes(frame[ETH + 6 : ETH + 8], "big") & 0x3FFF)

    @property
    def ip_is_right(self) -> bool:
        """The checksum of the IP header."""
        return total(self.ip) == 0xFFFF

    @property
    def l4_is_right(self) -> bool:
        """The checksum of UDP or TCP; that of UDP may be missing."""
        data = self.l4
        if self.protocol == UDP:
            data = data[: int.from_bytes(data[4:6], "big")]
            if data[6:8] == b"\0\0":
                return True
        if self.protocol == ICMP:
            return total(data) == 0xFFFF
        pseudo = self.ip[12:20] + struct.pack(">HH", self.protocol, len(data))
        return total(pseudo + data) == 0xFFFF

    @property
    def l4_is_partial(self) -> bool:
        """Whether the checksum is only that of the pseudo-header."""
        place = 6 if self.protocol == UDP else 16
        size = int.from_bytes(self.l4[4:6], "big") if self.protocol == UDP else len(self.l4)
        pseudo = total(self.ip[12:20] + struct.pack(">HH", self.protocol, size))
        return int.from_bytes(self.l4[place : place + 2], "big") == pseudo


def named_fields(before: View, verdict: str) -> set[int]:
    """The places in a frame that a NAT may change."""
    places = {*range(12), ETH + 8, ETH + 10, ETH + 11, *range(ETH + 12, ETH + 20)}
    l4 = ETH + before.header
    if before.is_fragment:
        places |= {ETH + 4, ETH + 5}
    if verdict in {"forward", "return"} and not before.is_tail:
        check = l4 + (6 if before.protocol == UDP else 16)
        places |= {*range(l4, l4 + 4), check, check + 1}
    if verdict in {"forward_error", "return_error"}:
        places |= {*range(l4 + 2, l4 + 4), *range(l4 + 8, l4 + 8 + 60 + 20)}
    return places


def check(packet: bytes, result: Result, *, generic: bool) -> None:
    """All that must hold, whatever the packet was."""
    assert result.action != XDP_ABORTED
    if result.verdict.startswith(("pass", "drop")):
        assert result.action == (XDP_PASS if result.verdict.startswith("pass") else XDP_DROP)
        if result.action == XDP_PASS:
            assert result.packet == packet
        return
    assert result.action == XDP_TX
    after = View(result.packet)
    if result.verdict == "reply_ttl":
        assert after.ip_is_right
        assert after.l4_is_right
        assert len(result.packet) <= ETH + 28 + 68
        return
    before = View(packet)
    assert len(result.packet) == len(packet)
    changed = {
        place for place, (a, b) in enumerate(zip(packet, result.packet, strict=True)) if a != b
    }
    assert changed <= named_fields(before, result.verdict)
    assert result.packet[ETH + 8] == packet[ETH + 8] - 1
    assert after.ip_is_right == before.ip_is_right
    if before.is_fragment or len(before.l4) < 8:
        return
    if before.l4_is_partial and before.protocol != ICMP:
        assert after.l4_is_partial if generic and not before.l4_is_right else after.l4_is_right
    else:
        assert after.l4_is_right == before.l4_is_right


def seeds(balancer: Loaded) -> list[bytes]:
    """Packets that mean something, to begin with."""
    sent = [udp(), udp(b"", sport=6000), udp(b"x" * 100, dport=7050), udp(header={"chksum": 0})]
    sent.append(udp(b"record", ip={"options": [IPOption_RR(length=7, pointer=8)]}))
    sent.append(udp(b"y" * 33, header={"chksum": pseudo_sum(udp(b"y" * 33))}))
    sent += [
        tcp(flags, payload) for flags in ("S", "A", "PA", "FA", "R") for payload in (b"", b"z" * 50)
    ]
    sent += [udp(b"f" * 800, ip={"flags": "MF"}), udp(b"t" * 64, ip={"frag": 101})]
    answers, errors = [], []
    for packet in sent[:8]:
        result = balancer.run(packet)
        if result.verdict != "forward":
            continue
        errors.append(icmp_error(result.packet))
        out = View(result.packet)
        address = ".".join(str(byte) for byte in out.ip[16:20])
        sport = int.from_bytes(out.l4[2:4], "big")
        dport = int.from_bytes(out.l4[:2], "big")
        maker: Any = udp if out.protocol == UDP else (lambda data, **more: tcp("SA", data, **more))
        answers.append(maker(b"answer", src=address, sport=sport, dport=dport))
        errors.append(icmp_error(balancer.run(answers[-1]).packet))
    return [*sent, *answers, *errors, arp_reply("172.11.0.20", backend_mac(0))]


def mend(packet: bytearray) -> None:
    """Put the IP checksum right again, so that more packets get further."""
    if len(packet) < ETH + 20:
        return
    header = (packet[ETH] & 15) * 4
    packet[ETH + 10 : ETH + 12] = b"\0\0"
    value = 0xFFFF ^ total(bytes(packet[ETH : ETH + header]))
    packet[ETH + 10 : ETH + 12] = value.to_bytes(2, "big")


def mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    """One of the seeds, and something done to it."""
    packet = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        kind = chance.randrange(6)
        place = chance.randrange(len(packet))
        if kind == 0:
            packet[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            packet[place] = chance.choice((0, 1, 5, 0x45, 0x7F, 0x80, 0xFF))
        elif kind == 2:  # the fields that decide most
            place = ETH + chance.choice((0, 2, 3, 6, 7, 8, 9, 20, 21, 22, 23, 24, 25))
            packet[min(place, len(packet) - 1)] = chance.randrange(256)
        elif kind == 3:
            del packet[max(place, ETH) :]
        elif kind == 4:
            packet += chance.randbytes(chance.choice((1, 7, 40, 600)))
        else:
            other = chance.choice(corpus)
            packet[place:] = other[place:]
    if chance.random() < 0.7:
        mend(packet)
    return bytes(packet.ljust(ETH, b"\0"))


@pytest.fixture(params=WITH)
def balancer(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    with Loaded(make_request(**WITH[request.param]), shares_ports=False) as loaded:
        yield loaded


@pytest.mark.timeout(0 if PACKETS > 100_000 else 120)
def test_no_packet_confuses_the_program(balancer: Loaded) -> None:
    chance = random.Random(SEED)
    corpus = seeds(balancer)
    generic = balancer.plan.request.mode is Mode.GENERIC
    met: set[str] = set()
    for number in range(PACKETS):
        packet = mutated(chance, corpus)
        result = balancer.run(packet)
        met.add(result.verdict)
        try:
            check(packet, result, generic=generic)
        except AssertionError as error:
            raise AssertionError(f"packet {number}: {packet.hex()} {result.verdict}") from error
    assert {"forward", "return", "return_error", "pass_not_ours", "drop_malformed"} <= met
