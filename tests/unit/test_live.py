"""Changes of the backends of a running balancer, as they are planned."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from fake_machine import FakeMachine, request

from xdplb import live
from xdplb.balancer import Balancer
from xdplb.errors import InvalidValueError, LoadError, NotReadyError
from xdplb.facts import Way
from xdplb.model import Backend, BackendState
from xdplb.wire import BackendCode, vlan_tag

if TYPE_CHECKING:
    from xdplb.plan import Plan
    from xdplb.state import State

TEN, ELEVEN, TWELVE = (Backend(ip_address(f"192.0.2.{number}")) for number in (10, 11, 12))


@pytest.fixture
def machine() -> FakeMachine:
    made = FakeMachine()
    Balancer(made).up(request())
    made.run_on()
    made.managed.clear()
    return made


def changed(machine: FakeMachine) -> tuple[Plan, State]:
    """The one change that was made."""
    ((_, plan, state),) = machine.changed
    return plan, state


def shares(plan: Plan) -> Counter[int]:
    return Counter(plan.tables[0])


def test_a_new_backend_gets_a_number_of_its_own_and_a_third_of_the_table(
    machine: FakeMachine,
) -> None:
    Balancer(machine).add_backend(TWELVE)
    plan, state = changed(machine)
    assert [f"{record.address}" for record in plan.records] == [
        "192.0.2.10",
        "192.0.2.11",
        "192.0.2.12",
    ]
    assert all(abs(share - 16381 / 3) < 100 for share in shares(plan).values())
    assert machine.managed[-1] == TWELVE.address
    assert [item.address for item in state.restore][-1] == "192.0.2.12"
    assert len({item.address for item in state.restore}) == 3


def test_a_tenth_backend_moves_a_tenth_of_the_table() -> None:
    machine = FakeMachine()
    Balancer(machine).up(request(*(f"192.0.2.{number}" for number in range(20, 29))))
    machine.run_on()
    before = machine.loaded[-1][0][0].tables[0]
    Balancer(machine).add_backend(TWELVE)
    after = changed(machine)[0].tables[0]
    moved = sum(old != new for old, new in zip(before, after, strict=True)) / len(before)
    assert 0.1 <= moved < 0.14


def test_a_draining_backend_is_in_no_table_and_keeps_its_record(machine: FakeMachine) -> None:
    Balancer(machine).edit_backend(TEN, live.drain)
    plan, _ = changed(machine)
    assert set(shares(plan)) == {1}
    assert plan.records[0].state is BackendCode.DRAIN
    assert plan.records[0].generation == 0


def test_a_removed_backend_is_unused_and_another_one_when_it_comes_back(
    machine: FakeMachine,
) -> None:
    Balancer(machine).remove_backend(TEN)
    plan, state = changed(machine)
    assert plan.records[0].state is BackendCode.UNUSED
    machine.loaded.append(([plan], state))
    machine.run_on()
    machine.changed.clear()
    Balancer(machine).add_backend(TEN)
    again = changed(machine)[0].records[0]
    assert (again.address, again.state, again.generation) == (TEN.address, BackendCode.UP, 1)


def test_states_and_weights_of_the_others_stay(machine: FakeMachine) -> None:
    Balancer(machine).edit_backend(TEN, live.drain)
    plan, state = changed(machine)
    machine.loaded.append(([plan], state))
    machine.run_on()
    change = Balancer(machine).add_backend(TWELVE)
    (service,) = change.services
    assert [item.state for item in service.backends] == [
        BackendState.DRAIN,
        BackendState.UP,
        BackendState.UP,
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: it.add_backend(TEN), "is there already"),
        (lambda it: it.remove_backend(TWELVE), "there is no backend"),
        (lambda it: it.edit_backend(TWELVE, live.drain), "there is no backend"),
        (lambda it: it.edit_backend(Backend(TEN.address, 53), live.drain), "there is no backend"),
        (lambda it: it.add_backend(Backend(ip_address("2001:db8::9"))), "no IPv6 service"),
        (lambda it: it.add_backend(Backend(ip_address("192.0.2.1"))), "service itself"),
    ],
)
def test_what_makes_no_sense_is_refused(machine: FakeMachine, change: object, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason) as caught:
        change(Balancer(machine))  # type: ignore[operator]
    assert caught.value.hint
    assert machine.changed == []


def test_a_backend_whose_adding_was_interrupted_is_added_for_good(machine: FakeMachine) -> None:
    machine.usages = {4: replace(machine.usages[4], shares={0: 1})}  # none for 192.0.2.11
    Balancer(machine).add_backend(replace(ELEVEN, weight=3))
    plan, _ = changed(machine)
    assert [record.weight for record in plan.records] == [1, 3]
    assert set(shares(plan)) == {0, 1}


def test_the_last_backend_stays() -> None:
    machine = FakeMachine()
    Balancer(machine).up(request("192.0.2.10"))
    machine.run_on()
    with pytest.raises(InvalidValueError, match="the only one"):
        Balancer(machine).remove_backend(TEN)


def test_more_backends_than_there_is_room_for_need_another_up() -> None:
    machine = FakeMachine()
    Balancer(machine).up(request(*(f"198.51.100.{number}" for number in range(256))))
    machine.run_on()
    running = machine.balancers[0]
    (side,) = running.state.sides
    full = replace(running.state, sides=(replace(side, room=256),))
    machine.balancers[0] = replace(running, state=full)
    with pytest.raises(NotReadyError, match="room for 256"):
        Balancer(machine).add_backend(TWELVE)
    assert machine.changed == []


def test_a_change_that_fails_leaves_nothing_behind(machine: FakeMachine) -> None:
    machine.fail["change"] = [LoadError("no")]
    with pytest.raises(LoadError):
        Balancer(machine).add_backend(TWELVE)
    assert "192.0.2.12" in {item.address for item in machine.restored}


def test_without_a_balancer_or_with_several_nothing_is_changed(machine: FakeMachine) -> None:
    machine.balancers *= 2
    with pytest.raises(NotReadyError, match="several"):
        Balancer(machine).add_backend(TWELVE)
    machine.balancers = []
    with pytest.raises(NotReadyError, match="no balancer is up"):
        Balancer(machine).add_backend(TWELVE)


def test_a_backend_in_a_vlan_is_asked_for_there() -> None:
    machine = FakeMachine()
    tag = vlan_tag(0x8100, 20)
    vlan = type(machine.links["eth0"])("eth0.20", 9, bytes(6), lower=2, tag=tag)
    machine.links["eth0.20"] = vlan
    machine.way = lambda address: Way(9, address)  # type: ignore[method-assign]
    Balancer(machine).up(request())
    machine.run_on()
    assert machine.loaded[0][0][0].records[0].tag == tag
    Balancer(machine).add_backend(TWELVE)
    plan, state = changed(machine)
    assert {record.tag for record in plan.records} == {tag}
    assert {item.ifindex for item in state.restore if item.what == "neighbour"} == {9}


def test_a_backend_in_a_vlan_is_refused_where_tags_are_left_alone() -> None:
    machine = FakeMachine()
    machine.links["eth0.20"] = type(machine.links["eth0"])("eth0.20", 9, bytes(6), lower=2)
    machine.way = lambda address: Way(9, address)  # type: ignore[method-assign]
    with pytest.raises(InvalidValueError, match="--no-vlan"):
        Balancer(machine).up(request(vlan=False))
