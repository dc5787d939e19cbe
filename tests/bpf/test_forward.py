"""From client to backend, one packet at a time."""

from __future__ import annotations

from ipaddress import IPv4Address
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from bpf_harness import XDP_DROP, XDP_REDIRECT, XDP_TX, Loaded, make_request
from packets import (
    CLIENT,
    CLIENT_MAC,
    OUR_MAC,
    SERVICE,
    udp,
)
from scapy.layers.inet import IPOption_RR, IPOption_Timestamp

from xdplb import wire
from xdplb.kernel import libbpf, tables
from xdplb.model import Hash, PortRange
from xdplb.plan import Port
from xdplb.selection import select_slot
from xdplb.wire import BackendCode

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def balancer() -> Iterator[Loaded]:
    with Loaded() as loaded:
        yield loaded


def test_a_datagram_leaves_with_new_addresses_ports_and_checksums(balancer: Loaded) -> None:
    packet = udp()
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("forward", XDP_TX)
    assert result.packet == balancer.forwarded(packet)


def test_a_datagram_leaves_by_redirect_where_that_was_chosen() -> None:
    mac = bytes.fromhex(OUR_MAC.replace(":", ""))
    port = Port("lo", 1, mac, mode=make_request().mode, redirect=True)
    with Loaded(ports=(port,)) as balancer:
        assert balancer.run(udp()).action == XDP_REDIRECT


def test_a_backend_port_replaces_the_one_that_was_dialled() -> None:
    with Loaded(make_request("172.11.0.20:5353")) as balancer:
        result = balancer.run(udp(dport=53))
        assert result.packet == balancer.forwarded(udp(dport=53), dport=5353)


def test_a_client_keeps_its_backend_and_port(balancer: Loaded) -> None:
    first = balancer.open()
    for _ in range(20):
        balancer.run(udp())
    assert balancer.index() == first


def test_every_client_port_gets_a_nat_port_of_its_own(balancer: Loaded) -> None:
    ports = [balancer.open(port=port) for port in range(2000, 2300)]
    assert len({(value.backend, value.nat_port) for value in ports}) == 300


def test_nat_ports_come_from_the_pool_and_in_no_order(balancer: Loaded) -> None:
    ports = [balancer.open(port=port).nat_port for port in range(2000, 2200)]
    assert all(balancer.plan.pool.offset(port) is not None for port in ports)
    steps = [after - before for before, after in pairwise(ports)]
    assert sum(0 < step < 100 for step in steps) < 20


@pytest.mark.parametrize("kind", list(Hash))
def test_the_program_chooses_the_backend_that_python_computes(kind: Hash) -> None:
    backends = [f"172.11.0.{number}" for number in range(20, 36)]
    with Loaded(make_request(*backends, hash=kind)) as balancer:
        for number in range(200):
            client, port = f"10.1.{number}.7", 1000 + number
            value = balancer.open(client, port)
            slot = select_slot(
                kind,
                balancer.plan.facts.hash_keys,
                (IPv4Address(client), port),
                (IPv4Address(SERVICE), 53),
            )
            assert value.backend == balancer.plan.tables[0][slot]


def test_the_default_hash_looks_at_addresses_only() -> None:
    with Loaded(make_request(*[f"172.11.0.{number}" for number in range(20, 36)])) as balancer:
        chosen = {balancer.open(port=port).backend for port in range(2000, 2050)}
        assert len(chosen) == 1


def test_two_service_ports_are_two_flows(balancer: Loaded) -> None:
    assert balancer.open(dport=53) != balancer.open(dport=123)


def test_a_flow_stays_with_its_backend_while_that_one_drains(balancer: Loaded) -> None:
    value = balancer.open()
    balancer.change_backend(value.backend, state=BackendCode.DRAIN)
    balancer.run(udp())
    assert balancer.index() == value


@pytest.mark.parametrize("state", [BackendCode.DOWN, BackendCode.UNUSED])
def test_a_flow_leaves_a_backend_that_is_gone(balancer: Loaded, state: BackendCode) -> None:
    value = balancer.open()
    other = 1 - value.backend
    balancer.change_backend(value.backend, state=state)
    table = b"".join(wire.U32.pack(other)[:2] for _ in range(16382))
    libbpf.update(balancer.maps["maglev"], wire.U32.pack(0), table)
    assert balancer.run(udp()).verdict == "forward"
    assert balancer.index().backend == other


def test_a_flow_leaves_a_backend_number_that_changed_hands(balancer: Loaded) -> None:
    value = balancer.open()
    balancer.change_backend(value.backend, generation=1)
    balancer.run(udp())
    assert balancer.flow(balancer.index()).owner.generation == 1


def test_a_backend_that_is_down_gets_no_new_flow() -> None:
    with Loaded(make_request("172.11.0.20")) as balancer:
        balancer.change_backend(0, state=BackendCode.DOWN)
        result = balancer.run(udp())
        assert (result.verdict, result.action) == ("drop_no_backend", XDP_DROP)


def test_an_unresolved_backend_is_counted_and_opens_no_flow() -> None:
    with Loaded(make_request("172.11.0.20")) as balancer:
        balancer.change_backend(0, mac=None)
        assert balancer.run(udp()).verdict == "drop_unresolved"
        assert balancer.entries() == {}


def test_a_flow_whose_backend_lost_its_address_is_dropped() -> None:
    with Loaded(make_request("172.11.0.20")) as balancer:
        balancer.open()
        balancer.change_backend(0, mac=None)
        assert balancer.run(udp()).verdict == "drop_unresolved"


def test_only_the_service_ports_are_balanced() -> None:
    ports = (PortRange(53, 53), PortRange(5000, 5010))
    with Loaded(make_request(ports=ports)) as balancer:
        verdicts = {
            port: balancer.run(udp(dport=port)).verdict
            for port in (52, 53, 54, 4999, 5000, 5010, 5011)
        }
    assert [port for port, verdict in verdicts.items() if verdict == "forward"] == [53, 5000, 5010]
    assert {verdicts[port] for port in (52, 54, 4999, 5011)} == {"pass_not_ours"}


@pytest.mark.parametrize(
    "option",
    [IPOption_RR(pointer=4, routers=["0.0.0.0"] * 3), IPOption_Timestamp(), b"\x01" * 40],
    ids=["record-route", "timestamp", "forty-no-ops"],
)
def test_ip_options_are_stepped_over_and_kept(balancer: Loaded, option: object) -> None:
    packet = udp(ip={"options": option})
    result = balancer.run(packet)
    assert result.packet == balancer.forwarded(packet)


@pytest.mark.parametrize(
    "fields",
    [{"tos": 0xB8}, {"tos": 0x03}, {"flags": "DF"}, {"id": 0xBEEF}, {"ttl": 2}, {"ttl": 255}],
    ids=str,
)
def test_what_a_nat_need_not_change_stays(balancer: Loaded, fields: dict[str, object]) -> None:
    packet = udp(ip=fields)
    balancer.open()
    assert balancer.run(packet).packet == balancer.forwarded(packet)


def test_ethernet_padding_is_carried_along(balancer: Loaded) -> None:
    padding = b"\xee" * 20
    packet = udp(b"x")
    result = balancer.run(packet + padding)
    assert len(result.packet) == len(packet) + 20
    assert result.packet.endswith(padding)


def test_the_traffic_of_a_backend_is_counted_in_ip_bytes(balancer: Loaded) -> None:
    value = balancer.open()
    balancer.run(udp(b"x" * 100))
    balancer.run(udp(b"x" * 100) + bytes(7))
    stats = tables.read_stats(balancer.maps, value.backend)
    assert stats == wire.StatsRecord(3, (28 + 5) + 2 * (28 + 100), 0, 0)


def test_the_first_packet_teaches_the_way_back(balancer: Loaded) -> None:
    value = balancer.open()
    assert balancer.flow(value).client_mac == bytes.fromhex(CLIENT_MAC.replace(":", ""))


def test_a_source_port_of_zero_is_a_client_like_any_other(balancer: Loaded) -> None:
    assert balancer.run(udp(sport=0)).verdict == "forward"


def test_the_clients_of_another_network_are_served(balancer: Loaded) -> None:
    assert balancer.run(udp(src="198.51.100.9")).verdict == "forward"
    assert CLIENT not in {f"{key.client}" for key in balancer.entries()}
