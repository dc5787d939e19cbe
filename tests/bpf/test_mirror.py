"""One program follows another: what changes in its flows is so in both, whatever was there."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from bpf_harness import Loaded, make_request, reservation
from carried import (
    BACKENDS,
    BOTH,
    CLIENTS,
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
from packets import CLIENT, tcp, udp

from xdplb import saved, wire
from xdplb.kernel import carry, clock, libbpf
from xdplb.kernel.following import Follower
from xdplb.restoring import Destination, Moment
from xdplb.saved import Skip
from xdplb.wire import FlowCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdplb.saved import Saved

OPTIONS = {"max_client_flows": 7, "max_flows": 4000}


class Pair:
    """A program, and one that follows it."""

    def __init__(self, leader: Loaded, standby: Loaded, follower: Follower) -> None:
        self.leader, self.standby, self._follower = leader, standby, follower

    def told(self) -> list[Saved]:
        """What is new, through the bytes of a stream."""
        found = self._follower.changes(running(self.leader), ("lo",), 1.0)
        return [saved.read(b"".join(item.pieces()), "the stream") for item in found]

    def follow(self) -> tuple[int, Counter[Skip]]:
        """Let the standby take what is new; returns how many flows that were, and who not."""
        count, skipped = 0, Counter[Skip]()
        for found in self.told():
            (part,) = found.parts
            into = running(self.standby)
            moment = Moment(clock.ticks(), 0.0)
            destination = Destination(into, ("lo",), found, part, moment, rules=True)
            maps = self.standby.maps
            carry.write(maps, into, destination, part.count, is_attached=True, rules=True)
            count += part.count
            skipped.update(destination.skipped)
        return count, +skipped

    def assert_alike(self) -> None:
        """All flows are in both, and no other ones."""
        assert_consistent(self.standby)
        ways = [
            {
                key: (value.nat_port, one.backend(value.backend).address, one.flow(value).owner)
                for key, value in one.entries().items()
            }
            for one in (self.leader, self.standby)
        ]
        here, there = ({key: way[:2] for key, way in one.items()} for one in ways)
        assert here == there
        for key, (_, _, owner) in ways[0].items():
            other = ways[1][key][2]
            assert other.state is owner.state
        assert sum(counts(self.standby)) == 2 * len(here), "each is counted once in each row"


@contextmanager
def pair(leader: Loaded, standby: Loaded) -> Iterator[Pair]:
    """Both, until the end of the block."""
    with leader, standby, Follower(leader.every, running(leader)) as follower:
        yield Pair(leader, standby, follower)


def loaded(version: int = 4) -> tuple[Loaded, Loaded]:
    """Two programs with the same backends under other numbers, and with other keys."""
    return (
        Loaded(make_request(*BACKENDS[version], **OPTIONS)),
        Loaded(make_request(*OTHER_ORDER[version], **OPTIONS), hash_keys=OTHER_KEYS),
    )


@pytest.mark.parametrize("version", [4, 6])
def test_flows_are_told_at_first_and_when_they_begin(version: int) -> None:
    with pair(*loaded(version)) as both:
        open_many(both.leader, 30)
        assert both.follow() == (30, {})
        both.assert_alike()
        assert both.follow() == (0, {}), "nothing has changed"
        for number in range(5):
            both.leader.open(CLIENTS[version].format(number), port=7000)
        assert both.follow() == (5, {})
        both.assert_alike()
        assert_same_ways(both.leader, both.standby)


def test_a_flow_that_is_answered_is_told_at_once() -> None:
    with pair(*loaded()) as both:
        value = both.leader.open()
        both.follow()
        assert both.standby.flow(both.standby.index()).owner.state is FlowCode.UNREPLIED
        assert both.leader.run(both.leader.answer(value)).verdict == "return"
        assert both.follow() == (1, {})
        assert both.standby.flow(both.standby.index()).owner.state is FlowCode.ANSWERED
        both.assert_alike()


def test_a_connection_is_followed_through_its_states() -> None:
    one = Loaded(make_request(*BACKENDS[4], **BOTH))
    other = Loaded(make_request(*OTHER_ORDER[4], **BOTH), hash_keys=OTHER_KEYS)
    with pair(one, other) as both:
        assert one.run(tcp("S")).verdict == "forward"
        both.follow()
        (key,) = one.entries()
        for code in (FlowCode.TCP_ESTABLISHED, FlowCode.TCP_CLIENT_FIN, FlowCode.TCP_CLOSING):
            set_owner(one, key, state=code)
            assert both.follow() == (1, {})
            (value,) = other.entries().values()
            assert other.flow(value).owner.state is code


def test_a_flow_that_goes_on_does_not_look_idle_there() -> None:
    """It is told again after a quarter of its timeout, and exactly when it has fallen silent."""
    with pair(*loaded()) as both:
        both.leader.open()
        both.leader.age(20)
        both.follow()
        both.leader.age(9)  # seen again
        assert [both.follow()[0] for _ in range(4)].count(1) == 1, "each looks at it once"
        seen = [one.flow(one.index()).owner.seen for one in (both.leader, both.standby)]
        assert abs(seen[0] - seen[1]) <= 2
        both.leader.age(7)
        assert [both.follow()[0] for _ in range(4)].count(1) == 1, "silent for an eighth"
        both.leader.age(2)
        both.follow()
        both.leader.age(0)
        assert {both.follow()[0] for _ in range(4)} == {0}, "not for each packet"


def test_a_packet_that_a_flow_has_had_there_is_not_forgotten() -> None:
    with pair(*loaded()) as both:
        both.leader.open()
        both.leader.age(20)
        both.follow()
        (key,) = both.standby.entries()
        assert both.standby.run(question(key)).verdict == "forward"
        both.leader.age(10)
        for _ in range(4):
            both.follow()
        idle = clock.ticks() - both.standby.flow(both.standby.index()).owner.seen
        assert idle / wire.TICKS_PER_S < 2


def test_a_flow_that_is_killed_ends_there_too() -> None:
    with pair(*loaded()) as both:
        open_many(both.leader, 9)
        both.follow()
        key = next(iter(both.leader.entries()))
        set_owner(both.leader, key, seen=0, generation=0x80)
        assert both.follow() == (1, {})
        assert key not in both.standby.entries()
        assert len(both.standby.entries()) == 8
        assert_consistent(both.standby)
        assert sum(counts(both.standby)) == 16


def test_a_port_that_another_client_gets_is_that_clients_there_too() -> None:
    one = Loaded(make_request("172.11.0.20", max_flows=16, max_client_flows=0))
    other = Loaded(make_request("172.11.0.20", max_flows=16, max_client_flows=0))
    with pair(one, other) as both:
        for port in range(2000, 2016):
            one.open(port=port)
        both.follow()
        for port in range(2000, 2016):
            one.age(200, port=port)
        for port in range(3000, 3016):
            one.open("10.3.0.1", port=port)
        both.follow()
        assert {key.client_port for key in other.entries()} == {*range(3000, 3016)}
        assert_consistent(other)


def test_what_was_there_makes_room_for_the_leaders_flows() -> None:
    """Its ports and its clients' flows count, whatever the other one has had by itself."""
    same = {"max_flows": 64, "max_client_flows": 1000}
    one = Loaded(make_request("172.11.0.20", **same))
    other = Loaded(make_request("172.11.0.20", **same), hash_keys=OTHER_KEYS)
    with pair(one, other) as both:
        for port in range(2000, 2040):
            one.open(port=port)
            other.open(port=port + 20)
        assert both.follow() == (40, {})
        assert_consistent(other)
        for key, value in one.entries().items():
            assert other.entries()[key].nat_port == value.nat_port
        assert sum(counts(other)) == 2 * len(other.entries())
        assert_same_ways(one, other)


def test_a_reservation_of_the_standby_stays() -> None:
    with Loaded() as bare:
        port = bare.open(port=5556).nat_port
    reserved = Loaded(make_request(reservations=(reservation(CLIENT, 7777, port),)))
    with pair(Loaded(), reserved) as both:
        assert both.leader.open(port=5556).nat_port == port
        assert both.follow() == (1, {Skip.PORT_TAKEN: 1})
        assert reserved.run(udp(sport=7777)).verdict == "forward"


def test_a_backend_that_the_standby_has_not_is_counted() -> None:
    one = Loaded(make_request("172.11.0.20"))
    with pair(one, Loaded(make_request("172.11.0.29"))) as both:
        open_many(one, 4)
        assert both.follow() == (4, {Skip.BACKEND_GONE: 4})


def test_flows_change_at_random_and_are_always_the_same_in_the_end() -> None:
    one = Loaded(make_request(*BACKENDS[4], max_flows=64, nat_ports=(), max_client_flows=0))
    other = Loaded(make_request(*BACKENDS[4], max_flows=64, max_client_flows=0))
    with pair(one, other) as both:
        for turn in range(30):
            for number in range(8):
                client = CLIENTS[4].format((turn * 5 + number * 3) % 23)
                one.run(udp(src=client, sport=2000 + (turn * 7 + number) % 11))
            for key in list(one.entries())[turn % 3 :: 4]:
                set_owner(one, key, seen=(clock.ticks() - 16 * 300) & 0xFFFFFFFF)
            for _ in range(4):  # within which each record is looked at
                both.follow()
            live = _live(one)
            assert {key: way for key, way in _live(other).items() if key in live} == live
            assert_consistent(other)


def _live(balancer: Loaded) -> dict[wire.ClientKey, int]:
    """The flows that have not timed out, each with its port."""
    now = clock.ticks()
    return {
        key: value.nat_port
        for key, value in balancer.entries().items()
        if now - balancer.flow(value).owner.seen & 0xFFFFFFFF < 16 * 25
    }


def test_packets_on_the_standby_do_no_harm_meanwhile() -> None:
    """They come where two machines have the address for a moment."""
    same = {"max_flows": 2048, "max_client_flows": 0}
    one = Loaded(make_request("172.11.0.20", **same))
    other = Loaded(make_request("172.11.0.20", **same), hash_keys=OTHER_KEYS)
    with pair(one, other) as both:
        for number in range(600):
            one.open(f"10.1.{number // 250}.{number % 250 + 1}")
        packets = [udp(src="10.2.0.1", sport=port) for port in range(2000, 2600)]

        def send() -> None:
            for packet in packets:
                libbpf.run_program(other.fd, packet)

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        _, skipped = both.follow()
        for thread in threads:
            thread.join()
        assert skipped.keys() <= {Skip.PORT_TAKEN}
        assert_consistent(other)
        there = other.entries()
        same_ways = sum(
            key in there and there[key].nat_port == value.nat_port
            for key, value in one.entries().items()
        )
        assert same_ways >= 590 - skipped.total()
