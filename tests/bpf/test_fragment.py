"""Datagrams in fragments: each follows the first one, and none goes anywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bpf_harness import XDP_DROP, XDP_PASS, XDP_TX, Loaded, make_request
from packets import BACKEND_MAC, CLIENT, CLIENT_MAC, OUR_MAC, SERVICE, backend_mac, tcp, udp
from scapy.layers.inet import IP, UDP, defragment, fragment
from scapy.layers.l2 import Ether

from xdplb import wire
from xdplb.kernel import clock, libbpf, tables
from xdplb.model import Mode, PortRange, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@pytest.fixture(params=[Mode.NATIVE, Mode.GENERIC])
def balancer(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    with Loaded(make_request(mode=request.param)) as loaded:
        yield loaded


def pieces(packet: bytes, size: int = 1480) -> list[bytes]:
    """The frames that a router would make of a frame."""
    frame = Ether(packet)
    head = Ether(src=frame.src, dst=frame.dst)
    parts = fragment(frame[IP], fragsize=size)  # type: ignore[no-untyped-call]
    return [bytes(head / part) for part in parts]


def joined(frames: Sequence[bytes]) -> IP:
    """The datagram that a receiver puts together."""
    parts = sorted((Ether(frame)[IP] for frame in frames), key=lambda part: int(part.frag))
    (whole,) = defragment(parts)  # type: ignore[no-untyped-call]
    return IP(bytes(whole))


@pytest.mark.parametrize("size", [1473, 8000, 60000])
def test_every_fragment_follows_the_first(balancer: Loaded, size: int) -> None:
    payload = bytes(number % 251 for number in range(size))
    frames = pieces(udp(payload))
    results = [balancer.run(frame) for frame in frames]
    assert {(item.verdict, item.action) for item in results} == {("forward", XDP_TX)}
    value = balancer.index()
    outs = [Ether(item.packet) for item in results]
    assert {(out.src, out.dst) for out in outs} == {(OUR_MAC, backend_mac(value.backend))}
    assert len({out[IP].id for out in outs}) == 1
    for out, frame in zip(outs, frames, strict=True):
        before = Ether(frame)[IP]
        assert (out[IP].frag, out[IP].flags, out[IP].ttl) == (before.frag, before.flags, 63)
        sum_as_sent = out[IP].chksum
        del out[IP].chksum
        assert IP(bytes(out[IP])).chksum == sum_as_sent
    whole = joined([item.packet for item in results])
    assert (whole.src, whole.dst) == (SERVICE, f"{balancer.backend(value.backend).address}")
    assert (whole[UDP].sport, whole[UDP].dport) == (value.nat_port, 53)
    assert bytes(whole[UDP].payload) == payload
    sum_as_sent = whole[UDP].chksum
    del whole[UDP].chksum
    assert IP(bytes(whole))[UDP].chksum == sum_as_sent


def test_an_answer_in_fragments_comes_back_whole(balancer: Loaded) -> None:
    value = balancer.open()
    payload = b"answer " * 1000
    results = [balancer.run(frame) for frame in pieces(balancer.answer(value, payload))]
    assert {item.verdict for item in results} == {"return"}
    assert {Ether(item.packet).dst for item in results} == {CLIENT_MAC}
    whole = joined([item.packet for item in results])
    assert (whole.src, whole.dst, whole[UDP].sport) == (SERVICE, CLIENT, 53)
    assert bytes(whole[UDP].payload) == payload


def test_clients_with_the_same_identification_get_different_ones() -> None:
    """Their datagrams meet at one backend, from one address."""
    with Loaded(make_request("172.11.0.20")) as balancer:
        ids = set()
        for number in range(50):
            first, *_ = pieces(udp(b"i" * 2000, src=f"172.11.0.{100 + number}"))
            ids.add(Ether(balancer.run(first).packet)[IP].id)
        assert len(ids) == 50


def test_fragments_that_overtake_each_other_arrive(balancer: Loaded) -> None:
    first, *others = pieces(udp(b"o" * 8000))
    frames = [first, *reversed(others)]
    results = [balancer.run(frame) for frame in frames]
    assert {item.verdict for item in results} == {"forward"}
    assert len(joined([item.packet for item in results])[UDP].payload) == 8000


def test_a_fragment_before_the_first_is_the_kernels(balancer: Loaded) -> None:
    first, second, *_ = pieces(udp(b"k" * 8000))
    result = balancer.run(second)
    assert (result.verdict, result.action, result.packet) == ("pass_fragment", XDP_PASS, second)
    balancer.run(first)
    assert balancer.run(second).verdict == "forward"


@pytest.mark.parametrize(
    "stray",
    [
        udp(b"stray", src="172.11.0.99", ip={"frag": 185}),
        udp(b"stray", ip={"frag": 185, "id": 0x4321}),
        udp(b"stray", ip={"frag": 185, "proto": 1}),
        udp(b"stray", ip={"frag": 185, "proto": 6}),
    ],
    ids=["source", "identification", "icmp", "tcp"],
)
def test_no_fragment_follows_another_datagram(balancer: Loaded, stray: bytes) -> None:
    first, *_ = pieces(udp(b"n" * 8000))
    assert balancer.run(first).verdict == "forward"
    result = balancer.run(stray)
    assert result.verdict in {"pass_fragment", "pass_not_ours"}
    assert result.packet == stray


def test_a_late_fragment_does_not_follow(balancer: Loaded) -> None:
    first, second, *_ = pieces(udp(b"l" * 8000))
    balancer.run(first)
    ((key, value),) = _remembered(balancer)
    age = round(6 * wire.TICKS_PER_S)
    seen = (clock.ticks() - age) & 0xFFFFFFFF
    late = value[:20] + wire.U32.pack(seen) + value[24:]
    libbpf.update(balancer.maps["fragments"], key, late)
    assert balancer.run(second).verdict == "pass_fragment"


def _remembered(balancer: Loaded) -> list[tuple[bytes, bytes]]:
    keys, values = libbpf.lookup_all(balancer.maps["fragments"], 12, 32, 8192)
    return [
        (keys[12 * at : 12 * at + 12], values[32 * at : 32 * at + 32])
        for at in range(len(keys) // 12)
    ]


def test_the_memory_for_datagrams_is_bounded() -> None:
    with Loaded(make_request("172.11.0.20")) as balancer:
        for number in range(9000):
            balancer.run(udp(b"b" * 8, ip={"flags": "MF", "id": number}))
        assert len(_remembered(balancer)) <= 8192


@pytest.mark.parametrize(
    ("packet", "verdict"),
    [
        (udp(b"x" * 9, ip={"flags": "MF"}), "drop_fragment"),
        (udp(b"x" * 8, ip={"flags": "MF"}, header={"len": 7}), "drop_malformed"),
        (udp(b"x" * 8, ip={"flags": "MF", "ttl": 1}), "reply_ttl"),
        (udp(b"x" * 9, ip={"frag": 1, "flags": "MF"}), "drop_fragment"),
        (udp(b"x", ip={"frag": 1, "ttl": 1}), "drop_ttl"),
    ],
    ids=["first of no eighth", "length below 8", "first expired", "tail of no eighth", "expired"],
)
def test_a_fragment_that_cannot_be_is_refused(
    balancer: Loaded, packet: bytes, verdict: str
) -> None:
    """A datagram with the same identification is on its way already."""
    assert balancer.run(udp(b"x" * 8, ip={"flags": "MF"})).verdict == "forward"
    result = balancer.run(packet)
    assert result.verdict == verdict
    assert verdict == "reply_ttl" or result.action == XDP_DROP


@pytest.mark.parametrize(
    ("offset", "verdict"), [(1, "drop_fragment"), (2, "drop_fragment"), (3, "forward")]
)
def test_a_fragment_cannot_rewrite_a_tcp_header(offset: int, verdict: str) -> None:
    """RFC 1858: one that starts inside the header."""
    request = make_request(protocols=(Protocol.TCP,), ports=(PortRange(53, 53),))
    with Loaded(request) as balancer:
        first = tcp("S", b"x" * 4, ip={"flags": "MF"})
        assert balancer.run(first).verdict == "forward"
        frame = Ether(src=CLIENT_MAC, dst=OUR_MAC)
        tail = IP(src=CLIENT, dst=SERVICE, id=0x1234, proto=6, frag=offset, flags="MF")
        assert balancer.run(bytes(frame / tail / (b"y" * 16))).verdict == verdict


def test_a_backend_is_counted_each_fragment() -> None:
    with Loaded(make_request("172.11.0.20")) as balancer:
        frames = pieces(udp(b"c" * 8000))
        for frame in frames:
            balancer.run(frame)

        stats = tables.read_stats(balancer.maps, 0)
        assert stats.packets_in == len(frames)
        assert stats.bytes_in == sum(Ether(frame)[IP].len for frame in frames)


def test_a_fragment_of_a_stranger_to_a_nat_port_opens_a_flow_of_its_own(
    balancer: Loaded,
) -> None:
    value = balancer.open()
    forged = udp(b"f" * 8, sport=53, dport=value.nat_port, src="172.11.0.77", ip={"flags": "MF"})
    assert balancer.run(forged).verdict == "forward"


def test_no_fragment_of_icmp_is_touched(balancer: Loaded) -> None:
    frame = Ether(src=BACKEND_MAC, dst=OUR_MAC) / IP(src=CLIENT, dst=SERVICE, proto=1, frag=3)
    result = balancer.run(bytes(frame / b"rest of it"))
    assert (result.verdict, result.action) == ("pass_fragment", XDP_PASS)
