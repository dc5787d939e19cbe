"""Which service continues which."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from fake_machine import service
from hypothesis import given
from hypothesis import strategies as st

from xdplb.matching import match_services
from xdplb.model import PortRange, Protocol

if TYPE_CHECKING:
    from xdplb.request import Service

TEN = "192.0.2.10"


def _ports(*ranges: tuple[int, int], address: str = "192.0.2.1") -> Service:
    ports = tuple(PortRange(*item) for item in ranges)
    return replace(service(address, TEN), ports=ports)


def test_a_service_continues_the_one_at_its_address_with_its_protocol() -> None:
    old = [service("192.0.2.1", TEN), service("192.0.2.2", TEN)]
    new = [service("192.0.2.2", "192.0.2.11", name="new"), service("192.0.2.1", "192.0.2.12")]
    assert match_services(old, new) == {0: 1, 1: 0}


@pytest.mark.parametrize(
    "other",
    [
        service("192.0.2.1", TEN, protocol=Protocol.TCP),
        service("192.0.2.2", TEN),
        service("2001:db8::1", "2001:db8::10"),
        service("192.0.2.1", TEN, ports=(54,)),
    ],
    ids=["protocol", "address", "version", "no port in common"],
)
def test_a_service_that_is_dialled_otherwise_is_another_one(other: Service) -> None:
    here = service("192.0.2.1", TEN, name="dns")
    assert match_services([here], [replace(other, name="dns")]) == {}


def test_the_most_ports_in_common_win() -> None:
    old = [_ports((1, 10)), _ports((11, 100))]
    assert match_services(old, [_ports((5, 20))]) == {0: 1}
    assert match_services(old, [_ports((1, 14))]) == {0: 0}
    assert match_services(old, [_ports((1, 2), (11, 14), (99, 200))]) == {0: 1}


def test_the_ports_of_several_ranges_are_counted_together() -> None:
    old = [_ports((1, 5), (21, 25)), _ports((6, 12))]
    assert match_services(old, [_ports((1, 30))]) == {0: 0}


def test_a_service_is_continued_by_one_only() -> None:
    old = [_ports((1, 100))]
    assert match_services(old, [_ports((1, 30)), _ports((31, 100))]) == {1: 0}
    assert match_services([_ports((1, 30)), _ports((31, 100))], old) == {0: 1}


def test_what_the_best_match_leaves_over_is_for_the_next_best() -> None:
    old = [_ports((1, 100)), _ports((101, 110))]
    new = [_ports((50, 105)), _ports((1, 49), (106, 110))]
    assert match_services(old, new) == {0: 0, 1: 1}


def test_of_equals_the_first_wins() -> None:
    old = [_ports((1, 10)), _ports((11, 20))]
    assert match_services(old, [_ports((1, 20))]) == {0: 0}
    assert match_services([_ports((1, 20))], old) == {0: 0}


def test_nothing_continues_nothing() -> None:
    here = [service("192.0.2.1", TEN)]
    assert match_services([], here) == match_services(here, []) == {}


@given(st.lists(st.integers(1, 40), max_size=6, unique=True), st.permutations(range(6)))
def test_services_that_stay_continue_themselves_in_any_order(
    firsts: list[int], order: list[int]
) -> None:
    old = [service("192.0.2.1", TEN, ports=(first,)) for first in firsts]
    new = [old[place] for place in order if place < len(old)]
    found = match_services(old, new)
    assert {here: old[there] for here, there in found.items()} == dict(enumerate(new))
