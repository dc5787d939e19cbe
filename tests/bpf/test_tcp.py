"""TCP: every byte as scapy says, and connections that only their two ends can end."""

from __future__ import annotations

import socket
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
    pseudo_sum,
    readdressed,
    tcp,
    udp,
    udp_checksum,
)

from xdplb.model import Mode, PortRange, Protocol, Timeouts
from xdplb.wire import FlowCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdplb.wire import ClientValue

PORTS = (PortRange(53, 53), PortRange(443, 443))


@pytest.fixture
def balancer() -> Iterator[Loaded]:
    with Loaded(make_request(protocols=(Protocol.TCP,), ports=PORTS)) as loaded:
        yield loaded


@pytest.fixture
def both() -> Iterator[Loaded]:
    with Loaded(make_request(protocols=tuple(Protocol), ports=PORTS)) as loaded:
        yield loaded


def place(balancer: Loaded, sport: int = 5555, dport: int = 53) -> ClientValue:
    return balancer.index(port=sport, dport=dport, protocol=Protocol.TCP)


def state(balancer: Loaded) -> FlowCode:
    return balancer.flow(place(balancer)).owner.state


def client(balancer: Loaded, flags: str, **more: Any) -> str:
    """The client sends a segment; returns the verdict."""
    return balancer.run(tcp(flags, **more)).verdict


def answer(balancer: Loaded, flags: str, payload: bytes = b"", **more: Any) -> bytes:
    """What the backend of the client's connection sends."""
    value = place(balancer)
    record = balancer.backend(value.backend)
    fields = {"src": f"{record.address}", "sport": record.port or 53, "dport": value.nat_port}
    return tcp(flags, payload, **{**fields, "ether": {"src": BACKEND_MAC}, **more})


def backend(balancer: Loaded, flags: str) -> str:
    """The backend sends a segment; returns the verdict."""
    return balancer.run(answer(balancer, flags)).verdict


def establish(balancer: Loaded) -> None:
    assert client(balancer, "S") == "forward"
    assert backend(balancer, "SA") == "return"
    assert client(balancer, "A") == "forward"
    assert state(balancer) is FlowCode.TCP_ESTABLISHED


@pytest.mark.parametrize("payload", [b"", b"x", b"GET /", bytes(range(256)) * 5])
@pytest.mark.parametrize("options", [(), [("MSS", 1460), ("WScale", 7)]])
def test_a_segment_is_readdressed_both_ways(
    balancer: Loaded, payload: bytes, options: list[tuple[str, int]]
) -> None:
    client(balancer, "S")
    packet = tcp("PA", payload, header={"options": options, "seq": 7, "ack": 9})
    value = place(balancer)
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("forward", XDP_TX)
    assert result.packet == readdressed(
        packet,
        src=SERVICE,
        dst=f"{balancer.backend(value.backend).address}",
        sport=value.nat_port,
        smac=OUR_MAC,
        dmac=backend_mac(value.backend),
    )
    back = answer(balancer, "PA", payload, header={"options": options, "seq": 9, "ack": 7})
    result = balancer.run(back)
    assert (result.verdict, result.action) == ("return", XDP_TX)
    assert result.packet == readdressed(
        back, src=SERVICE, dst=CLIENT, sport=53, dport=5555, smac=OUR_MAC, dmac=CLIENT_MAC
    )


@pytest.mark.parametrize("size", [0, 1, 512, 1460])
def test_a_partial_checksum_is_finished_in_native_mode(balancer: Loaded, size: int) -> None:
    client(balancer, "S")
    whole = tcp("PA", b"x" * size)
    value = place(balancer)
    partial = tcp("PA", b"x" * size, header={"chksum": pseudo_sum(whole)})
    address = f"{balancer.backend(value.backend).address}"
    expected = readdressed(
        whole,
        src=SERVICE,
        dst=address,
        sport=value.nat_port,
        smac=OUR_MAC,
        dmac=backend_mac(value.backend),
    )
    assert balancer.run(partial).packet == expected


def test_a_partial_checksum_stays_partial_in_generic_mode() -> None:
    request = make_request(protocols=(Protocol.TCP,), ports=PORTS, mode=Mode.GENERIC)
    with Loaded(request) as balancer:
        client(balancer, "S")
        whole = tcp("PA", b"y" * 30000)
        sent = balancer.run(tcp("PA", b"y" * 30000, header={"chksum": pseudo_sum(whole)})).packet
        assert udp_checksum(sent) == pseudo_sum(sent)


def test_a_wrong_checksum_stays_wrong(balancer: Loaded) -> None:
    client(balancer, "S")
    good = udp_checksum(balancer.run(tcp("A", b"data")).packet)
    wrong = udp_checksum(tcp("A", b"data")) ^ 0x0101
    sent = udp_checksum(balancer.run(tcp("A", b"data", header={"chksum": wrong})).packet)
    assert sent != good


def test_a_checksum_of_0_is_a_checksum(balancer: Loaded) -> None:
    """TCP has no "none": 0 is as good as any other value, and comes out as itself."""
    client(balancer, "S")
    value = place(balancer)
    for number in range(65536):
        packet = tcp("A", number.to_bytes(2, "big"))
        if udp_checksum(packet) == 0:
            break
    result = balancer.run(packet)
    address = f"{balancer.backend(value.backend).address}"
    expected = readdressed(packet, src=SERVICE, dst=address, sport=value.nat_port)
    assert udp_checksum(result.packet) == udp_checksum(expected)


def test_a_connection_opens_with_its_handshake(balancer: Loaded) -> None:
    assert client(balancer, "S") == "forward"
    assert state(balancer) is FlowCode.TCP_OPENING
    assert client(balancer, "S") == "forward", "sent again"
    assert state(balancer) is FlowCode.TCP_OPENING
    assert backend(balancer, "SA") == "return"
    assert state(balancer) is FlowCode.TCP_ACCEPTED
    assert client(balancer, "A") == "forward"
    assert state(balancer) is FlowCode.TCP_ESTABLISHED


def test_an_acknowledgement_before_any_answer_establishes_nothing(balancer: Loaded) -> None:
    client(balancer, "S")
    client(balancer, "A")
    assert state(balancer) is FlowCode.TCP_OPENING


@pytest.mark.parametrize("first", ["client", "backend"])
def test_a_connection_closes_when_both_ends_have_said_so(balancer: Loaded, first: str) -> None:
    establish(balancer)
    ends = {
        "client": (client, FlowCode.TCP_CLIENT_FIN),
        "backend": (backend, FlowCode.TCP_BACKEND_FIN),
    }
    second = "backend" if first == "client" else "client"
    ends[first][0](balancer, "FA")
    assert state(balancer) is ends[first][1]
    ends[second][0](balancer, "A")
    assert state(balancer) is ends[first][1], "the other end may go on sending"
    ends[second][0](balancer, "FA")
    ends[first][0](balancer, "A")
    assert state(balancer) is FlowCode.TCP_CLOSING


@pytest.mark.parametrize("end", ["client", "backend"])
def test_a_forged_reset_ends_nothing(balancer: Loaded, end: str) -> None:
    establish(balancer)
    before = place(balancer)
    send = client if end == "client" else backend
    other = backend if end == "client" else client
    forwarded = "forward" if end == "client" else "return"
    assert send(balancer, "R") == forwarded, "its target knows whether it is in the window"
    assert state(balancer) in {FlowCode.TCP_CLIENT_RST, FlowCode.TCP_BACKEND_RST}
    other(balancer, "A")
    assert state(balancer) is not FlowCode.TCP_ESTABLISHED, "only the sender can deny it"
    assert send(balancer, "A") == forwarded
    assert state(balancer) is FlowCode.TCP_ESTABLISHED
    assert place(balancer) == before


def test_a_forged_syn_ends_nothing(balancer: Loaded) -> None:
    establish(balancer)
    before = place(balancer)
    assert client(balancer, "S", header={"seq": 99}) == "forward"
    assert state(balancer) is FlowCode.TCP_ESTABLISHED
    assert place(balancer) == before


def test_a_client_that_comes_back_with_its_port_opens_anew(balancer: Loaded) -> None:
    establish(balancer)
    client(balancer, "FA")
    backend(balancer, "FA")
    before = place(balancer)
    assert client(balancer, "S") == "forward"
    assert state(balancer) is FlowCode.TCP_OPENING
    assert place(balancer) == before
    client(balancer, "R")
    assert client(balancer, "S") == "forward"
    assert state(balancer) is FlowCode.TCP_OPENING


@pytest.mark.parametrize("flags", ["A", "FA", "R", "RA", "SA", "PA", "SF", "SR", ""])
def test_a_segment_of_no_connection_is_the_kernels(balancer: Loaded, flags: str) -> None:
    packet = tcp(flags)
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("pass_no_flow", XDP_PASS)
    assert result.packet == packet
    assert balancer.entries() == {}


@pytest.mark.parametrize(
    ("packet", "verdict"),
    [
        (tcp("S", header={"dataofs": 4}), "drop_malformed"),
        (tcp("S", header={"dataofs": 15}), "drop_malformed"),
        (tcp("S", ip={"len": 39}), "pass_not_ours"),
        (tcp("S", ip={"flags": "MF"}), "drop_fragment"),
        (tcp("S", dport=54), "pass_not_ours"),
        (tcp("S", src=SERVICE), "drop_martian"),
        (udp(), "pass_not_ours"),
    ],
    ids=["offset 4", "offset 15", "short", "fragment", "port", "land", "udp"],
)
def test_what_is_no_good_segment_is_refused(balancer: Loaded, packet: bytes, verdict: str) -> None:
    result = balancer.run(packet)
    assert result.verdict == verdict
    assert result.action == (XDP_DROP if verdict.startswith("drop") else XDP_PASS)
    assert result.packet == packet


TIMEOUTS = Timeouts(unreplied=10, answered=20, transitory=240, established=7440)


@pytest.mark.parametrize(
    ("script", "kept_s"),
    [
        (("client S",), 240),
        (("client S", "backend SA"), 240),
        (("client S", "backend SA", "client A"), 7440),
        (("client S", "backend SA", "client A", "client FA"), 7440),
        (("client S", "backend SA", "client A", "client FA", "backend FA"), 240),
        (("client S", "backend SA", "client A", "client R"), 240),
        (("client S", "backend RA"), 240),
    ],
    ids=["opening", "accepted", "established", "half closed", "closed", "reset", "refused"],
)
def test_an_idle_connection_is_kept_for_the_time_of_its_state(
    script: tuple[str, ...], kept_s: int
) -> None:
    request = make_request(
        "172.11.0.20", protocols=(Protocol.TCP,), ports=PORTS, max_flows=1, timeouts=TIMEOUTS
    )
    with Loaded(request) as balancer:
        for line in script:
            end, flags = line.split()
            (client if end == "client" else backend)(balancer, flags)
        balancer.age(kept_s - 1, protocol=Protocol.TCP)
        assert client(balancer, "S", sport=6000) == "drop_no_port"
        balancer.age(kept_s + 1, protocol=Protocol.TCP)
        assert client(balancer, "S", sport=6000) == "forward"
        assert len(balancer.entries()) == 1


def test_udp_and_tcp_of_one_client_are_two_flows(both: Loaded) -> None:
    assert client(both, "S") == "forward"
    datagram = both.open()
    connection = place(both)
    assert both.backend(datagram.backend).protocol is Protocol.UDP
    assert both.backend(connection.backend).protocol is Protocol.TCP
    assert both.run(both.answer(datagram)).verdict == "return"
    assert backend(both, "SA") == "return"


def test_an_answer_must_be_of_the_flows_protocol(both: Loaded) -> None:
    value = both.open()
    record = both.backend(value.backend)
    forged = tcp("SA", src=f"{record.address}", sport=53, dport=value.nat_port)
    assert both.run(forged).verdict != "return"
    client(both, "S")
    value = place(both)
    record = both.backend(value.backend)
    datagram = udp(src=f"{record.address}", sport=53, dport=value.nat_port)
    assert both.run(datagram).verdict != "return"


def test_protocols_that_share_ports_keep_their_answers_apart() -> None:
    """One backend, room for so few flows that UDP and TCP have one group of ports."""
    request = make_request("172.11.0.20", protocols=tuple(Protocol), ports=PORTS, max_flows=8)
    with Loaded(request) as balancer:
        client(balancer, "S")
        value = balancer.open()
        assert value.nat_port != place(balancer).nat_port
        assert balancer.run(balancer.answer(value)).verdict == "return"
        wrong = tcp("SA", src="172.11.0.20", sport=53, dport=value.nat_port)
        assert balancer.run(wrong).verdict != "return"


def test_a_reservation_holds_for_tcp_too() -> None:
    request = make_request(
        protocols=tuple(Protocol), ports=PORTS, reservations=(reservation(CLIENT, 5555, 6666),)
    )
    with Loaded(request) as balancer:
        assert client(balancer, "S", dport=443) == "forward"
        (value,) = {
            value for key, value in balancer.entries().items() if key.protocol is Protocol.TCP
        }
        assert value.nat_port == 6666
        record = balancer.backend(value.backend)
        back = tcp("SA", src=f"{record.address}", sport=443, dport=6666)
        assert balancer.run(back).verdict == "return"
        assert client(balancer, "A", dport=443) == "forward"


def test_a_socket_of_the_host_gets_its_connection(private_network: None) -> None:
    del private_network
    request = make_request(protocols=(Protocol.TCP,), ports=(PortRange(40000, 40001),))
    with Loaded(request, shares_ports=True) as balancer, socket.socket() as host:
        host.bind(("0.0.0.0", 40000))
        host.listen()
        assert client(balancer, "S", dport=40000) == "pass_socket"
        assert client(balancer, "S", dport=40001) == "forward"
