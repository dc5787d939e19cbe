"""Looks in a thread: how often, and what happens when one fails."""

from __future__ import annotations

import threading
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from fake_machine import FakeMachine, request

from xdplb.balancer import Balancer
from xdplb.cli.sampling import Sample, Sampler, take
from xdplb.errors import BusyError, PrivilegeError, TableError
from xdplb.model import Clients, ClientStatus

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS = Clients(2, (ClientStatus(ip_address("198.51.100.7"), 3),))
SOON_S = 5.0


@pytest.fixture
def machine() -> FakeMachine:
    made = FakeMachine()
    Balancer(made).up(request())
    made.run_on()
    made.busiest = CLIENTS
    return made


def first(sampler: Sampler, ready: threading.Event) -> Sample:
    """What the first look has found."""
    assert sampler.collect() is None, "it has only begun"
    assert ready.wait(SOON_S)
    found = sampler.collect()
    assert found is not None
    return found


def sampler(machine: FakeMachine, ready: Callable[[], None], **more: float) -> Sampler:
    every_s = more.get("every_s", 60.0)
    return Sampler(Balancer(machine), every_s, ready, int(more.get("clients", 0)))


def test_a_look_has_the_balancers_and_when_it_was(machine: FakeMachine) -> None:
    before = time.monotonic()
    found = take(Balancer(machine))
    assert found.look is not None
    assert before <= found.look.at <= time.monotonic()
    assert [item.program_id for item in found.look.balancers] == [100]
    assert (found.clients, found.trouble) == (None, "")


def test_clients_are_counted_where_they_are_wanted(machine: FakeMachine) -> None:
    assert take(Balancer(machine), 5).clients == [CLIENTS]


@pytest.mark.parametrize("error", [BusyError("it has gone", "run this again"), TableError("new")])
def test_a_balancer_that_cannot_be_read_just_now_is_told(
    machine: FakeMachine, error: TableError
) -> None:
    machine.fail["verdicts"] = [error] * 4
    found = take(Balancer(machine))
    assert found.look is None
    assert found.trouble == (f"{error} ({error.hint})" if error.hint else f"{error}")


def test_looks_follow_each_other(machine: FakeMachine) -> None:
    ready = threading.Event()
    with sampler(machine, ready.set, every_s=0.1) as one:
        assert first(one, ready).look is not None
        ready.clear()
        deadline = time.monotonic() + SOON_S
        while one.collect() is None:
            assert time.monotonic() < deadline
            ready.wait(max(one.left_s, 0.001))


def test_no_look_comes_before_its_time(machine: FakeMachine) -> None:
    ready = threading.Event()
    with sampler(machine, ready.set) as one:
        first(one, ready)
        ready.clear()
        assert one.collect() is None
        assert 50 < one.left_s <= 60
        assert not ready.is_set()


def test_clients_are_counted_at_once_and_then_less_often(machine: FakeMachine) -> None:
    ready = threading.Event()
    with sampler(machine, ready.set, every_s=0.01, clients=3) as one:
        assert first(one, ready).clients == [CLIENTS]
        ready.clear()
        deadline = time.monotonic() + SOON_S
        while (found := one.collect()) is None:
            assert time.monotonic() < deadline
            ready.wait(max(one.left_s, 0.001))
        assert found.clients is None


def test_what_cannot_be_helped_reaches_the_caller(machine: FakeMachine) -> None:
    machine.fail["require_privileges"] = [PrivilegeError("look")]
    ready = threading.Event()
    with sampler(machine, ready.set) as one:
        one.collect()
        assert ready.wait(SOON_S)
        with pytest.raises(PrivilegeError):
            one.collect()
