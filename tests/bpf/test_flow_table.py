"""How flows come, stay and go: timeouts, reclaiming, a full table."""

from __future__ import annotations

import threading
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
from bpf_harness import XDP_DROP, Loaded, make_request
from packets import udp
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from xdplb import wire
from xdplb.facts import Running
from xdplb.kernel import clock, counting, libbpf, tables
from xdplb.startup import describe
from xdplb.wire import FlowCode

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from xdplb.wire import ClientValue


@pytest.fixture
def small() -> Iterator[Loaded]:
    """Room for 16 flows."""
    with Loaded(make_request("172.11.0.20", max_flows=16)) as loaded:
        yield loaded


def fill(balancer: Loaded, count: int) -> list[ClientValue]:
    """Open flows of client ports 2000 and up."""
    return [balancer.open(port=port) for port in range(2000, 2000 + count)]


def assert_consistent(balancer: Loaded) -> None:
    """Every index entry leads to a record that is its own, and no record is without."""
    seen = set()
    for key, value in balancer.entries().items():
        flow = balancer.flow(value)
        assert (flow.client, flow.client_port) == (key.client, key.client_port)
        assert flow.owner.backend == value.backend
        seen.add(balancer.flow_place(value))
    used = {
        place
        for place in range(balancer.plan.capacity)
        if tables.read_flow(balancer.maps, place).owner.state is not FlowCode.FREE
    }
    assert seen == used
    assert len(seen) == len(balancer.entries())


def test_every_port_is_used_before_one_is_refused(small: Loaded) -> None:
    assert len({value.nat_port for value in fill(small, 16)}) == 16


def test_a_full_table_refuses_new_flows_and_keeps_the_old(small: Loaded) -> None:
    values = fill(small, 16)
    result = small.run(udp(sport=3000))
    assert (result.verdict, result.action) == ("drop_no_port", XDP_DROP)
    assert [small.open(port=port) for port in range(2000, 2016)] == values
    assert_consistent(small)


def test_an_unreplied_flow_gives_its_port_away_after_its_timeout(small: Loaded) -> None:
    fill(small, 16)
    small.age(29, port=2003)
    assert small.run(udp(sport=3000)).verdict == "drop_no_port"
    small.age(31, port=2003)
    port = small.index(port=2003).nat_port
    assert small.open(port=3000).nat_port == port
    assert_consistent(small)


def test_an_answered_flow_is_kept_four_times_as_long(small: Loaded) -> None:
    values = fill(small, 16)
    small.run(small.answer(values[3]))
    small.age(119, port=2003)
    assert small.run(udp(sport=3000)).verdict == "drop_no_port"
    small.age(121, port=2003)
    assert small.run(udp(sport=3000)).verdict == "forward"


def test_the_client_of_a_reclaimed_flow_starts_anew(small: Loaded) -> None:
    fill(small, 16)
    small.age(31, port=2003)
    small.open(port=3000)
    small.age(31, port=2005)
    assert small.run(udp(sport=2003)).verdict == "forward"
    assert small.index(port=2003).nat_port != small.index(port=3000).nat_port
    assert_consistent(small)


def test_an_idle_flow_that_nobody_replaced_goes_on_with_its_port(small: Loaded) -> None:
    value = small.open(port=2000)
    small.age(1000, port=2000)
    assert small.open(port=2000).nat_port == value.nat_port


def test_a_packet_of_the_client_keeps_the_flow_alive(small: Loaded) -> None:
    fill(small, 16)
    small.age(20, port=2003)
    small.run(udp(sport=2003))
    idle = clock.ticks() - small.flow(small.index(port=2003)).owner.seen
    assert idle < wire.TICKS_PER_S


def test_an_answer_keeps_the_flow_alive(small: Loaded) -> None:
    value = small.open(port=2003)
    small.run(small.answer(value))
    small.age(100, port=2003)
    small.run(small.answer(value))
    assert clock.ticks() - small.flow(value).owner.seen < wire.TICKS_PER_S


def test_a_hot_flow_is_not_written_with_every_packet(small: Loaded) -> None:
    value = small.open(port=2003)
    small.run(small.answer(value))
    small.age(0.4, port=2003)
    before = small.flow(value)
    for _ in range(5):
        small.run(udp(sport=2003))
        small.run(small.answer(value))
    assert small.flow(value) == before


def test_an_answer_to_a_reclaimed_port_goes_to_nobody_else(small: Loaded) -> None:
    values = fill(small, 16)
    late = small.answer(values[3], sport=53)
    small.age(31, port=2003)
    small.open(port=3000, dport=123)
    assert small.run(late).verdict != "return"


BACKEND = {4: "172.11.0.20", 6: "2001:db8::20"}
OTHER = {4: "172.11.0.23", 6: "2001:db8::23"}
UNREPLIED_S = 30
REST_S = 120


@pytest.fixture(params=[4, 6])
def four(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    """Four places, so every flow has its home in all of them, and takes the first that will do."""
    with Loaded(make_request(BACKEND[request.param], max_flows=4)) as loaded:
        yield loaded


def test_a_timed_out_port_rests_before_another_client_gets_it(four: Loaded) -> None:
    first = four.open(port=2000)
    four.age(UNREPLIED_S + REST_S - 1, port=2000)
    other = OTHER[four.version]
    assert four.open(other).nat_port == first.nat_port + 1
    four.age(UNREPLIED_S + REST_S + 1, port=2000)
    assert four.open(other, port=3000).nat_port == first.nat_port
    assert_consistent(four)


def test_the_same_client_gets_a_timed_out_port_at_once(four: Loaded) -> None:
    first = four.open(port=2000)
    four.age(UNREPLIED_S + 1, port=2000)
    assert four.open(port=2001).nat_port == first.nat_port
    assert_consistent(four)


def test_no_port_rests_while_a_new_client_has_no_other(four: Loaded) -> None:
    values = fill(four, 4)
    for port in range(2001, 2004):
        four.age(UNREPLIED_S + 1, port=port)
    opened = [four.open(OTHER[four.version], port=port) for port in range(3000, 3003)]
    assert [value.nat_port for value in opened] == [value.nat_port for value in values[1:]]
    assert four.run(udp(src=OTHER[four.version], sport=3003)).verdict == "drop_no_port"
    assert_consistent(four)


def test_a_port_that_has_rested_is_preferred_wherever_it_is(small: Loaded) -> None:
    fill(small, 16)
    for port in range(2000, 2016):
        small.age(UNREPLIED_S + 1, port=port)
    rested = small.index(port=2011).nat_port
    small.age(UNREPLIED_S + REST_S + 1, port=2011)
    assert small.open(OTHER[4]).nat_port == rested
    assert_consistent(small)


def test_a_late_answer_reaches_no_other_client_while_there_are_other_ports(small: Loaded) -> None:
    late = small.answer(small.open())
    small.age(UNREPLIED_S + 1)
    for number in range(15):
        small.open(f"10.0.0.{number + 1}")
    assert Ether(small.run(late).packet)[IP].dst == small.client
    assert_consistent(small)


def test_an_index_entry_that_leads_nowhere_is_replaced(small: Loaded) -> None:
    value = small.open(port=2000)
    small.age(5, port=2000)
    free = bytes(wire.SIZES[4]["flow"])
    libbpf.update(small.maps["reverse_lookup"], wire.U32.pack(small.flow_place(value)), free)
    assert small.run(udp(sport=2000)).verdict == "forward"
    assert_consistent(small)


def test_a_full_index_is_counted_by_its_own_name() -> None:
    with Loaded(make_request("172.11.0.20", max_flows=16)) as balancer:
        for number in range(16):
            key = wire.ClientKey(IPv4Address("10.9.9.9"), number + 1, IPv4Address("10.9.9.8"), 1)
            value = wire.ClientValue(1, 0)
            libbpf.update(balancer.maps["client_port"], key.pack(), value.pack())
        result = balancer.run(udp())
        assert (result.verdict, result.action) == ("drop_table_full", XDP_DROP)
        assert _live(balancer) == {}


def _running(balancer: Loaded) -> Running:
    plan = balancer.plan
    return Running(0, "", describe([plan], 0, (), {}), {plan.version: plan.records})


def _live(balancer: Loaded) -> Counter[int]:
    running = _running(balancer)
    owners = counting.owners(balancer.maps, running)
    return counting.flows_by_backend(owners, balancer.plan.version, running, clock.ticks())


def test_live_flows_are_counted_by_backend_and_idle_ones_are_not() -> None:
    with Loaded(make_request("172.11.0.20", "172.11.0.21", max_flows=100_000)) as balancer:
        opened = [balancer.open(f"10.0.{number}.1") for number in range(100)]
        balancer.age(31, "10.0.7.1")
        balancer.age(31, "10.0.8.1")
        live = _live(balancer)
        assert sum(live.values()) == 98
        assert sum(value.backend == 0 for value in opened) - live[0] <= 2
        owners = counting.owners(balancer.maps, _running(balancer))
        in_use = counting.records_in_use(owners)
        assert in_use == 100  # they have their records until these are taken


def test_the_same_new_flow_on_two_processors_is_one_flow() -> None:
    with Loaded(make_request("172.11.0.20", max_flows=4096)) as balancer:
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
        assert_consistent(balancer)


@pytest.mark.parametrize("count", [1, 7, 255, 256, 257, 300, 1000])
def test_a_range_of_any_size_is_used_to_the_last_port(count: int) -> None:
    with Loaded(make_request("172.11.0.20", max_flows=count)) as balancer:
        tries = 0
        opened = 0
        while opened < count and tries < 40 * count:
            tries += 1
            opened += balancer.run(udp(sport=1024 + tries)).verdict == "forward"
        assert opened == count


def test_a_flow_away_from_home_is_found_by_its_index(small: Loaded) -> None:
    """Sixteen flows have four homes of four places: some live elsewhere."""
    values = fill(small, 16)
    homes = {value.nat_port // 4 for value in values}
    assert len(homes) == 4
    before = small.verdicts()["forward"]
    assert [small.open(port=port) for port in range(2000, 2016)] == values
    assert small.verdicts()["forward"] == before + 16


def test_a_flow_at_home_needs_no_index() -> None:
    with Loaded(make_request("172.11.0.20")) as balancer:
        value = balancer.open()
        key = next(iter(balancer.entries()))
        libbpf.delete(balancer.maps["client_port"], key.pack())
        assert balancer.run(udp()).verdict == "forward"
        assert balancer.entries() == {}
        assert balancer.run(balancer.answer(value)).verdict == "return"


def test_a_flow_stays_when_a_new_one_would_get_another_backend() -> None:
    with Loaded() as balancer:
        value = balancer.open()
        other = 1 - value.backend
        table = wire.U16.pack(other) * (libbpf.map_info(balancer.maps["maglev"]).value_size // 2)
        libbpf.update(balancer.maps["maglev"], wire.U32.pack(0), table)
        assert balancer.open() == value
        assert balancer.open(port=6000).backend == other


@pytest.mark.parametrize("count", [1, 300, 3000])
def test_a_backend_is_known_by_its_address_however_many_there_are(count: int) -> None:
    addresses = [f"{IPv4Address('10.1.0.0') + number}" for number in range(count)]
    with Loaded(make_request(*addresses)) as balancer:
        for client in range(40):
            value = balancer.open(f"10.200.0.{client}")
            assert balancer.run(balancer.answer(value)).verdict == "return"
        stranger = udp(src="10.199.0.1", sport=53, dport=value.nat_port)
        assert balancer.run(stranger).verdict == "forward"
