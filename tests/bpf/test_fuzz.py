"""Packets that nobody would send: seeded and bounded here, as long as you like in ``make fuzz``.

Whatever comes, the program must say why it did what it did, must leave alone what it does
not send, must change nothing but the fields that a NAT changes, and must not break a
checksum that was right.
"""

from __future__ import annotations

import os
import random
import struct
from contextlib import suppress
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, NamedTuple

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
from packets import (
    CLIENT,
    CLIENT6,
    SERVICE6,
    advertisement,
    arp_reply,
    backend_mac,
    icmp6_error,
    icmp_error,
    pseudo_sum,
    solicitation,
    tcp,
    udp,
)
from scapy.layers.inet import IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)

from xdplb.model import Hash, Mode, PortRange, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKETS = int(os.environ.get("XDPLB_FUZZ_PACKETS", "4000"))
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


def fuzz(balancer: Loaded, packets: Iterator[bytes], check: Callable[..., None]) -> set[str]:
    """Let the program meet all packets; returns the verdicts that it gave."""
    generic = balancer.plan.request.mode is Mode.GENERIC
    met: set[str] = set()
    for number, packet in enumerate(packets):
        result = balancer.run(packet)
        met.add(result.verdict)
        try:
            check(packet, result, generic=generic)
        except (AssertionError, LookupError) as error:
            raise AssertionError(f"packet {number}: {packet.hex()} {result.verdict}") from error
    return met


@pytest.mark.timeout(0 if PACKETS > 100_000 else 120)
def test_no_packet_confuses_the_program(balancer: Loaded) -> None:
    chance = random.Random(SEED)
    corpus = seeds(balancer)
    met = fuzz(balancer, (mutated(chance, corpus) for _ in range(PACKETS)), check)
    assert {"forward", "return", "return_error", "pass_not_ours", "drop_malformed"} <= met


# IPv6

IP6, ICMP6, ROUTING, FRAGMENT = 40, 58, 43, 44
EXTENSIONS = {0, ROUTING, FRAGMENT, 60}
EXTENSIONS_MAX = 6
ERRORS = range(1, 5)
BACKENDS6 = ("2001:db8::20", "2001:db8::21")
WITH6: dict[str, dict[str, Any]] = {
    "udp": {},
    "both": {"protocols": tuple(Protocol), "ports": PORTS, "hash": Hash.FIVE_TUPLE},
    "generic": {"protocols": tuple(Protocol), "ports": PORTS, "mode": Mode.GENERIC},
}


class Walk(NamedTuple):
    """Where the headers of an IPv6 packet lead.

    Attributes:
        start: Where that of UDP, TCP or ICMP begins, or would.
        fragment: The word that says which part of a datagram this is.
        id_at: Where its identification stands; 0 for none.
    """

    protocol: int
    start: int
    fragment: int
    id_at: int


def walk(ip: bytes) -> Walk:
    """Follow the headers as the program may: what it must not follow fails here."""
    assert ip[0] >> 4 == 6
    protocol, at, fragment, id_at, steps = ip[6], IP6, 0, 0, 0
    while protocol in EXTENSIONS and not fragment >> 3:
        steps += 1
        assert steps <= EXTENSIONS_MAX
        assert len(ip) >= at + 8
        size = 8 * (1 + ip[at + 1])
        if protocol == FRAGMENT:
            assert not id_at, "a second fragment header"
            fragment, id_at, size = int.from_bytes(ip[at + 2 : at + 4], "big"), at + 4, 8
        elif protocol == ROUTING:
            assert ip[at + 3] == 0, "a route that goes on"
        protocol, at = ip[at], at + size
    assert len(ip) >= at
    return Walk(protocol, at, fragment, id_at)


class View6:
    """A frame that claims to hold IPv6, read without any mercy for what it claims."""

    def __init__(self, frame: bytes) -> None:
        """Look at ``frame``."""
        self.length = IP6 + int.from_bytes(frame[ETH + 4 : ETH + 6], "big")
        assert len(frame) >= ETH + self.length
        self.ip = frame[ETH : ETH + self.length]
        self.source, self.destination = IPv6Address(self.ip[8:24]), IPv6Address(self.ip[24:40])
        self.walk = walk(self.ip)
        self.protocol = self.walk.protocol
        self.l4 = self.ip[self.walk.start :]
        self.is_tail = bool(self.walk.fragment >> 3)
        self.is_fragment = self.is_tail or bool(self.walk.fragment & 1)

    @property
    def _summed(self) -> bytes:
        """What the checksum covers; UDP says itself how long it is."""
        size = int.from_bytes(self.l4[4:6], "big") if self.protocol == UDP else len(self.l4)
        return self.l4[:size]

    @property
    def _pseudo(self) -> bytes:
        return self.ip[8:40] + struct.pack(">II", len(self._summed), self.protocol)

    @property
    def check_at(self) -> int:
        """Where the checksum stands behind the header's begin."""
        return {UDP: 6, TCP: 16, ICMP6: 2}[self.protocol]

    @property
    def check(self) -> int:
        """The checksum itself."""
        return int.from_bytes(self.l4[self.check_at : self.check_at + 2], "big")

    @property
    def l4_is_right(self) -> bool:
        """The checksum of UDP, TCP or ICMP."""
        return total(self._pseudo + self._summed) == 0xFFFF

    @property
    def l4_is_partial(self) -> bool:
        """Whether the checksum is only that of the pseudo-header."""
        return self.check == total(self._pseudo)


def balance(ip: bytes, found: Walk) -> int:
    """What a NAT that only updates a checksum leaves as it was: its sum with all it renames."""
    check = found.start + (6 if found.protocol == UDP else 16)
    names = ip[8:40] + ip[found.start : found.start + 4]
    return total(names + ip[check : check + 2]) % 0xFFFF


def named_fields6(before: View6, verdict: str) -> set[int]:
    """The places in a frame that a NAT may change."""
    places = {*range(12), ETH + 7, *range(ETH + 8, ETH + IP6)}
    l4 = ETH + before.walk.start
    if before.is_fragment:
        places |= set(range(ETH + before.walk.id_at, ETH + before.walk.id_at + 4))
    if before.is_tail:
        return places
    if verdict in {"forward", "return"}:
        return places | {*range(l4, l4 + 4), l4 + before.check_at, l4 + before.check_at + 1}
    quoted = walk(before.l4[8:])
    ip, ports = l4 + 8, l4 + 8 + quoted.start
    check = ports + (6 if quoted.protocol == UDP else 16)
    places |= {l4 + 2, l4 + 3, *range(ip + 8, ip + IP6), *range(ports, ports + 4)}
    return places | {check, check + 1}


def check_time_exceeded(packet: bytes, result: Result) -> None:
    """An answer of our own says the right thing to the right one (RFC 4443 2.4, 3.3)."""
    before, after = View6(packet), View6(result.packet)
    assert before.ip[7] <= 1
    assert before.protocol != ICMP6
    assert not before.source.is_multicast
    assert not before.source.is_unspecified
    assert (after.destination, f"{after.source}") == (before.source, SERVICE6)
    assert (after.ip[7], after.protocol, after.l4[:2]) == (64, ICMP6, b"\x03\0")
    assert after.l4_is_right
    assert after.l4[8:] == before.ip[: 1280 - IP6 - 8]
    assert len(result.packet) == ETH + after.length
    assert result.packet[: ETH + 4] == packet[6:12] + packet[:6] + b"\x86\xdd\x60\0\0\0"


def check_error(before: View6, after: View6) -> None:
    """A translated error: right as a whole, and its quote as wrong as it came."""
    assert before.protocol == ICMP6
    assert before.l4[0] in ERRORS
    assert before.l4_is_right
    assert after.l4_is_right
    quote, renamed = before.l4[8:], after.l4[8:]
    found = walk(quote)
    assert f"{IPv6Address(quote[8:24])}" == SERVICE6
    assert f"{IPv6Address(renamed[24:40])}" == SERVICE6
    assert found.protocol in {UDP, TCP}
    assert not found.fragment >> 3
    check = found.start + (6 if found.protocol == UDP else 16)
    is_there = len(quote) >= check + 2
    if is_there and (found.protocol == TCP or any(quote[check : check + 2])):
        assert balance(quote, found) == balance(renamed, found)
    else:
        assert renamed[check : check + 2] == quote[check : check + 2]


def check_datagram(before: View6, after: View6, *, generic: bool) -> None:
    """A datagram or segment that was sent on, or the first fragment of one."""
    assert before.protocol in {UDP, TCP}
    if before.protocol == UDP:
        assert before.check, "UDP over IPv6 has a checksum"
        assert after.check
    if before.is_fragment or not before.l4_is_partial:
        assert balance(before.ip, before.walk) == balance(after.ip, after.walk)
    if before.is_fragment:
        return
    if before.l4_is_partial:
        assert after.l4_is_partial if generic and not before.l4_is_right else after.l4_is_right
    else:
        assert after.l4_is_right == before.l4_is_right


def check6(packet: bytes, result: Result, *, generic: bool) -> None:
    """All that must hold, whatever the packet was."""
    assert result.action != XDP_ABORTED
    if result.verdict.startswith(("pass", "drop")):
        assert result.action == (XDP_PASS if result.verdict.startswith("pass") else XDP_DROP)
        assert result.packet == packet
        return
    assert result.action == XDP_TX
    if result.verdict == "reply_ttl":
        check_time_exceeded(packet, result)
        return
    before, after = View6(packet), View6(result.packet)
    assert len(result.packet) == len(packet)
    changed = {
        place for place, (a, b) in enumerate(zip(packet, result.packet, strict=True)) if a != b
    }
    assert changed <= named_fields6(before, result.verdict)
    assert after.ip[7] == before.ip[7] - 1 >= 1
    assert (f"{before.destination}", f"{after.source}") == (SERVICE6, SERVICE6)
    if result.verdict in {"forward", "forward_error"}:
        assert f"{after.destination}" in BACKENDS6
    if result.verdict == "forward":
        assert not before.source.is_multicast
        assert not before.source.is_link_local
        assert before.source.ipv4_mapped is None
        assert int(before.source) > 1, "unspecified, or loopback"
    if result.verdict in {"forward_error", "return_error"}:
        check_error(before, after)
    elif not before.is_tail:
        check_datagram(before, after, generic=generic)


OPTIONS = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
CHAINS = (
    IPv6ExtHdrHopByHop(),
    OPTIONS,
    IPv6ExtHdrRouting(segleft=0, addresses=["2001:db8::9"]),
    IPv6ExtHdrRouting(segleft=1, addresses=["2001:db8::9"]),
    IPv6ExtHdrFragment(id=7),
    IPv6ExtHdrHopByHop() / OPTIONS / IPv6ExtHdrFragment(id=8) / OPTIONS,
    IPv6ExtHdrHopByHop() / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS,
    OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS,
)
COMPLAINTS = (None, ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded(), ICMPv6ParamProblem(ptr=6))


def requests6() -> list[bytes]:
    """What clients send."""
    sent = [udp(payload, src=CLIENT6) for payload in (b"", b"x", b"hello", b"y" * 700)]
    sent += [udp(src=CLIENT6, sport=6000 + number, dport=7050) for number in range(3)]
    partial = udp(b"z" * 33, src=CLIENT6)
    sent.append(udp(b"z" * 33, src=CLIENT6, header={"chksum": pseudo_sum(partial)}))
    sent.append(udp(src=CLIENT6, header={"chksum": 0}))
    sent += [udp(b"hops", src=CLIENT6, ip={"hlim": hops}) for hops in (0, 1, 2)]
    sent += [udp(src=source) for source in ("ff02::1", "::", "::1", "fe80::1", "::ffff:1.2.3.4")]
    for flags in ("S", "A", "PA", "FA", "R"):
        sent += [tcp(flags, payload, src=CLIENT6) for payload in (b"", b"z" * 51)]
    for chain in CHAINS:
        sent.append(udp(b"options", src=CLIENT6, ip={"then": chain.copy()}))
        sent.append(tcp("S", src=CLIENT6, sport=6100, ip={"then": chain.copy()}))
    first = IPv6ExtHdrFragment(id=0xABCD, m=1)
    sent.append(udp(b"f" * 800, src=CLIENT6, ip={"then": first}))
    for offset, more in ((101, 1), (102, 0)):
        tail = IPv6ExtHdrFragment(id=0xABCD, offset=offset, m=more, nh=UDP)
        sent.append(udp(b"t" * 64, src=CLIENT6, ip={"then": tail}))
    return sent


def seeds6(balancer: Loaded) -> list[bytes]:
    """Packets that mean something, to begin with."""
    answers, errors = [], []
    sent = requests6()
    for number, packet in enumerate(sent):
        result = balancer.run(packet)
        if result.verdict != "forward" or View6(packet).is_tail:
            continue
        complaint = COMPLAINTS[number % len(COMPLAINTS)]
        errors.append(icmp6_error(result.packet, complaint and complaint.copy()))
        out = View6(result.packet)
        fields = {
            "src": f"{out.destination}",
            "sport": int.from_bytes(out.l4[2:4], "big"),
            "dport": int.from_bytes(out.l4[:2], "big"),
        }
        answer: Any = udp if out.protocol == UDP else (lambda data, **more: tcp("SA", data, **more))
        answers.append(answer(b"answer", **fields))
        answers.append(answer(b"options", **fields, ip={"then": OPTIONS.copy()}))
        back = balancer.run(answers[-1])
        if back.verdict == "return":
            errors.append(icmp6_error(back.packet, complaint and complaint.copy()))
    others = [
        advertisement(BACKENDS6[0], backend_mac(0)),
        solicitation(BACKENDS6[1], backend_mac(1)),
        icmp6_error(sent[0], ICMPv6EchoRequest()),
    ]
    return [*sent, *answers, *errors, *others]


def mend6(packet: bytearray) -> None:
    """Put length and checksum right again, so that more packets get further."""
    if len(packet) < ETH + IP6:
        return
    packet[ETH + 4 : ETH + 6] = (len(packet) - ETH - IP6 & 0xFFFF).to_bytes(2, "big")
    with suppress(AssertionError, KeyError, IndexError):
        view = View6(bytes(packet))
        at = ETH + view.walk.start + view.check_at
        assert len(packet) >= at + 2
        packet[at : at + 2] = b"\0\0"
        view = View6(bytes(packet))
        value = 0xFFFF ^ total(view._pseudo + view._summed)  # noqa: SLF001 - its other half
        packet[at : at + 2] = (value or 0xFFFF).to_bytes(2, "big")


DECISIVE = (0, 4, 5, 6, 7, 8, 9, 23, 24, 39, *range(40, 68))
"""The places that decide most: of the header, of the first one behind it, and of its ports."""


def mutated6(chance: random.Random, corpus: list[bytes]) -> bytes:
    """One of the seeds, and something done to it."""
    packet = bytearray(chance.choice(corpus))
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        kind = chance.randrange(6)
        place = chance.randrange(len(packet))
        if kind == 0:
            packet[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            packet[place] = chance.choice((0, 1, 6, 17, 43, 44, 58, 59, 60, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            place = ETH + chance.choice(DECISIVE)
            packet[min(place, len(packet) - 1)] = chance.choice((0, 1, 2, chance.randrange(256)))
        elif kind == 3:
            del packet[max(place, ETH) :]
        elif kind == 4:
            packet += chance.randbytes(chance.choice((1, 7, 40, 600)))
        else:
            other = chance.choice(corpus)
            packet[place:] = other[place:]
    if chance.random() < 0.6:
        mend6(packet)
    return bytes(packet.ljust(ETH, b"\0"))


@pytest.fixture(params=WITH6)
def balancer6(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    with Loaded(make_request(*BACKENDS6, **WITH6[request.param])) as loaded:
        yield loaded


@pytest.mark.timeout(0 if PACKETS > 100_000 else 120)
def test_no_ipv6_packet_confuses_the_program(balancer6: Loaded) -> None:
    chance = random.Random(SEED)
    corpus = seeds6(balancer6)
    met = fuzz(balancer6, (mutated6(chance, corpus) for _ in range(PACKETS)), check6)
    sent = {"forward", "return", "forward_error", "return_error", "reply_ttl"}
    passed = {"pass_not_ours", "pass_fragment"}
    dropped = {"drop_malformed", "drop_checksum", "drop_fragment", "drop_martian"}
    assert sent | passed | dropped <= met
