"""ICMP errors: to whom they go, and every byte of them against scapy."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import XDP_DROP, XDP_PASS, XDP_TX, Loaded, make_request, reservation
from packets import (
    BACKEND_MAC,
    CLIENT,
    CLIENT_MAC,
    OUR_MAC,
    SERVICE,
    backend_mac,
    tcp,
    udp,
)
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.l2 import Ether

from xdplb.kernel import libbpf
from xdplb.model import PortRange, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

PORTS = (PortRange(53, 53),)
ROUTER = "192.0.2.9"
KINDS = [
    {"type": 3, "code": 3},
    {"type": 3, "code": 0},
    {"type": 3, "code": 13},
    {"type": 3, "code": 4, "nexthopmtu": 1300},
    {"type": 11, "code": 0},
    {"type": 12, "code": 0, "ptr": 20},
]


@pytest.fixture
def balancer() -> Iterator[Loaded]:
    with Loaded(make_request(protocols=tuple(Protocol), ports=PORTS)) as loaded:
        yield loaded


def error(about: bytes, source: str, mac: str, kind: dict[str, Any], quoted: int) -> bytes:
    """An ICMP error to the service that quotes so many bytes of an IP packet that it sent."""
    frame = Ether(src=mac, dst=OUR_MAC) / IP(src=source, dst=SERVICE, ttl=60, id=7)
    return bytes(frame / ICMP(**kind) / about[14 : 14 + quoted])


def translated(
    packet: bytes, about: bytes, receiver: str, mac: str, kind: dict[str, Any], quoted: int
) -> bytes:
    """What should come of ``packet``: the same error, about ``about``."""
    source = Ether(packet)[IP]
    frame = Ether(src=OUR_MAC, dst=mac)
    address = IP(src=SERVICE, dst=receiver, ttl=source.ttl - 1, id=source.id)
    return bytes(frame / address / ICMP(**kind) / about[14 : 14 + quoted])


def request(protocol: Protocol, payload: bytes, **more: Any) -> bytes:
    return udp(payload, **more) if protocol is Protocol.UDP else tcp("S", payload, **more)


def decremented(packet: bytes) -> bytes:
    """As its sender knows it, but for the hops that it has made."""
    frame = Ether(packet)
    frame[IP].ttl -= 1
    del frame[IP].chksum
    return bytes(frame)


def reply(balancer: Loaded, protocol: Protocol, payload: bytes, **more: Any) -> bytes:
    """The backend's answer to the client's flow."""
    value = balancer.index(protocol=protocol)
    address = f"{balancer.backend(value.backend).address}"
    fields = {"src": address, "sport": 53, "dport": value.nat_port, "ether": {"src": BACKEND_MAC}}
    if protocol is Protocol.UDP:
        return udp(payload, **{**fields, **more})
    return tcp("SA", payload, **{**fields, **more})


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind['type']}-{kind['code']}")
@pytest.mark.parametrize("quoted", [28, 38, 40, 540])
def test_an_error_about_a_request_reaches_its_client(
    balancer: Loaded, protocol: Protocol, kind: dict[str, Any], quoted: int
) -> None:
    """From any router on the way: 28 bytes are the least that it must quote."""
    sent = request(protocol, b"z" * 500)
    left = balancer.run(sent).packet
    packet = error(left, ROUTER, BACKEND_MAC, kind, quoted)
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("return_error", XDP_TX)
    quoted = min(quoted, len(sent) - 14)
    expected = translated(packet, decremented(sent), CLIENT, CLIENT_MAC, kind, quoted)
    if protocol is Protocol.TCP and quoted < 40:
        assert Ether(result.packet)[ICMP].chksum == Ether(expected)[ICMP].chksum
    assert result.packet == expected


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind['type']}-{kind['code']}")
@pytest.mark.parametrize("quoted", [28, 38, 40, 540])
def test_an_error_about_an_answer_reaches_its_backend(
    balancer: Loaded, protocol: Protocol, kind: dict[str, Any], quoted: int
) -> None:
    balancer.run(request(protocol, b""))
    answer = reply(balancer, protocol, b"y" * 500)
    left = balancer.run(answer).packet
    packet = error(left, ROUTER, CLIENT_MAC, kind, quoted)
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("forward_error", XDP_TX)
    number = balancer.index(protocol=protocol).backend
    receiver = f"{balancer.backend(number).address}"
    expected = translated(packet, decremented(answer), receiver, backend_mac(number), kind, quoted)
    assert result.packet == expected


def test_a_quote_with_ip_options_is_stepped_over(balancer: Loaded) -> None:
    sent = udp(b"options", ip={"options": [IPOption_RR(length=7, pointer=8, routers=["1.2.3.4"])]})
    left = balancer.run(sent).packet
    kind = KINDS[0]
    packet = error(left, ROUTER, BACKEND_MAC, kind, 60)
    expected = translated(packet, decremented(sent), CLIENT, CLIENT_MAC, kind, len(sent) - 14)
    assert balancer.run(packet).packet == expected


def test_a_quoted_datagram_without_checksum_stays_without(balancer: Loaded) -> None:
    sent = udp(b"none", header={"chksum": 0})
    left = balancer.run(sent).packet
    packet = error(left, ROUTER, BACKEND_MAC, KINDS[0], 28)
    expected = translated(packet, decremented(sent), CLIENT, CLIENT_MAC, KINDS[0], 28)
    assert balancer.run(packet).packet == expected


def test_a_backend_port_is_the_dialled_one_again() -> None:
    with Loaded(make_request("172.11.0.20:5353")) as balancer:
        sent = udp(b"ask")
        left = balancer.run(sent).packet
        assert Ether(left)[UDP].dport == 5353
        packet = error(left, "172.11.0.20", BACKEND_MAC, KINDS[0], 28)
        expected = translated(packet, decremented(sent), CLIENT, CLIENT_MAC, KINDS[0], 28)
        assert balancer.run(packet).packet == expected
        answer = balancer.answer(balancer.index())
        left = balancer.run(answer).packet
        packet = error(left, CLIENT, CLIENT_MAC, KINDS[0], 28)
        expected = translated(
            packet, decremented(answer), "172.11.0.20", backend_mac(0), KINDS[0], 28
        )
        assert balancer.run(packet).packet == expected


def test_an_error_about_a_reserved_flow_is_translated() -> None:
    item = reservation(CLIENT, 5555, 6666)
    with Loaded(make_request(reservations=(item,))) as balancer:
        sent = udp(b"ask")
        left = balancer.run(sent).packet
        packet = error(left, ROUTER, BACKEND_MAC, KINDS[0], 28)
        assert balancer.run(packet).verdict == "return_error"
        back = balancer.run(udp(src=f"{balancer.backend(0).address}", sport=53, dport=6666))
        if back.verdict != "return":
            back = balancer.run(udp(src=f"{balancer.backend(1).address}", sport=53, dport=6666))
        packet = error(back.packet, CLIENT, CLIENT_MAC, KINDS[0], 28)
        assert balancer.run(packet).verdict == "forward_error"


def test_padding_behind_an_error_is_no_part_of_the_quote(balancer: Loaded) -> None:
    sent = tcp("S")
    left = balancer.run(sent).packet
    packet = error(left, ROUTER, BACKEND_MAC, KINDS[0], 28) + b"padding of the frame"
    expected = translated(packet, decremented(sent), CLIENT, CLIENT_MAC, KINDS[0], 28)
    assert balancer.run(packet).packet == expected + b"padding of the frame"


def test_an_error_neither_refreshes_nor_ends_a_flow(balancer: Loaded) -> None:
    left = balancer.run(udp()).packet
    balancer.age(20)
    before = balancer.flow(balancer.index())
    assert balancer.run(error(left, ROUTER, BACKEND_MAC, KINDS[0], 28)).verdict == "return_error"
    assert balancer.flow(balancer.index()) == before
    assert balancer.run(udp()).verdict == "forward"


@pytest.mark.parametrize("about", ["request", "answer"])
def test_an_error_about_a_flow_that_is_no_more_is_the_kernels(balancer: Loaded, about: str) -> None:
    """The number of its backend belongs to another server by now."""
    left = balancer.run(udp()).packet
    value = balancer.index()
    if about == "answer":
        left = balancer.run(balancer.answer(value)).packet
        balancer.change_backend(value.backend, generation=1, address=IPv4Address("172.11.0.99"))
    else:
        balancer.change_backend(value.backend, address=IPv4Address("172.11.0.99"))
    packet = error(left, ROUTER, CLIENT_MAC, KINDS[0], 28)
    assert balancer.run(packet).verdict == "pass_not_ours"


def spoilt(packet: bytes, place: int) -> bytes:
    changed = bytearray(packet)
    changed[place] ^= 0x40
    return bytes(changed)


@pytest.mark.parametrize(
    ("place", "why"),
    [(36, "the checksum itself"), (40, "the rest"), (72, "the quoted payload")],
)
def test_an_error_with_a_wrong_checksum_is_dropped(balancer: Loaded, place: int, why: str) -> None:
    del why
    left = balancer.run(udp(b"m" * 100)).packet
    packet = spoilt(error(left, ROUTER, BACKEND_MAC, KINDS[0], 128), place)
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("drop_checksum", XDP_DROP)


def test_an_error_that_quotes_a_broken_header_is_dropped(balancer: Loaded) -> None:
    left = bytearray(balancer.run(udp()).packet)
    left[14 + 8] ^= 1  # its TTL
    packet = error(bytes(left), ROUTER, BACKEND_MAC, KINDS[0], 28)
    assert balancer.run(packet).verdict == "drop_checksum"


def test_a_quoted_transport_checksum_is_not_judged(balancer: Loaded) -> None:
    left = bytearray(balancer.run(udp(b"abc")).packet)
    left[14 + 28] ^= 0xFF
    packet = error(bytes(left), ROUTER, BACKEND_MAC, KINDS[0], 31)
    assert balancer.run(packet).verdict == "return_error"


NOBODYS = Ether(udp(src=SERVICE, sport=2000, dst="198.51.100.3", dport=53))


@pytest.mark.parametrize(
    "packet",
    [
        error(bytes(NOBODYS), ROUTER, BACKEND_MAC, KINDS[0], 28),
        error(bytes(NOBODYS), ROUTER, BACKEND_MAC, KINDS[0], 27),
        error(bytes(NOBODYS), ROUTER, BACKEND_MAC, KINDS[0], 10),
        error(udp(src="198.51.100.1"), ROUTER, BACKEND_MAC, KINDS[0], 28),
        error(udp(src=SERVICE, ip={"frag": 3}), ROUTER, BACKEND_MAC, KINDS[0], 28),
        error(udp(src=SERVICE, ip={"proto": 47}), ROUTER, BACKEND_MAC, KINDS[0], 28),
        error(udp(src=SERVICE), ROUTER, BACKEND_MAC, {"type": 8}, 28),
        error(udp(src=SERVICE), ROUTER, BACKEND_MAC, {"type": 0}, 28),
        error(udp(src=SERVICE), ROUTER, BACKEND_MAC, {"type": 5, "code": 1}, 28),
        error(udp(src=SERVICE), ROUTER, BACKEND_MAC, {"type": 4}, 28),
    ],
    ids=[
        *("no flow", "27 bytes", "10 bytes", "not from us", "fragment", "gre"),
        *("echo", "echo reply", "redirect", "source quench"),
    ],
)
def test_other_icmp_is_the_kernels(balancer: Loaded, packet: bytes) -> None:
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("pass_not_ours", XDP_PASS)
    assert result.packet == packet


def test_an_error_whose_own_time_runs_out_is_dropped_in_silence(balancer: Loaded) -> None:
    left = balancer.run(udp()).packet
    frame = Ether(error(left, ROUTER, BACKEND_MAC, KINDS[0], 28))
    frame[IP].ttl = 1
    del frame[IP].chksum
    assert balancer.run(bytes(frame)).verdict == "drop_ttl"


@pytest.mark.parametrize("ttl", [0, 1])
@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("options", [[], [IPOption_RR(length=7, pointer=8, routers=["1.2.3.4"])]])
@pytest.mark.parametrize("size", [0, 700])
def test_a_packet_whose_time_runs_out_is_answered(
    balancer: Loaded, protocol: Protocol, ttl: int, options: list[Any], size: int
) -> None:
    packet = request(protocol, b"t" * size, ip={"ttl": ttl, "options": options})
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("reply_ttl", XDP_TX)
    quoted = 4 * Ether(packet)[IP].ihl + 8
    expected = (
        Ether(src=OUR_MAC, dst=CLIENT_MAC)
        / IP(src=SERVICE, dst=CLIENT, ttl=64, id=0, flags="DF")
        / ICMP(type=11, code=0)
        / packet[14 : 14 + quoted]
    )
    assert result.packet == bytes(expected)
    assert balancer.entries() == {}, "it opens no flow"


def test_a_backend_is_told_too(balancer: Loaded) -> None:
    balancer.run(udp())
    result = balancer.run(reply(balancer, Protocol.UDP, b"", ip={"ttl": 1}))
    assert result.verdict == "reply_ttl"
    address = balancer.backend(balancer.index().backend).address
    assert Ether(result.packet)[IP].dst == f"{address}"
    assert Ether(result.packet).dst == BACKEND_MAC


def test_answers_to_expired_packets_are_few(balancer: Loaded) -> None:
    packet, before = udp(ip={"ttl": 1}), balancer.verdicts()
    for _ in range(500):  # faster than run(), which counts each: a moment has 67 ms
        libbpf.run_program(balancer.fd, packet)
    counted = balancer.verdicts()
    assert counted["drop_ttl"] > before["drop_ttl"]
    assert counted["reply_ttl"] - before["reply_ttl"] >= 16


@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
def test_nobody_is_told_at_an_address_that_is_nobodys(balancer: Loaded, source: str) -> None:
    assert balancer.run(udp(src=source, ip={"ttl": 1})).verdict == "drop_ttl"


def test_the_quoted_tcp_checksum_is_the_clients_own(balancer: Loaded) -> None:
    sent = tcp("S", b"data")
    left = balancer.run(sent).packet
    result = balancer.run(error(left, ROUTER, BACKEND_MAC, KINDS[3], 44))
    inner = IP(result.packet[14 + 28 :])
    assert inner[TCP].chksum == Ether(sent)[TCP].chksum
