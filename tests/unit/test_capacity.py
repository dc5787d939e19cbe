"""How much a load needs: the arithmetic, by hand and by its own laws."""

from __future__ import annotations

import math
import random
from collections import Counter
from ipaddress import IPv4Address
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdplb.capacity.chance import largest_part, poisson_mean, poisson_most
from xdplb.capacity.limits import MOST_BALANCERS, MOST_NAT_ADDRESSES
from xdplb.capacity.load import MOMENT_RISK, Load
from xdplb.capacity.sizing import Sizing, size
from xdplb.capacity.speed import Speed
from xdplb.capacity.stock import Stock, safe
from xdplb.errors import InvalidValueError
from xdplb.model import DEFAULT_MAX_FLOWS, Backend, Hash, PortRange, Protocol, Timeouts
from xdplb.ports import NatPool
from xdplb.selection import MAGLEV_SIZE, build_table, select_slot

USUAL: Final = NatPool((PortRange(1024, 32767), PortRange(61000, 65535)))
SMALL: Final = NatPool((PortRange(2000, 2099),))
SERVICE: Final = IPv4Address("192.0.2.1")
COUNTS: Final = st.integers(1, 2000)


def stock(pool: NatPool = USUAL, **fields: Any) -> Stock:
    return Stock(pool, **fields)


def sized(pool: NatPool = USUAL, *, load: Load | None = None, **fields: Any) -> Sizing:
    return size(load or Load(rate=100), stock(pool, **fields))


# Chance


def above(mean: float, least: int) -> float:
    """The chance that a Poisson variable is at least so much."""
    return 1 - sum(
        math.exp(number * math.log(mean) - mean - math.lgamma(number + 1))
        for number in range(least)
    )


@given(st.floats(0.01, 200), st.sampled_from([1e-2, 1e-4, 1e-6]))
def test_a_busy_moment_is_as_rare_as_it_should_be(mean: float, risk: float) -> None:
    most = poisson_most(mean, risk)
    assert above(mean, math.ceil(most)) <= risk * 1.001 + 1e-12


@given(st.floats(0, 1e6))
def test_a_busy_moment_and_its_mean_belong_together(most: float) -> None:
    mean = poisson_mean(most, MOMENT_RISK)
    assert 0 <= mean <= most
    assert poisson_most(mean, MOMENT_RISK) <= most + 1e-6 * (most + 1)


def at_least(count: int, part: float, least: int) -> float:
    """The chance that of ``count`` things at least so many fall to a place."""
    return sum(
        math.comb(count, number) * part**number * (1 - part) ** (count - number)
        for number in range(least, count + 1)
    )


@given(st.integers(1, 300), st.floats(0.01, 0.99))
def test_a_place_gets_more_addresses_only_as_rarely_as_it_should(count: int, part: float) -> None:
    most = count * largest_part(count, part, 1e-3)
    assert at_least(count, part, math.floor(most) + 1) <= 1e-3 * 1.001


def test_one_place_has_all() -> None:
    assert largest_part(10, 1.0, 1e-3) == 1
    assert poisson_most(0, 1e-3) == 0


# Load


def test_flows_alive_are_the_rate_by_the_time_that_each_holds_its_port() -> None:
    assert Load(rate=2000).alive == 240_000
    assert Load(rate=2000, duration=10).alive == 260_000
    assert Load(rate=2000, timeouts=Timeouts(answered=5)).alive == 10_000


@pytest.mark.parametrize(
    ("protocol", "odd", "idle_s"),
    [
        (Protocol.UDP, 0.0, 120),
        (Protocol.UDP, 1.0, 30),
        (Protocol.UDP, 0.5, 75),
        (Protocol.TCP, 0.0, 240),
        (Protocol.TCP, 1.0, 7440),
        (Protocol.TCP, 0.01, 312),
    ],
)
def test_a_port_is_held_for_the_timeout_of_the_state(
    protocol: Protocol, odd: float, idle_s: float
) -> None:
    assert Load(protocol, rate=1, odd=odd).idle_s == pytest.approx(idle_s)


def test_clients_that_speak_hold_a_port_each_and_those_that_went_for_their_timeout() -> None:
    assert Load(clients=50_000).alive == 50_000
    assert Load(clients=50_000, rate=100).alive == 62_000


def test_an_address_has_no_more_flows_than_ports() -> None:
    assert Load(rate=20_000, addresses=1).alive == 65_535
    assert Load(rate=20_000, addresses=1).most(1) == 65_535


def test_clients_alone_are_just_as_many_at_one_place() -> None:
    assert Load(clients=1234).most(1) == 1234
    assert Load(clients=1000, addresses=10).most(1) == 1000


@given(st.integers(1, 10**6), COUNTS)
def test_no_place_has_more_than_all_or_less_than_its_part(clients: int, places: int) -> None:
    most = Load(clients=clients).most(places)
    assert clients / places <= most * (1 + 1e-9)
    assert most <= clients


def test_few_client_addresses_fall_unevenly() -> None:
    many, few = Load(clients=40_000), Load(clients=40_000, addresses=20)
    assert many.most(4) < 1.1 * 10_000
    assert few.most(4) > 2 * 10_000


def fullest(addresses: int, places: int, dice: random.Random) -> int:
    """How many addresses the fullest place gets, by the hash that the program has."""
    backends = [(number, Backend(IPv4Address(number + 1))) for number in range(places)]
    table, keys = build_table(backends), (dice.getrandbits(64), dice.getrandbits(64))
    clients = [IPv4Address(dice.getrandbits(32)) for _ in range(addresses)]
    return max(
        Counter(
            table[select_slot(Hash.SRC_DST, keys, (client, 1), (SERVICE, 53))] for client in clients
        ).values()
    )


@pytest.mark.parametrize(("addresses", "places"), [(6, 2), (20, 4), (100, 12)])
def test_few_addresses_are_hashed_no_more_unevenly_than_is_reckoned_with(
    addresses: int, places: int
) -> None:
    """In a thousand sets of them, it is exceeded once."""
    dice = random.Random(1)
    most = Load(clients=addresses, addresses=addresses).most(places)
    assert sum(fullest(addresses, places, dice) > most for _ in range(200)) <= 1


def test_many_addresses_are_hashed_no_more_unevenly_than_is_reckoned_with() -> None:
    assert fullest(20_000, 4, random.Random(1)) <= Load(clients=20_000).most(4)


@given(COUNTS, st.integers(1, 50))
def test_balancers_share_a_load(clients: int, balancers: int) -> None:
    each = Load(clients=clients, rate=10, addresses=7).among(balancers)
    assert each.clients == -(-clients // balancers)
    assert each.rate == pytest.approx(10 / balancers)
    assert each.addresses == -(-7 // balancers)


@pytest.mark.parametrize(
    ("protocol", "odd", "name"),
    [
        (Protocol.UDP, 0.0, "answered"),
        (Protocol.UDP, 1.0, "unreplied"),
        (Protocol.TCP, 0.3, "transitory"),
        (Protocol.TCP, 1.0, "established"),
    ],
)
def test_the_main_timeout_is_that_of_most_flows(protocol: Protocol, odd: float, name: str) -> None:
    load = Load(protocol, rate=1, odd=odd)
    assert load.main_timeout == name
    assert getattr(load.with_timeout(7).timeouts, name) == 7


@pytest.mark.parametrize(
    "fields", [{}, {"clients": None, "rate": 0}, {"duration": 5}, {"clients": 5, "duration": 5}]
)
def test_a_load_that_says_nothing_or_all_twice_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        Load(**fields)


# Ports


def test_a_small_pool_is_safe_to_the_last_port_and_a_larger_one_to_four_fifths() -> None:
    assert [safe(ports) for ports in (1, 128, 1000)] == [1, 128, 800]


def test_each_place_has_all_ports_while_there_is_room() -> None:
    assert stock().ports(7) == USUAL.size
    assert stock(max_flows=DEFAULT_MAX_FLOWS).ports(7) == USUAL.size


@pytest.mark.parametrize(
    ("places", "max_flows", "ports"),
    [(3, 250, 50), (2, 150, 50), (2, 160, 60), (4, 200, 50), (1, 30, 30), (5, 200, 100 / 3)],
)
def test_with_less_room_places_have_fewer_ports_or_share_them(
    places: int, max_flows: int, ports: float
) -> None:
    assert stock(SMALL, max_flows=max_flows).ports(places) == pytest.approx(ports)


def test_room_is_made_for_all_ports() -> None:
    assert stock().room(7) == DEFAULT_MAX_FLOWS
    assert stock().room(8) == 8 * USUAL.size
    assert stock(max_flows=1000).room(8) == 1000


@given(st.integers(1, 4000), st.none() | st.integers(1, 9), st.none() | st.integers(1, 60))
def test_places_are_backends_by_nat_addresses(
    places: int, backends: int | None, nat_addresses: int | None
) -> None:
    found = stock(backends=backends, nat_addresses=nat_addresses).divide(places)
    assert found[0] == (backends or found[0])
    assert found[1] == (nat_addresses or found[1])
    assert found[1] <= MOST_NAT_ADDRESSES
    if backends is None or (nat_addresses is None and places <= backends * MOST_NAT_ADDRESSES):
        assert found[0] * found[1] >= places


# What is needed


def test_the_fewest_places_are_found() -> None:
    item = sized(load=Load(rate=2000), backends=4)
    limit = safe(USUAL.size) * 0.8
    assert item.wanted is not None
    assert item.load.most(item.wanted) <= limit < item.load.most(item.wanted - 1)
    assert (item.backends, item.nat_addresses) == (4, -(-item.wanted // 4))
    assert item.fits


@given(st.floats(0.1, 1e5), st.integers(1, 200), st.floats(0, 0.9))
def test_what_is_found_fits_and_leaves_the_headroom(
    rate: float, timeout: int, headroom: float
) -> None:
    load = Load(rate=rate, timeouts=Timeouts(answered=timeout))
    item = sized(load=load, headroom=headroom)
    if item.wanted is not None and item.places >= item.wanted:
        assert item.carries
        assert item.fill <= 0.8 * (1 - headroom) + 1e-9
        assert item.refusal is None


def test_what_is_there_is_taken_as_it_is() -> None:
    item = sized(load=Load(rate=20_000), backends=4, nat_addresses=1)
    assert (item.balancers, item.backends, item.nat_addresses) == (1, 4, 1)
    assert not item.fits
    assert item.enough_balancers == 27


def test_balancers_are_as_many_as_the_packets_need_and_one_more() -> None:
    speed = Speed(limit_mpps=1, packet_ns=0)
    item = sized(load=Load(clients=10), packets=3_000_000, spare=1, headroom=0.2, speed=speed)
    assert (item.working, item.balancers) == (4, 5)
    assert item.busy == pytest.approx(0.75)


def test_more_packets_than_any_number_of_balancers_takes_are_refused() -> None:
    with pytest.raises(InvalidValueError, match=f"{MOST_BALANCERS} balancers"):
        sized(load=Load(clients=1), packets=1e9, speed=Speed(limit_mpps=0.001))


@pytest.mark.parametrize(
    "fields", [{"balancers": 2, "spare": 2}, {"backends": 1000, "nat_addresses": 17}]
)
def test_a_stock_that_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        stock(**fields)


def test_a_table_has_no_more_places_than_slots() -> None:
    assert stock(SMALL).most_places == MAGLEV_SIZE
    assert Load(clients=10**6).part(MAGLEV_SIZE) == pytest.approx(1 / MAGLEV_SIZE)


# What does not fit


def test_the_first_refusal_comes_between_four_fifths_and_all_of_the_ports() -> None:
    refusal = sized(load=Load(rate=100), backends=1, nat_addresses=1, max_flows=1000).refusal
    assert refusal is not None
    assert refusal == pytest.approx((8, 10, 1 - 1000 / 12_000))


def test_clients_that_find_no_port_are_counted() -> None:
    refusal = sized(load=Load(clients=2000), backends=1, nat_addresses=1, max_flows=1500).refusal
    assert refusal == pytest.approx((0, 0, 0.25))


def test_where_there_are_ports_for_all_only_busy_moments_are_too_much() -> None:
    refusal = sized(load=Load(rate=10), backends=2, nat_addresses=1, max_flows=1400).refusal
    assert refusal is not None
    assert refusal.part == 0
    assert refusal.last_s is None


def test_a_group_that_is_shared_is_full_while_others_have_ports() -> None:
    """Of three places two share a group, which has two thirds of the flows."""
    item = sized(SMALL, load=Load(clients=180), backends=3, nat_addresses=1, max_flows=200)
    assert item.refusal is not None
    assert item.refusal.part == pytest.approx(20 / 180)
    assert item.refusal.last_s is None


@given(st.integers(10, 5000), st.integers(1, 8))
def test_the_longest_timeout_is_the_longest_that_fits(rate: int, backends: int) -> None:
    item = sized(load=Load(rate=rate), backends=backends, nat_addresses=1, headroom=0)
    longest = item.longest_timeout
    assert longest is not None
    for seconds, fits in ((longest, True), (longest + 1, False)):
        again = item.load.with_timeout(seconds)
        assert sized(load=again, backends=backends, nat_addresses=1).fits == fits


def test_where_no_timeout_is_short_enough_there_is_none() -> None:
    assert sized(load=Load(clients=10)).longest_timeout is None
    assert sized(load=Load(rate=1e6), backends=1, nat_addresses=1).longest_timeout is None


# Failures, rest, clients


def test_the_others_carry_what_one_leaves() -> None:
    item = sized(load=Load(rate=100), backends=4, nat_addresses=1, balancers=2)
    assert item.without_backend == pytest.approx(item.each.most(3) / USUAL.size)
    assert item.without_balancer == pytest.approx(item.load.most(4) / USUAL.size)
    assert item.rehashed == pytest.approx(item.fill + item.load.most(4) / USUAL.size)


def test_where_there_is_one_nobody_is_left() -> None:
    item = sized(backends=1, nat_addresses=1)
    assert (item.without_backend, item.without_balancer, item.rehashed) == (None, None, None)


def test_a_port_rests_until_the_others_have_been_used() -> None:
    """At 100 a second 1,000 ports come round in 10 s, of which each is held for 7."""
    load = Load(rate=100, timeouts=Timeouts(answered=7))
    rest = sized(load=load, backends=1, nat_addresses=1, max_flows=1000).rest_s
    assert rest == pytest.approx(3)
    assert sized(load=Load(clients=7)).rest_s is None


def test_clients_with_more_flows_than_they_may_have_are_seen() -> None:
    assert not sized(load=Load(rate=1000, addresses=8), backends=8).is_over_limit
    assert sized(load=Load(rate=1000, addresses=4), backends=8).is_over_limit


def test_a_hash_of_ports_helps_where_addresses_are_few() -> None:
    assert sized(load=Load(rate=2000, addresses=6), backends=4).is_spread_by_port
    assert not sized(load=Load(rate=2000), backends=4).is_spread_by_port


def test_more_ports_help_where_they_are_few() -> None:
    load = Load(clients=45_000)
    assert sized(load=load, backends=1, nat_addresses=1).fits_with_all_ports
    assert not sized(load=Load(clients=10)).fits_with_all_ports
