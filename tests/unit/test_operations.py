"""up, status and down on a machine in memory: the order of steps, and what is undone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest
from fake_machine import MAC, NEW_ID, OWN, FakeMachine, request

from xdplb.balancer import Balancer
from xdplb.errors import (
    AttachError,
    BusyError,
    CompileError,
    InvalidValueError,
    LoadError,
    NotReadyError,
    UnreachableError,
    XdplbError,
)
from xdplb.facts import Attached, Neighbour, Prepared, Way
from xdplb.model import IPV4, IPV6, Mode, PortRange
from xdplb.state import Installed, Restore, Side
from xdplb.wire import BackendCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.model import Address
    from xdplb.plan import Plan
    from xdplb.startup import Report

GRO = Restore("gro", 1, 9)
BOTH = ("192.0.2.10", "2001:db8::10", "192.0.2.11", "2001:db8::11")
SERVICES = (OWN[IPV6], OWN[IPV4])


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


def _dialled(report: Report) -> list[Address]:
    return [item.dialled for item in report.services]


def test_up_attaches_and_remembers_what_down_has_to_undo(machine: FakeMachine) -> None:
    machine.prepared = Prepared(redirect=True, restore=GRO)
    report = Balancer(machine).up(request())
    assert machine.programs == {2: Attached(NEW_ID, Mode.NATIVE)}
    assert machine.managed == [IPv4Address("192.0.2.10"), IPv4Address("192.0.2.11")]
    assert [item.what for item in machine.loaded[0][1].restore] == ["neighbour", "neighbour", "gro"]
    assert len(report.unresolved) == 2
    assert machine.restored == []


def test_a_peer_out_of_reach_is_told_to_the_user(machine: FakeMachine) -> None:
    machine.prepared = Prepared(redirect=True, warning="run 'ethtool -K NAME gro on' there")
    assert Balancer(machine).up(request()).notes == (machine.prepared.warning,)


def test_gro_that_cannot_be_switched_is_a_note(machine: FakeMachine) -> None:
    machine.prepared = Prepared(redirect=True, restore=GRO)
    machine.gro_warning = "it stays off"
    assert Balancer(machine).up(request()).notes == ("it stays off",)


def test_what_the_kernel_knows_already_is_used(machine: FakeMachine) -> None:
    machine.known[2, IPv4Address("192.0.2.10")] = Neighbour(MAC, is_permanent=True)
    report = Balancer(machine).up(request())
    record = machine.loaded[0][0][0].records[0]
    assert (record.mac, record.mac_is_fixed) == (MAC, True)
    assert [f"{item}" for item in report.unresolved] == ["192.0.2.11"]
    assert machine.managed == [IPv4Address("192.0.2.11")]


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("compile", CompileError("no")),
        ("load", LoadError("no")),
        ("attach", BusyError("no")),
        ("manage", NotReadyError("no")),
    ],
)
def test_a_failed_step_undoes_the_ones_before(
    machine: FakeMachine, step: str, error: XdplbError
) -> None:
    machine.prepared = Prepared(redirect=True, restore=GRO)
    machine.fail[step] = [error]
    with pytest.raises(type(error)):
        Balancer(machine).up(request())
    assert machine.programs == {}
    assert (GRO in machine.restored) == (GRO in machine.switched) == (step == "attach")
    if step != "manage":
        assert [item.what for item in machine.restored].count("neighbour") == 2


def test_a_second_interface_that_refuses_takes_the_first_one_back(machine: FakeMachine) -> None:
    machine.fail["attach"] = [None, BusyError("no")]
    with pytest.raises(BusyError):
        Balancer(machine).up(request(interfaces=("eth0", "eth1")))
    assert machine.programs == {}


def test_auto_falls_back_to_generic_and_says_why(machine: FakeMachine) -> None:
    machine.fail["attach"] = [AttachError("eth0 has no native mode")]
    report = Balancer(machine).up(request())
    assert report.interfaces[0].mode is Mode.GENERIC
    assert "eth0 has no native mode" in report.notes[0]
    assert "-DMODE_GENERIC=1" in machine.flags[IPV4]


def test_native_does_not_fall_back(machine: FakeMachine) -> None:
    machine.fail["attach"] = [AttachError("no")]
    with pytest.raises(AttachError):
        Balancer(machine).up(request(mode=Mode.NATIVE))


def test_a_bridge_is_not_even_tried_natively(machine: FakeMachine) -> None:
    machine.links["eth0"] = replace(machine.links["eth0"], kind="bridge")
    assert Balancer(machine).up(request()).interfaces[0].mode is Mode.GENERIC


def test_a_foreign_program_is_left_alone(machine: FakeMachine) -> None:
    machine.programs[2] = Attached(7, Mode.NATIVE)
    with pytest.raises(AttachError, match="program 7"):
        Balancer(machine).up(request())
    assert machine.programs[2].program_id == 7
    assert machine.managed == []


@pytest.mark.parametrize("ours", [True, False])
def test_a_backend_must_be_behind_one_of_the_interfaces(machine: FakeMachine, ours: bool) -> None:  # noqa: FBT001 - a parameter
    machine.way = lambda address: Way(3, address)  # type: ignore[method-assign]
    if ours:
        report = Balancer(machine).up(request(interfaces=("eth0", "eth1")))
        assert machine.loaded[0][0][0].records[0].interface == 1
        assert _dialled(report) == [OWN[IPV4]]
    else:
        with pytest.raises(UnreachableError, match="eth1"):
            Balancer(machine).up(request())


def test_the_service_cannot_be_its_own_backend(machine: FakeMachine) -> None:
    with pytest.raises(InvalidValueError, match="service itself"):
        Balancer(machine).up(request("192.0.2.1"))


def test_a_second_up_keeps_numbers_secrets_and_what_to_restore(machine: FakeMachine) -> None:
    machine.prepared = Prepared(redirect=True, restore=GRO)
    Balancer(machine).up(request())
    machine.run_on()
    machine.prepared = Prepared(redirect=True)
    report = Balancer(machine).up(request("192.0.2.12", "192.0.2.11"))
    ((first,), before), ((second,), after) = machine.loaded
    assert report.replaced
    assert after.hash_keys == before.hash_keys
    assert f"{second.records[1].address}" == "192.0.2.11"
    assert f"{second.records[0].address}" == "192.0.2.12"
    assert second.records[0].generation == first.records[0].generation + 1
    assert GRO in after.restore
    assert [item.address for item in machine.restored] == ["192.0.2.10"]


def test_an_interface_that_is_no_longer_wanted_is_let_go(machine: FakeMachine) -> None:
    Balancer(machine).up(request(interfaces=("eth0", "eth1")))
    machine.run_on()
    Balancer(machine).up(request())
    assert set(machine.programs) == {2}


@pytest.mark.parametrize(
    "change",
    [{"max_flows": 5}, {"nat_ports": (PortRange(2000, 3000),)}, {"mode": Mode.GENERIC}],
    ids=str,
)
def test_what_shapes_the_table_stays(machine: FakeMachine, change: dict[str, object]) -> None:
    Balancer(machine).up(request())
    machine.run_on()
    with pytest.raises(InvalidValueError, match=r"kernel does not exchange|cannot change"):
        Balancer(machine).up(request(**change))


def test_down_detaches_and_puts_back(machine: FakeMachine) -> None:
    machine.prepared = Prepared(redirect=True, restore=GRO)
    Balancer(machine).up(request())
    machine.run_on()
    (stopped,) = Balancer(machine).down()
    assert (stopped.interfaces, stopped.program_id) == (("eth0",), NEW_ID)
    assert machine.programs == {}
    assert len(machine.restored) == 3


def test_down_of_an_interface_without_a_balancer_is_an_error(machine: FakeMachine) -> None:
    Balancer(machine).up(request())
    machine.run_on()
    with pytest.raises(NotReadyError, match="eth1"):
        Balancer(machine).down(["eth1"])


def test_down_with_nothing_up_succeeds(machine: FakeMachine) -> None:
    assert Balancer(machine).down() == []
    assert Balancer(machine).down(["eth0"]) == []


def test_a_next_hop_that_a_killed_command_left_is_taken_over(machine: FakeMachine) -> None:
    first, second = (IPv4Address(f"192.0.2.{last}") for last in (10, 11))
    machine.known = {
        (2, first): Neighbour(MAC, is_managed=True, is_ours=True),
        (2, second): Neighbour(MAC, is_managed=True),
    }
    Balancer(machine).up(request())
    assert machine.managed == []
    assert [item.address for item in machine.loaded[0][1].restore] == [f"{first}"]
    assert not machine.loaded[0][1].restore[0].existed


def test_the_last_down_forgets_what_a_killed_command_left(machine: FakeMachine) -> None:
    machine.managed = [IPv4Address("192.0.2.77")]
    Balancer(machine).down()
    assert machine.managed == []


def test_up_with_both_ip_versions_makes_a_plan_and_a_program_of_each(machine: FakeMachine) -> None:
    report = Balancer(machine).up(request(*BOTH, services=SERVICES))
    ((plans, state),) = machine.loaded
    assert [plan.version for plan in plans] == [IPV4, IPV6]
    assert [[f"{record.address}" for record in plan.records] for plan in plans] == [
        ["192.0.2.10", "192.0.2.11"],
        ["2001:db8::10", "2001:db8::11"],
    ]
    assert list(machine.flags) == [IPV4, IPV6]
    assert [any("SERVICE_WORD_1" in flag for flag in machine.flags[item]) for item in (4, 6)] == [
        False,
        True,
    ]
    assert _dialled(report) == [OWN[IPV4], OWN[IPV6]]
    assert state.versions == (IPV4, IPV6)
    assert state.sides == tuple(
        Side(
            plan.version,
            plan.room,
            (OWN[plan.version],),
            (Installed(0, report.services[place]),),
        )
        for place, plan in enumerate(plans)
    )
    assert machine.programs == {2: Attached(NEW_ID, Mode.NATIVE)}


def test_the_secret_of_each_ip_version_outlives_a_second_up(machine: FakeMachine) -> None:
    Balancer(machine).up(request(*BOTH, services=SERVICES))
    machine.run_on()
    Balancer(machine).up(request(*BOTH, services=SERVICES))
    before, after = (_secrets(plans) for plans, _ in machine.loaded)
    assert after == before


def _secrets(plans: Sequence[Plan]) -> list[tuple[int, int]]:
    return [plan.facts.hash_keys for plan in plans]


def test_up_watches_the_next_hops_of_both_ip_versions(machine: FakeMachine) -> None:
    report = Balancer(machine).up(request(*BOTH, services=SERVICES))
    by_version = [*BOTH[::2], *BOTH[1::2]]
    assert [f"{item}" for item in machine.managed] == by_version
    assert [item.address for item in machine.loaded[0][1].restore] == by_version
    assert sorted(f"{item}" for item in report.unresolved) == sorted(BOTH)


def test_what_the_kernel_knows_of_ipv6_is_used(machine: FakeMachine) -> None:
    machine.known[2, IPv6Address("2001:db8::11")] = Neighbour(MAC)
    report = Balancer(machine).up(request(*BOTH, services=SERVICES))
    assert machine.loaded[0][0][1].records[1].mac == MAC
    assert "2001:db8::11" not in [f"{item}" for item in report.unresolved]


def test_ipv6_backends_alone_get_the_interfaces_ipv6_address(machine: FakeMachine) -> None:
    report = Balancer(machine).up(request("2001:db8::10"))
    ((plan,), state) = machine.loaded[0]
    assert _dialled(report) == [OWN[IPV6]]
    assert (plan.addresses, state.versions) == ((OWN[IPV6],), (IPV6,))
    assert list(machine.flags) == [IPV6]


def test_the_interfaces_own_ipv6_address_cannot_be_a_backend(machine: FakeMachine) -> None:
    with pytest.raises(InvalidValueError, match="2001:db8::1 is the service itself"):
        Balancer(machine).up(request("2001:db8::1"))
    assert machine.loaded == []


def test_an_interface_says_how_much_it_can_send(machine: FakeMachine) -> None:
    machine.links["eth1"] = replace(machine.links["eth1"], mtu=9000)
    Balancer(machine).up(request(interfaces=("eth0", "eth1")))
    assert [port.mtu for port in machine.loaded[0][0][0].facts.ports] == [1500, 9000]


@pytest.mark.parametrize("step", ["compile", "load", "attach"])
def test_a_failed_step_undoes_what_was_done_for_either_ip_version(
    machine: FakeMachine, step: str
) -> None:
    machine.fail[step] = [BusyError("no")]
    with pytest.raises(BusyError):
        Balancer(machine).up(request(*BOTH, services=SERVICES))
    assert machine.programs == {}
    assert sorted(item.address for item in machine.restored) == sorted(BOTH)


def test_a_second_up_that_adds_ipv6_keeps_what_ipv4_has(machine: FakeMachine) -> None:
    Balancer(machine).up(request("192.0.2.9", "192.0.2.10", "192.0.2.11"))
    machine.run_on()
    report = Balancer(machine).up(request(*BOTH, services=SERVICES))
    ((first,), before), ((ipv4, ipv6), after) = machine.loaded
    assert report.replaced
    assert first.pool == ipv4.pool == ipv6.pool
    assert after.hash_keys == before.hash_keys
    assert {f"{record.address}": record for record in ipv4.records[1:]} == {
        f"{record.address}": record for record in first.records[1:]
    }
    assert ipv4.records[0].state is BackendCode.UNUSED
    assert [record.generation for record in ipv6.records] == [0, 0]
    assert [item.address for item in machine.restored] == ["192.0.2.9"]


def test_a_second_up_that_leaves_ipv6_out_lets_its_next_hops_go(machine: FakeMachine) -> None:
    Balancer(machine).up(request(*BOTH, services=SERVICES))
    machine.run_on()
    Balancer(machine).up(request("192.0.2.10", "192.0.2.11"))
    (first, _), ((second,), state) = machine.loaded
    assert second.records == first[0].records
    assert state.versions == (IPV4,)
    assert [item.address for item in machine.restored] == ["2001:db8::10", "2001:db8::11"]


def test_a_third_up_keeps_the_numbers_of_each_ip_version(machine: FakeMachine) -> None:
    Balancer(machine).up(request(*BOTH, services=SERVICES))
    machine.run_on()
    Balancer(machine).up(request("2001:db8::11", "192.0.2.11", services=SERVICES))
    plans, _ = machine.loaded[-1]
    for plan in plans:
        assert list(plan.numbers.values()) == [1]
        assert [record.state for record in plan.records] == [BackendCode.UNUSED, BackendCode.UP]


def test_down_puts_back_what_was_done_for_both_ip_versions(machine: FakeMachine) -> None:
    Balancer(machine).up(request(*BOTH, services=SERVICES))
    machine.run_on()
    (stopped,) = Balancer(machine).down()
    assert stopped.interfaces == ("eth0",)
    assert machine.programs == {}
    assert [item.address for item in machine.restored] == [*BOTH[::2], *BOTH[1::2]]
