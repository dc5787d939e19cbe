"""From backend to client: the NAT port says whose answer it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bpf_harness import XDP_DROP, XDP_TX, Loaded, make_request, reservation
from packets import CLIENT, CLIENT_MAC, OUR_MAC, SERVICE, readdressed, udp

from xdplb.kernel import tables
from xdplb.wire import BackendCode, FlowCode

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def balancer() -> Iterator[Loaded]:
    with Loaded() as loaded:
        yield loaded


def test_an_answer_reaches_the_client_from_the_service(balancer: Loaded) -> None:
    packet = balancer.answer(balancer.open())
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("return", XDP_TX)
    assert result.packet == readdressed(
        packet,
        src=SERVICE,
        dst=CLIENT,
        sport=53,
        dport=5555,
        smac=OUR_MAC,
        dmac=CLIENT_MAC,
    )


def test_an_answer_from_another_backend_port_has_the_port_that_was_dialled() -> None:
    with Loaded(make_request("172.11.0.20:5353")) as balancer:
        packet = balancer.answer(balancer.open(dport=53))
        expected = readdressed(
            packet, src=SERVICE, dst=CLIENT, sport=53, dport=5555, smac=OUR_MAC, dmac=CLIENT_MAC
        )
        assert balancer.run(packet).packet == expected


def test_an_answer_from_a_wrong_port_is_no_answer(balancer: Loaded) -> None:
    packet = balancer.answer(balancer.open(), sport=54)
    assert balancer.run(packet).verdict == "forward"


def test_an_answer_from_another_backend_is_no_answer(balancer: Loaded) -> None:
    value = balancer.open()
    other = balancer.backend(1 - value.backend).address
    assert balancer.run(balancer.answer(value, src=f"{other}")).verdict == "forward"


def test_an_answer_from_a_stranger_is_no_answer(balancer: Loaded) -> None:
    assert balancer.run(balancer.answer(balancer.open(), src="172.11.0.99")).verdict == "forward"


def test_an_answer_to_a_port_that_nobody_has_is_no_answer(balancer: Loaded) -> None:
    value = balancer.open()
    free = value.nat_port + 1 if value.nat_port not in {32767, 65535} else value.nat_port - 1
    assert balancer.run(balancer.answer(value, dport=free)).verdict == "forward"


def test_two_backends_behind_one_group_keep_their_answers_apart() -> None:
    request = make_request("172.11.0.20", "172.11.0.21", max_flows=64)
    with Loaded(request) as balancer:
        assert len({balancer.backend(number).slot_first for number in (0, 1)}) == 1
        value = balancer.open()
        other = balancer.backend(1 - value.backend).address
        assert balancer.run(balancer.answer(value, src=f"{other}")).verdict != "return"
        assert balancer.run(balancer.answer(value)).verdict == "return"


def test_an_answer_protects_its_flow(balancer: Loaded) -> None:
    value = balancer.open()
    assert balancer.flow(value).owner.state is FlowCode.UNREPLIED
    balancer.run(balancer.answer(value))
    assert balancer.flow(value).owner.state is FlowCode.ANSWERED


def test_a_late_answer_still_reaches_the_client_of_a_backend_that_left(balancer: Loaded) -> None:
    value = balancer.open()
    packet = balancer.answer(value)
    balancer.change_backend(value.backend, state=BackendCode.DOWN)
    assert balancer.run(packet).verdict == "return"


def test_the_way_back_follows_the_client(balancer: Loaded) -> None:
    value = balancer.open()
    balancer.age(5)
    balancer.run(udp(ether={"src": "02:00:00:00:00:77"}))
    assert balancer.run(balancer.answer(value)).packet[:6] == bytes.fromhex("020000000077")


def test_answers_are_counted_in_ip_bytes(balancer: Loaded) -> None:
    value = balancer.open()
    balancer.run(balancer.answer(value, b"x" * 100))
    assert tables.read_stats(balancer.maps, value.backend)[2:] == (1, 128, 0)


class TestReservation:
    """The example: 172.11.0.22:5555 always speaks from port 6666."""

    @pytest.fixture
    def balancer(self) -> Iterator[Loaded]:
        with Loaded(make_request(reservations=(reservation(CLIENT, 5555, 6666),))) as loaded:
            yield loaded

    def test_it_has_the_reserved_port(self, balancer: Loaded) -> None:
        result = balancer.run(udp(dport=7777))
        assert result.verdict == "forward"
        assert int.from_bytes(result.packet[34:36], "big") == 6666

    def test_it_holds_for_every_service_port(self, balancer: Loaded) -> None:
        for dport in (53, 123, 7777):
            packet = balancer.run(udp(dport=dport)).packet
            assert int.from_bytes(packet[34:36], "big") == 6666

    def test_its_answer_names_the_port_that_was_dialled(self, balancer: Loaded) -> None:
        balancer.run(udp(dport=53))
        balancer.run(udp(dport=7777))
        value = balancer.index(dport=0)
        for dport in (53, 7777):
            packet = balancer.answer(value, sport=dport)
            result = balancer.run(packet)
            assert result.verdict == "return"
            assert result.packet == readdressed(
                packet, src=SERVICE, dst=CLIENT, dport=5555, smac=OUR_MAC, dmac=CLIENT_MAC
            )

    def test_it_never_expires(self, balancer: Loaded) -> None:
        balancer.run(udp(dport=53))
        balancer.age(100_000, dport=0)
        assert int.from_bytes(balancer.run(udp(dport=53)).packet[34:36], "big") == 6666
        assert balancer.flow(balancer.index(dport=0)).owner.state is FlowCode.RESERVED

    def test_nobody_else_gets_the_port(self) -> None:
        reserved = (reservation(CLIENT, 5555, 1024 + 5),)
        request = make_request("172.11.0.20", reservations=reserved, max_flows=16)
        with Loaded(request) as balancer:
            verdicts = [balancer.run(udp(sport=port)).verdict for port in range(2000, 2016)]
            assert verdicts.count("forward") == 15
            assert 1029 not in {
                value.nat_port for key, value in balancer.entries().items() if key.service_port
            }

    def test_an_answer_before_the_client_spoke_has_nowhere_to_go(self, balancer: Loaded) -> None:
        result = balancer.run(balancer.answer(balancer.index(dport=0), sport=53))
        assert (result.verdict, result.action) == ("drop_unresolved", XDP_DROP)

    def test_other_ports_of_the_client_are_not_reserved(self, balancer: Loaded) -> None:
        balancer.run(udp(sport=5556))
        assert balancer.index(port=5556).nat_port != 6666

    def test_with_a_backend_port_the_answer_names_the_last_port_dialled(self) -> None:
        reserved = (reservation(CLIENT, 5555, 6666),)
        with Loaded(make_request("172.11.0.20:5353", reservations=reserved)) as balancer:
            balancer.run(udp(dport=53))
            packet = balancer.answer(balancer.index(dport=0), sport=5353)
            assert int.from_bytes(balancer.run(packet).packet[34:36], "big") == 53
