"""How many flows one client may have, and what becomes of those beyond (RFC 6888 REQ-4)."""

from __future__ import annotations

import struct
import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import XDP_DROP, Loaded, make_request, reservation
from packets import CLIENT, tcp, udp

from xdplb import wire
from xdplb.kernel import libbpf, tables
from xdplb.model import Hash, PortRange, Protocol
from xdplb.wire import BackendCode, FlowCode

if TYPE_CHECKING:
    from collections.abc import Iterable

BACKEND = {4: "172.11.0.20", 6: "2001:db8::20"}
OTHER = {4: "172.11.0.23", 6: "2001:db8:0:1::22"}
POOL = (PortRange(2000, 2199),)
LONG_S = 1000
"""Longer than any timeout, and the rest of a port after it."""


def limited(limit: int | None, version: int = 4, **options: Any) -> Loaded:
    """One backend, and clients with a limit; None for the default."""
    return Loaded(make_request(BACKEND[version], max_client_flows=limit, **options))


def counts(balancer: Loaded) -> tuple[list[int], list[int]]:
    """The two rows of counters."""
    size = balancer.plan.client_counters
    _, values = libbpf.lookup_all(balancer.maps["client_flows"], 4, 4, 2 * size)
    words = struct.unpack(f"={2 * size}i", values)
    return list(words[:size]), list(words[size:])


def set_counts(balancer: Loaded, value: int) -> None:
    """Write every counter."""
    for index in range(2 * balancer.plan.client_counters):
        libbpf.update(balancer.maps["client_flows"], wire.U32.pack(index), wire.U32.pack(value))


def assert_counted(balancer: Loaded) -> None:
    """Each row has every flow in it, and no counter has what no flow gave it."""
    records = [tables.read_flow(balancer.maps, at) for at in range(balancer.plan.capacity)]
    flows = sum(
        record.owner.state not in {FlowCode.FREE, FlowCode.CLAIMED, FlowCode.RESERVED}
        for record in records
    )
    for row in counts(balancer):
        assert sum(row) == flows
        assert min(row) >= 0


def try_all(balancer: Loaded, ports: Iterable[int], client: str | None = None) -> list[str]:
    """What becomes of a datagram from each of these ports."""
    client = client or balancer.client
    return [balancer.run(udp(src=client, sport=port)).verdict for port in ports]


def age_all(balancer: Loaded, seconds: float = LONG_S) -> None:
    """Let every flow look idle."""
    for key in balancer.entries():
        balancer.age(seconds, f"{key.client}", key.client_port, key.service_port, key.protocol)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("limit", [1, 3, 100])
def test_a_client_gets_as_many_flows_as_it_may_have(version: int, limit: int) -> None:
    with limited(limit, version, max_flows=4000) as balancer:
        assert set(try_all(balancer, range(2000, 2000 + limit))) == {"forward"}
        result = balancer.run(udp(src=balancer.client, sport=9000))
        assert (result.verdict, result.action) == ("drop_client_limit", XDP_DROP)
        assert balancer.run(udp(src=OTHER[version], sport=9000)).verdict == "forward"
        assert_counted(balancer)


def test_the_flows_of_a_client_at_its_limit_go_on() -> None:
    with limited(5, max_flows=4000) as balancer:
        values = {port: balancer.open(port=port) for port in range(2000, 2005)}
        assert try_all(balancer, range(3000, 3010)) == ["drop_client_limit"] * 10
        for port, value in values.items():
            assert balancer.open(port=port) == value
            assert balancer.run(balancer.answer(value)).verdict == "return"
        assert_counted(balancer)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("2001:db8:7:7::1", "2001:db8:7:7:ffff::2", True),
        ("2001:db8:7:7::1", "2001:db8:7:8::1", False),
        ("192.0.2.4", "192.0.2.5", False),
    ],
)
def test_a_client_is_an_address_or_an_ipv6_network(first: str, second: str, together: bool) -> None:  # noqa: FBT001 - a case
    with limited(3, ip_address(first).version, max_flows=4000) as balancer:
        assert set(try_all(balancer, range(2000, 2003), first)) == {"forward"}
        expected = "drop_client_limit" if together else "forward"
        assert try_all(balancer, [2000], second) == [expected]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("limit", "options"),
    [
        (3, {}),
        (100, {}),
        (None, {"nat_ports": POOL, "max_flows": 200}),
        (1000, {"nat_ports": (PortRange(2000, 9999),)}),
    ],
    ids=["3", "100", "half of 200", "1000 of 8000"],
)
def test_a_client_at_its_limit_is_served_again_when_its_flows_have_timed_out(
    version: int, limit: int | None, options: dict[str, Any]
) -> None:
    with limited(limit, version, **{"max_flows": 8000, **options}) as balancer:
        limit = balancer.plan.client_limit
        assert set(try_all(balancer, range(2000, 2000 + limit))) == {"forward"}
        assert try_all(balancer, [9000]) == ["drop_client_limit"]
        age_all(balancer, 31)
        assert set(try_all(balancer, range(10000, 10000 + limit // 2 + 1))) == {"forward"}
        assert_counted(balancer)


def test_one_timed_out_flow_makes_room_for_one_other() -> None:
    with limited(3, max_flows=4000) as balancer:
        values = [balancer.open(port=port) for port in range(2000, 2003)]
        balancer.age(31, port=2001)
        assert balancer.open(port=3000) == values[1]
        assert try_all(balancer, [3001]) == ["drop_client_limit"]
        assert_counted(balancer)


def test_the_count_falls_when_others_take_timed_out_records() -> None:
    with limited(2, max_flows=4) as balancer:
        for client in (balancer.client, OTHER[4]):
            assert try_all(balancer, [2000, 2001], client) == ["forward"] * 2
        for port in (2000, 2001):
            balancer.age(LONG_S, port=port)
        assert try_all(balancer, [2000, 2001], "192.0.2.1") == ["forward"] * 2
        assert_counted(balancer)
        for port in (2000, 2001):
            balancer.age(LONG_S, OTHER[4], port)
        assert try_all(balancer, [2000, 2001, 2002]) == ["forward"] * 2 + ["drop_client_limit"]
        assert_counted(balancer)


def test_a_record_that_was_claimed_and_left_is_not_uncounted() -> None:
    with limited(3, max_flows=4) as balancer:
        values = [balancer.open(port=port) for port in (2000, 2001)]
        place = balancer.flow_place(values[0])
        flow = tables.read_flow(balancer.maps, place)
        owner = flow.owner._replace(state=FlowCode.CLAIMED)
        claimed = flow._replace(owner=owner).pack()
        libbpf.update(balancer.maps["reverse_lookup"], wire.U32.pack(place), claimed)
        balancer.age(LONG_S, port=2000)
        assert try_all(balancer, range(2000, 2003), OTHER[4]) == ["forward"] * 3
        assert [sum(row) for row in counts(balancer)] == [5, 5], "two, of which none was taken back"


def test_a_flow_that_could_not_be_opened_does_not_count() -> None:
    with limited(8, max_flows=16) as balancer:
        for number in range(16):
            key = wire.ClientKey(ip_address("10.9.9.9"), number + 1, ip_address("10.9.9.8"), 1)
            value = wire.ClientValue(1, 0)
            libbpf.update(balancer.maps["client_port"], key.pack(), value.pack())
        assert try_all(balancer, range(2000, 2100)) == ["drop_table_full"] * 100
        assert_counted(balancer)


def test_a_refused_flow_does_not_count() -> None:
    with limited(4, max_flows=4) as balancer:
        assert set(try_all(balancer, range(2000, 2004))) == {"forward"}
        assert try_all(balancer, range(3000, 3010), OTHER[4]) == ["drop_no_port"] * 10
        assert try_all(balancer, range(3000, 3010)) == ["drop_client_limit"] * 10
        assert_counted(balancer)


def test_flows_opened_on_several_processors_are_counted_once() -> None:
    with limited(1000, max_flows=4096) as balancer:
        packets = [udp(sport=port) for port in range(2000, 2400)]

        def send() -> None:
            for packet in packets:
                libbpf.run_program(balancer.fd, packet)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(balancer.entries()) == 400
        assert_counted(balancer)


def test_without_a_limit_nobody_is_refused_or_counted() -> None:
    with limited(0, nat_ports=POOL, max_flows=200) as balancer:
        assert set(try_all(balancer, range(2000, 2120))) == {"forward"}
        assert not any(sum(row) for row in counts(balancer))


def test_by_default_half_of_the_ports_are_for_others() -> None:
    with limited(None, nat_ports=POOL, max_flows=200) as balancer:
        verdicts = try_all(balancer, range(2000, 2150))
        assert verdicts == ["forward"] * 100 + ["drop_client_limit"] * 50
        assert try_all(balancer, range(2000, 2050), OTHER[4]) == ["forward"] * 50


def test_a_reservation_does_not_count() -> None:
    reserved = (reservation(CLIENT, 5555, 6666), reservation(CLIENT, 5556, 6667))
    with limited(1, reservations=reserved) as balancer:
        assert try_all(balancer, [5555, 5556, 7000]) == ["forward"] * 3
        assert try_all(balancer, [7001, 5555]) == ["drop_client_limit", "forward"]
        assert sum(counts(balancer)[0]) == 1


def test_udp_and_tcp_count_together() -> None:
    options: dict[str, Any] = {"protocols": tuple(Protocol), "ports": (PortRange(53, 53),)}
    with limited(2, max_flows=16, **options) as balancer:
        assert balancer.run(tcp("S")).verdict == "forward"
        assert try_all(balancer, [2000, 2001]) == ["forward", "drop_client_limit"]
        assert balancer.run(tcp("S", sport=5556)).verdict == "drop_client_limit"


def test_a_client_spread_over_backends_has_one_limit() -> None:
    request = make_request(hash=Hash.FIVE_TUPLE, max_client_flows=100)
    with Loaded(request) as balancer:
        verdicts = try_all(balancer, range(2000, 2400))
        assert verdicts.count("forward") == 100
        assert {value.backend for value in balancer.entries().values()} == {0, 1}


def test_a_client_without_flows_is_never_refused_for_what_its_counters_say() -> None:
    """They count others, too, and flows toward backends that are gone."""
    with limited(3, max_flows=4000) as balancer:
        set_counts(balancer, 1000)
        assert try_all(balancer, [2000, 2001]) == ["forward", "drop_client_limit"]


def test_a_client_whose_backend_is_gone_is_served_by_another() -> None:
    request = make_request(max_client_flows=3, max_flows=100_000)
    with Loaded(request) as balancer:
        gone = {balancer.open(port=port).backend for port in range(2000, 2003)}.pop()
        assert try_all(balancer, [3000]) == ["drop_client_limit"]
        balancer.change_backend(gone, state=BackendCode.UNUSED)
        table = wire.U16.pack(1 - gone) * (libbpf.map_info(balancer.maps["maglev"]).value_size // 2)
        libbpf.update(balancer.maps["maglev"], wire.U32.pack(0), table)
        assert try_all(balancer, [3000]) == ["forward"]


def test_flows_from_before_there_was_a_limit_leave_no_trace() -> None:
    with limited(3, max_flows=4) as balancer:
        assert set(try_all(balancer, range(2000, 2003))) == {"forward"}
        set_counts(balancer, 0)
        age_all(balancer)
        assert set(try_all(balancer, range(3000, 3003), OTHER[4])) == {"forward"}
        for row in counts(balancer):
            assert (min(row), sum(row)) == (0, 3)
