"""Rates and forecasts from two looks, and what a history makes of many."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from statuses import backend, balancer, service

from xdplb.rates import (
    History,
    Look,
    Traffic,
    is_worth_measuring,
    key_of,
    measure,
    place_of,
    sparkline,
)
from xdplb.screen.glyphs import ASCII, UNICODE

if TYPE_CHECKING:
    from xdplb.model import BalancerStatus
    from xdplb.rates import Rates

ADDRESS = "192.0.2.10"


def status(packets: int = 0, flows: int = 0, ports: int = 0, **more: Any) -> BalancerStatus:
    """A balancer with one backend that has had so many packets each way."""
    one = backend(
        ADDRESS,
        packets_in=packets,
        bytes_in=100 * packets,
        packets_out=2 * packets,
        bytes_out=50 * packets,
        flows=flows,
        nat_ports_used=ports,
    )
    return balancer(service(one), verdicts={"forward": packets}, **more)


def between(before: BalancerStatus, after: BalancerStatus, seconds: float = 2.0) -> Rates:
    (found,) = measure(Look(10.0, (before,)), Look(10.0 + seconds, (after,))).values()
    return found


def traffic_of(rates: Rates, item: BalancerStatus) -> Traffic:
    return rates.of_service(item.services[0])


def test_a_rate_is_what_came_by_the_time_that_it_took() -> None:
    after = status(300)
    rates = between(status(100), after)
    assert rates.over_s == 2.0
    assert traffic_of(rates, after) == Traffic(100.0, 80_000.0, 200.0, 40_000.0)
    assert rates.verdicts == {"forward": 100.0}


def test_a_counter_that_began_anew_counts_from_nothing() -> None:
    after = status(50)
    rates = between(status(1000), after)
    assert traffic_of(rates, after).packets_in == 25.0
    assert rates.verdicts == {"forward": 25.0}


def test_a_verdict_that_is_new_counts_from_nothing() -> None:
    after = replace(status(), verdicts={"forward": 0, "drop_ttl": 4})
    assert between(status(), after).verdicts["drop_ttl"] == 2.0


def test_a_backend_that_has_just_come_has_no_rate() -> None:
    known, new = backend(ADDRESS), backend("192.0.2.11", packets_in=1000)
    after = balancer(service(replace(known, packets_in=4), new))
    rates = between(balancer(service(known)), after)
    assert rates.of_backend(after.services[0], new) == Traffic()
    assert traffic_of(rates, after).packets_in == 2.0


def test_the_same_backend_of_two_services_is_two() -> None:
    one, other = service(backend(ADDRESS), port=53), service(backend(ADDRESS), port=54)
    busy = replace(one, backends=(replace(one.backends[0], packets_in=8),))
    after = balancer(busy, other)
    rates = between(balancer(one, other), after)
    assert [rates.of_service(item).packets_in for item in after.services] == [4.0, 0.0]


def test_a_balancer_is_the_same_whatever_program_it_runs() -> None:
    after = replace(status(300), program_id=32)
    assert traffic_of(between(status(100), after), after).packets_in == 100.0


def test_a_balancer_that_has_just_come_has_no_rates() -> None:
    there, new = status(), status(interfaces=("eth0", "eth1"))
    new = replace(new, interfaces=new.interfaces[1:])
    found = measure(Look(0.0, (there,)), Look(1.0, (there, new)))
    assert list(found) == [key_of(there)]


def test_two_looks_at_the_same_moment_say_nothing() -> None:
    assert measure(Look(1.0, (status(),)), Look(1.0, (status(),))) == {}


class TestForecast:
    """When flows and NAT ports are used up."""

    def test_it_follows_from_what_is_left_and_the_rate(self) -> None:
        rates = between(status(flows=7000, ports=700), status(flows=7800, ports=720))
        assert rates.flows_full_s == pytest.approx((10_000 - 7800) / 400)
        assert rates.nat_ports_full_s == pytest.approx((1000 - 720) / 10)

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (1000, 4900),  # less than half
            (8000, 8000),  # stands still
            (8000, 7000),  # empties
            (9000, 10_000),  # is full
            (8000, 8001),  # takes more than an hour
        ],
    )
    def test_there_is_none(self, before: int, after: int) -> None:
        assert between(status(flows=before), status(flows=after)).flows_full_s is None

    def test_the_backend_counts_whose_ports_end_first(self) -> None:
        def with_ports(*used: int) -> BalancerStatus:
            found = [
                backend(f"192.0.2.{10 + place}", nat_ports_used=ports)
                for place, ports in enumerate(used)
            ]
            return balancer(service(*found))

        rates = between(with_ports(500, 600, 0), with_ports(600, 610, 0))
        assert rates.nat_ports_full_s == pytest.approx((1000 - 600) / 50)

    def test_it_is_worth_measuring_from_the_half_on(self) -> None:
        assert not is_worth_measuring([])
        assert not is_worth_measuring([balancer()])
        assert not is_worth_measuring([status(flows=4999, ports=499)])
        assert is_worth_measuring([status(), status(flows=5000)])
        assert is_worth_measuring([status(ports=500)])


class TestHistory:
    """Many looks."""

    def test_the_first_look_says_nothing(self) -> None:
        assert History(5).add(Look(0.0, (status(),))) == {}

    def test_rates_are_of_the_last_step_and_forecasts_of_the_last_half_minute(self) -> None:
        history = History(60)
        flows = [6000, 6100, 6200, 7000]
        for at, count in enumerate(flows):
            found = history.add(Look(10.0 * at, (status(packets=count, flows=count),)))
        (rates,) = found.values()
        assert rates.verdicts["forward"] == 80.0
        assert rates.flows_full_s == pytest.approx(3000 * 30 / 1000)

    def test_steps_longer_than_half_a_minute_are_forecast_alone(self) -> None:
        history = History(60)
        for at, count in enumerate((6000, 7000)):
            found = history.add(Look(60.0 * at, (status(flows=count),)))
        (rates,) = found.values()
        assert rates.flows_full_s == pytest.approx(3000 * 60 / 1000)

    def test_the_past_is_a_list_of_packets_in_a_second(self) -> None:
        history, item = History(3), status()
        for at, packets in enumerate((0, 10, 10, 40, 50)):
            history.add(Look(float(at), (status(packets),)))
        place = place_of(item.services[0], item.backends[0])
        assert history.packets(key_of(item), [place]) == [0.0, 90.0, 30.0]
        assert history.packets(key_of(item), [place], 2) == [90.0, 30.0]
        assert history.packets(key_of(item), []) == [0, 0, 0]
        assert history.packets(99, [place]) == []
        assert history.all_packets() == [0.0, 90.0, 30.0]

    def test_a_copy_stays_as_it_is(self) -> None:
        history = History(3)
        history.add(Look(0.0, (status(),)))
        history.add(Look(1.0, (status(5),)))
        kept = history.copy()
        history.add(Look(2.0, (status(9),)))
        assert (len(kept.all_packets()), len(history.all_packets())) == (1, 2)

    def test_while_nothing_is_up_nothing_is_measured(self) -> None:
        history = History(3)
        history.add(Look(0.0, (status(),)))
        assert history.add(Look(1.0, ())) == {}
        assert history.add(Look(2.0, (status(5),))) == {}
        assert list(history.add(Look(3.0, (status(6),)))) == [2]


def test_a_sparkline_is_as_high_as_its_highest_value() -> None:
    assert sparkline([0, 1, 50, 100], 4, UNICODE.bars) == "▁▂▅█"
    assert sparkline([0, 0], 4, UNICODE.bars) == "  ▁▁"
    assert sparkline([], 4, UNICODE.bars) == "    "
    assert sparkline([9, 1, 2], 2, ASCII.bars) == "=#"
