"""Flows leave one program and go on in another: same NAT port, same backend, byte by byte."""

from __future__ import annotations

import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import Loaded, make_request, reservation
from carried import (
    BACKENDS,
    BOTH,
    CLIENTS,
    DNS,
    OTHER_KEYS,
    OTHER_ORDER,
    assert_consistent,
    assert_same_ways,
    counts,
    open_many,
    question,
    running,
    set_owner,
)
from lab import PATIENCE
from packets import CLIENT, tcp, udp
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether

from xdplb import saved, wire
from xdplb.kernel import carry, clock, libbpf
from xdplb.listing import Listing, Wanted, pick
from xdplb.model import Backend, PortRange, Protocol
from xdplb.request import Request, Service
from xdplb.restoring import Destination, Moment
from xdplb.saved import Saved, Skip
from xdplb.saving import LISTED, LISTED_NAMES, STATE_NAMES
from xdplb.wire import FlowCode

if TYPE_CHECKING:
    from collections import Counter


def save(balancer: Loaded) -> Saved:
    """What a file would hold, through its bytes."""
    part = carry.read(balancer.maps, running(balancer), clock.ticks())
    written = Saved(0.0, ("lo", ""), STATE_NAMES, (part,))
    return saved.read(b"".join(written.pieces()), "FILE")


def restore(
    found: Saved, balancer: Loaded, away_s: float = 0.0, *, is_attached: bool = False
) -> Counter[Skip]:
    """Let a balancer go on with saved flows; returns those that it does not, by reason."""
    (part,) = found.parts
    into = running(balancer)
    moment = Moment(clock.ticks(), away_s)
    destination = Destination(into, ("lo",), found, part, moment)
    carry.write(balancer.maps, into, destination, part.count, is_attached=is_attached)
    return +destination.skipped


@pytest.mark.parametrize("version", [4, 6])
def test_flows_go_on_in_a_program_with_other_keys_and_other_numbers(version: int) -> None:
    options = {"max_client_flows": 7, "max_flows": 4000}
    with (
        Loaded(make_request(*BACKENDS[version], **options)) as old,
        Loaded(make_request(*OTHER_ORDER[version], **options), hash_keys=OTHER_KEYS) as new,
        Loaded(make_request(*OTHER_ORDER[version], **options), hash_keys=OTHER_KEYS) as recount,
    ):
        open_many(old)
        assert restore(save(old), new) == {}
        open_many(recount)
        assert counts(new) == counts(recount), "as if the program had counted them"
        assert_consistent(new)
        assert_same_ways(old, new)
        assert counts(new) == counts(recount), "no flow was opened anew"


def test_flows_away_from_their_new_home_are_found_by_the_index() -> None:
    with Loaded() as old, Loaded(hash_keys=OTHER_KEYS) as new, Loaded(hash_keys=OTHER_KEYS) as bare:
        open_many(old)
        found = save(old)
        for balancer in (new, bare):
            assert restore(found, balancer) == {}
        for key in bare.entries():
            libbpf.delete(bare.maps["client_port"], key.pack())
        for key in old.entries():
            assert {one.run(question(key)).verdict for one in (new, bare)} == {"forward"}
        assert bare.entries(), "without an index they begin anew"
        assert {key: value.nat_port for key, value in new.entries().items()} == {
            key: value.nat_port for key, value in old.entries().items()
        }


@pytest.mark.parametrize("version", [4, 6])
def test_every_state_and_idle_time_is_carried(version: int) -> None:
    codes = [code for code in FlowCode if code >= FlowCode.TCP_OPENING]
    with (
        Loaded(make_request(*BACKENDS[version], **BOTH)) as old,
        Loaded(make_request(*OTHER_ORDER[version], **BOTH), hash_keys=OTHER_KEYS) as new,
    ):
        client = CLIENTS[version].format(1)
        for port in range(5000, 5000 + len(codes)):
            assert old.run(tcp("S", src=client, sport=port)).verdict == "forward"
        udp_packets = [udp(src=client, sport=port) for port in (6000, 6001)]
        assert {old.run(packet).verdict for packet in udp_packets} == {"forward"}
        for key in list(old.entries()):
            idle = round((key.client_port % 17) * wire.TICKS_PER_S)
            seen = (clock.ticks() - idle) & 0xFFFFFFFF
            at = key.client_port - 5000
            state = codes[at] if at < len(codes) else FlowCode(FlowCode.UNREPLIED + at % 2)
            set_owner(old, key, seen=seen, state=state)
        assert restore(save(old), new) == {}
        for key, value in old.entries().items():
            before, after = old.flow(value).owner, new.flow(new.entries()[key]).owner
            assert after.state is before.state
            assert abs(after.seen - before.seen) <= 7 * PATIENCE  # the idle times are 15 apart
        assert_same_ways(old, new)


def test_services_with_nat_addresses_are_found_by_what_they_are() -> None:
    def services(*order: int) -> tuple[Service, ...]:
        made = [
            _service(1, 20, 21, nat=(101, 102)),
            _service(2, 20, 21),
            _service(1, 22, ports=(PortRange(443, 443),), protocol=Protocol.TCP),
            _service(3, 20, nat=(101,), ports=(PortRange(100, 199),)),
        ]
        return tuple(made[number] for number in order)

    with (
        Loaded(Request(("lo",), services(0, 1, 2, 3))) as old,
        Loaded(Request(("lo",), services(3, 2, 1, 0)), hash_keys=OTHER_KEYS) as new,
    ):
        for number in range(30):
            client = CLIENTS[4].format(number)
            for last, port in ((1, 53), (2, 53), (3, 100 + number)):
                assert old.run(udp(src=client, dst=f"172.11.0.{last}", dport=port)).verdict == (
                    "forward"
                )
            assert old.run(tcp("S", src=client, dst="172.11.0.1", dport=443)).verdict == "forward"
        assert restore(save(old), new) == {}
        assert len(new.entries()) == 120
        assert_same_ways(old, new)
        assert_consistent(new)


def _service(number: int, *backends: int, nat: tuple[int, ...] = (), **fields: Any) -> Service:
    return Service(
        backends=tuple(Backend(ip_address(f"172.11.0.{item}")) for item in backends),
        address=ip_address(f"172.11.0.{number}"),
        nat_addresses=tuple(ip_address(f"172.11.0.{item}") for item in nat),
        **{"ports": DNS, **fields},
    )


def test_timed_out_flows_are_not_saved_and_those_that_time_out_meanwhile_not_restored() -> None:
    with Loaded() as old, Loaded(hash_keys=OTHER_KEYS) as new:
        old.open(port=2000)
        old.open(port=2001)
        old.open(port=2002)
        old.age(31, port=2000)
        old.age(15, port=2001)
        found = save(old)
        assert found.count == 2
        assert restore(found, new, away_s=20) == {Skip.TIMED_OUT: 1}
        idle = clock.ticks() - new.flow(new.index(port=2002)).owner.seen
        assert abs(idle / wire.TICKS_PER_S - 20) < 1


def test_a_reservation_is_not_saved_and_keeps_its_port() -> None:
    reserved = (reservation(CLIENT, 5555, 6666),)
    with Loaded(make_request(reservations=reserved)) as old:
        assert old.run(udp()).verdict == "forward"
        other = old.open(port=5556)
        found = save(old)
        assert found.count == 1
        with Loaded(make_request(reservations=(reservation(CLIENT, 7777, other.nat_port),))) as new:
            assert restore(found, new) == {Skip.PORT_TAKEN: 1}
            sent = Ether(new.run(udp(sport=7777)).packet)
            assert sent[UDP].sport == other.nat_port


def test_a_reservation_is_listed_once_it_has_had_a_packet() -> None:
    def listed() -> Listing:
        part = carry.read(balancer.maps, running(balancer), clock.ticks(), LISTED)
        return pick(Saved(0.0, ("lo", ""), LISTED_NAMES, (part,)), Wanted(nat_port=6666))

    with Loaded(make_request(reservations=(reservation(CLIENT, 5555, 6666),))) as balancer:
        assert listed().total == 0
        assert balancer.run(udp(dport=53)).verdict == "forward"
        (flow,) = listed().flows
        assert (f"{flow.client}", flow.service.port) == (f"{CLIENT}:5555", 53)
        assert (flow.state, round(flow.idle_s)) == ("reserved", 0)


def test_a_running_program_loses_no_flow_to_restored_ones() -> None:
    with (
        Loaded(make_request("172.11.0.20", max_flows=64)) as old,
        Loaded(make_request("172.11.0.20", max_flows=64), hash_keys=OTHER_KEYS) as new,
    ):
        for port in range(2000, 2030):
            old.open(port=port)
        mine = {port: new.open(port=port) for port in range(2020, 2050)}
        skipped = restore(save(old), new, is_attached=True)
        assert skipped.total() == 30 - (len(new.entries()) - 30)
        assert skipped[Skip.CLIENT_KNOWN] + skipped[Skip.PORT_TAKEN] == skipped.total() >= 10
        assert {port: new.open(port=port) for port in mine} == mine
        assert_consistent(new)
        assert sum(counts(new)) == 2 * len(new.entries())


def test_timed_out_flows_make_room_for_restored_ones() -> None:
    with (
        Loaded(make_request("172.11.0.20", max_flows=16)) as old,
        Loaded(make_request("172.11.0.20", max_flows=16), hash_keys=OTHER_KEYS) as new,
    ):
        for port in range(2000, 2016):
            old.open(port=port)
            new.open(port=port + 8)
        for port in range(2008, 2024):
            new.age(31, port=port)
        assert restore(save(old), new, is_attached=True) == {}
        assert_consistent(new)
        assert sum(counts(new)) == 32
        assert_same_ways(old, new)


@pytest.mark.parametrize("is_attached", [False, True])
def test_of_two_saved_flows_of_one_client_the_later_one_counts(*, is_attached: bool) -> None:
    """A client whose backend was down for a while has such."""
    for newest in (0, 1):
        with Loaded(make_request(*BACKENDS[4])) as old, Loaded(hash_keys=OTHER_KEYS) as new:
            for backend in (0, 1):
                table = wire.U16.pack(backend) * (
                    libbpf.map_info(old.maps["maglev"]).value_size // 2
                )
                libbpf.update(old.maps["maglev"], wire.U32.pack(0), table)
                value = old.open()
                old.age(1 if backend == newest else 10)
                if backend == newest:
                    wanted = (old.backend(backend).address, value.nat_port)
                (key,) = old.entries()
                libbpf.delete(old.maps["client_port"], key.pack())
            assert save(old).count == 2
            skipped = restore(save(old), new, is_attached=is_attached)
            assert skipped == {Skip.CLIENT_KNOWN: 1}
            (found,) = new.entries().values()
            assert (new.backend(found.backend).address, found.nat_port) == wanted
            assert_consistent(new)
            assert sum(counts(new)) == 2


def test_flows_are_restored_while_packets_open_others() -> None:
    with (
        Loaded(make_request("172.11.0.20", max_flows=8192)) as old,
        Loaded(make_request("172.11.0.20", max_flows=8192), hash_keys=OTHER_KEYS) as new,
    ):
        for number in range(600):
            old.open(f"10.1.{number // 250}.{number % 250 + 1}")
        found = save(old)
        packets = [udp(src="10.2.0.1", sport=port) for port in range(2000, 2600)]

        def send() -> None:
            for packet in packets:
                libbpf.run_program(new.fd, packet)

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        skipped = restore(found, new, is_attached=True)
        for thread in threads:
            thread.join()
        assert len(new.entries()) == 1200 - skipped.total()
        assert_consistent(new)
