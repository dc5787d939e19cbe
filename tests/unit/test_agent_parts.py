"""What the agent is made of: whom it watches, what it tells systemd, and what it hears."""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from agent_machine import LiveMachine
from fake_machine import OWN, service

from xdplb.agent import watching
from xdplb.agent.notify import Notifier
from xdplb.balancer import Balancer
from xdplb.checks import BelowMinimum, Health, HttpCheck, TcpCheck
from xdplb.errors import NotReadyError
from xdplb.health.passive import Counters, Passive
from xdplb.kernel.claims import Claims
from xdplb.kernel.events import Events
from xdplb.model import IPV4, Backend, BackendState, PortRange, Protocol
from xdplb.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdplb.agent.watching import Key

HEALTH = Health(check=TcpCheck())
A, B = "192.0.2.10", "192.0.2.11"
UP, DRAIN, DOWN = BackendState


def asked(*states: BackendState, health: Health | None = HEALTH) -> Request:
    """One service, with backends in these states."""
    made = service("192.0.2.1", *(f"192.0.2.{10 + n}" for n in range(len(states))), health=health)
    backends = tuple(
        replace(item, state=state) for item, state in zip(made.backends, states, strict=True)
    )
    return Request(("eth0",), (replace(made, backends=backends),))


def states_of(request: Request) -> tuple[BackendState, ...]:
    return tuple(item.state for _, item, _ in watching.members(request))


def keys(request: Request) -> list[Key]:
    return [key for _, _, key in watching.members(request)]


# Whom it watches


def test_a_backend_is_the_same_whatever_else_of_its_service_changes() -> None:
    first = asked(UP, UP)
    (one,) = first.services
    other = replace(one, name="dns", health=None, backends=one.backends[::-1])
    assert sorted(keys(first)) == sorted(keys(replace(first, services=(other,))))
    moved = replace(one, ports=(PortRange(54, 54),))
    assert not set(keys(first)) & set(keys(replace(first, services=(moved,))))


@pytest.mark.parametrize(
    ("health_port", "backend_port", "ports", "port"),
    [
        (8080, 5353, (53,), 8080),
        (None, 5353, (53,), 5353),
        (None, None, (53, 54), 53),
        (None, None, (), None),
    ],
)
def test_a_check_goes_to_the_port_that_is_served(
    health_port: int | None, backend_port: int | None, ports: tuple[int, ...], port: int | None
) -> None:
    made = service("192.0.2.1", A, ports=ports or (1,), health=replace(HEALTH, port=health_port))
    if not ports:
        made = replace(made, ports=(PortRange(1, 65535),))
    backend = Backend(ip_address(A), backend_port, state=DOWN)
    (found,) = watching.watched(Request(("eth0",), (replace(made, backends=(backend,)),)))
    assert (found.target.port, found.target.address, found.healthy) == (
        port,
        backend.address,
        False,
    )


def test_only_services_with_health_are_watched_and_only_udp_is_judged_by_traffic() -> None:
    plain = service("192.0.2.1", A)
    tcp = service("192.0.2.1", A, protocol=Protocol.TCP, health=HEALTH)
    udp = service("192.0.2.1", A, ports=(54,), health=HEALTH)
    request = Request(("eth0",), (plain, tcp, udp))
    assert [item.target.service for item in watching.watched(request)] == [f"{tcp}", f"{udp}"]
    assert [one for one, _ in watching.judged(request)] == [udp]


def test_the_traffic_of_a_backend_is_that_from_all_nat_addresses() -> None:
    machine = LiveMachine()
    nat = tuple(ip_address(f"192.0.2.{number}") for number in (5, 6))
    made = service(f"{OWN[IPV4]}", A, B, health=HEALTH, nat_addresses=nat)
    Balancer(machine).up(Request(("eth0",), (made,)))
    (running,) = machine.balancers
    machine.count({number: (1 + number, 10, 100) for number in range(4)})
    of = [item.address for item in running.records[IPV4]]
    counted = watching.counters(running, machine.traffic(running))
    assert counted == {
        key: Counters(sum(1 + n for n, at in enumerate(of) if at == key.address), 20, 200)
        for key in keys(running.state.request)
    }


@pytest.mark.parametrize(
    ("seen", "sick", "drained", "fixed", "wanted", "still"),
    [
        ((UP, UP), [0], [], [], (DOWN, UP), []),
        ((DOWN, UP), [], [], [], (UP, UP), []),
        ((DRAIN, UP), [0], [], [], (DOWN, UP), [0]),
        ((DOWN, UP), [0], [0], [], (DOWN, UP), [0]),
        ((DOWN, UP), [], [0], [], (DRAIN, UP), [0]),
        ((DRAIN, UP), [], [0], [], (DRAIN, UP), []),
        ((UP, UP), [0], [0], [], (DOWN, UP), []),
        ((DOWN, UP), [], [], [0], (DOWN, UP), []),
        ((UP, UP), [0, 1], [], [], (UP, UP), []),
        ((DOWN, UP), [0, 1], [], [], (DOWN, UP), []),
        ((UP, DRAIN), [0], [], [], (UP, DRAIN), []),
    ],
)
def test_states_are_decided_by_health_and_by_what_an_operator_wants(
    seen: tuple[BackendState, ...],
    sick: list[int],
    drained: list[int],
    fixed: list[int],
    wanted: tuple[BackendState, ...],
    still: list[int],
) -> None:
    request = asked(*seen)
    every = keys(request)

    def some(places: list[int]) -> frozenset[Key]:
        return frozenset(every[place] for place in places)

    found = watching.decide_states(request, some(sick), some(drained), some(fixed))
    assert tuple(found.states[key] for key in every) == wanted
    assert found.drained == some(still)


def test_a_service_that_fails_closed_lets_all_of_them_go() -> None:
    request = asked(UP, UP, health=replace(HEALTH, min_healthy=2, below=BelowMinimum.FAIL_CLOSED))
    every = keys(request)
    found = watching.decide_states(request, every[:1], frozenset(), frozenset())
    assert [found.states[key] for key in every] == [DOWN, UP]
    assert found.held == frozenset()


def test_without_health_states_are_nobodys_business() -> None:
    request = asked(DOWN, DRAIN, health=None)
    every = keys(request)
    found = watching.decide_states(request, every, frozenset(every), frozenset(every))
    assert [found.states[key] for key in every] == [DOWN, DRAIN]


@pytest.mark.parametrize(
    ("wanted", "runs", "adopted"),
    [
        (UP, DOWN, DOWN),
        (UP, DRAIN, DRAIN),
        (DRAIN, DOWN, DOWN),
        (DRAIN, UP, DRAIN),
        (DOWN, UP, DOWN),
        (UP, UP, UP),
    ],
)
def test_what_runs_is_adopted_with_its_states(
    wanted: BackendState, runs: BackendState, adopted: BackendState
) -> None:
    assert states_of(watching.adopt(asked(wanted), asked(runs))) == (adopted,)
    assert states_of(watching.adopt(asked(wanted, DRAIN), asked(runs))) == (adopted, DRAIN)


def test_who_is_down_is_not_adopted_where_nobody_would_let_it_up() -> None:
    wanted = asked(UP, DRAIN, DOWN, health=None)
    assert states_of(watching.adopt(wanted, asked(DOWN, DOWN, DOWN))) == (UP, DRAIN, DOWN)
    assert states_of(watching.with_down(wanted, set(keys(wanted)))) == (UP, DRAIN, DOWN)


def test_a_library_that_is_missing_is_named_before_anything_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(NotReadyError, match="aiohttp"):
        watching.require_means(asked(UP, health=Health(check=HttpCheck())))


def test_a_backend_that_is_down_when_the_traffic_is_first_seen_comes_back_on_trial() -> None:
    passive: Passive[str] = Passive(Health())
    counted = {"a": Counters(0, 0), "b": Counters(0, 0)}
    assert passive.look(counted, 100.0, {"a"}).turns == ()
    assert (passive.healthy("a"), passive.healthy("b")) == (False, True)
    (turn,) = passive.look(counted, 111.0, {"a"}).turns
    assert (turn.key, turn.healthy) == ("a", True)
    asked_too: Passive[str] = Passive(HEALTH)
    asked_too.look(counted, 100.0, {"a"})
    assert asked_too.healthy("a")


# What it tells


def said(sock: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in sock.recv(4096).decode().splitlines())


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(tmp_path: Path, *, abstract: bool) -> None:
    name = f"@xdplb-test-{os.getpid()}" if abstract else f"{tmp_path / 'notify'}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name[1:]}" if abstract else name)
        manager.settimeout(3)
        notifier = Notifier({"NOTIFY_SOCKET": name})
        notifier.ready("two\nlines")
        assert said(manager) == {"READY": "1", "STATUS": "two lines"}
        notifier.status("one")
        notifier.status("one")
        notifier.alive()
        assert [said(manager), said(manager)] == [{"STATUS": "one"}, {"WATCHDOG": "1"}]
        before = time.monotonic_ns() // 1000
        notifier.reloading()
        message = said(manager)
        assert message.pop("RELOADING") == "1"
        assert before <= int(message.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
        notifier.stopping()
        assert said(manager) == {"STOPPING": "1"}


def test_a_service_manager_that_is_not_there_is_no_matter(tmp_path: Path) -> None:
    for environment in ({}, {"NOTIFY_SOCKET": f"{tmp_path / 'nobody'}"}):
        Notifier(environment).ready("on my own")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "3000000"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": f"{os.getpid()}"}, 3.0),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "often"}, 0.0),
    ],
)
def test_the_watchdog_is_for_the_process_that_it_names(
    environment: dict[str, str], seconds: float
) -> None:
    assert Notifier(environment).watchdog_s == seconds


# What it hears, and that it is alone


class Flood:
    """A netlink socket whose messages are partly lost."""

    def __init__(self) -> None:
        self.left: list[OSError | bytes] = [b"1", OSError(105, "lost"), b"2", BlockingIOError()]

    def recv(self, size: int) -> bytes:
        assert size
        item = self.left.pop(0)
        if isinstance(item, OSError):
            raise item
        return item


def test_all_that_has_come_is_thrown_away_also_where_some_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Events() as events:
        assert select.select([events], [], [], 0)[0] in ([], [events])
        events.clear()
        flood = Flood()
        with monkeypatch.context() as patch:
            patch.setattr(events, "_socket", flood)
            events.clear()
            assert flood.left == []
            flood.left = [OSError(9, "closed")]
            with pytest.raises(OSError, match="closed"):
                events.clear()


def refused(work: Callable[[], None]) -> None:
    with pytest.raises(NotReadyError, match="looks after"):
        work()


def test_an_interface_has_one_agent() -> None:
    first, second, third = (f"test{os.getpid()}{letter}" for letter in "abc")
    with Claims() as one, Claims() as other:
        one.take([first, second])
        refused(lambda: other.take([third, second]))
        other.take([third])
        one.take([second])
        other.take([first, third])
        refused(lambda: one.take([first, second]))
    with Claims() as again:
        again.take([first, second, third])
