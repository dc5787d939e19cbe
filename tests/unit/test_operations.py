"""up, status and down on a machine in memory: the order of steps, and what is undone."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from fake_machine import MAC, NEW_ID, FakeMachine, request

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
from xdplb.model import Mode, PortRange
from xdplb.state import Restore

GRO = Restore("gro", 1, 9)


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


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


def test_what_the_kernel_knows_already_is_used(machine: FakeMachine) -> None:
    machine.known[2, IPv4Address("192.0.2.10")] = Neighbour(MAC, is_permanent=True)
    report = Balancer(machine).up(request())
    record = machine.loaded[0][0].records[0]
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
    if step != "manage":
        assert GRO in machine.restored
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
    assert "-DMODE_GENERIC=1" in machine.flags


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
        assert machine.loaded[0][0].records[0].interface == 1
        assert report.service == IPv4Address("192.0.2.1")
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
    first, second = machine.loaded
    assert report.replaced
    assert second[1].hash_keys == first[1].hash_keys
    assert f"{second[0].records[1].address}" == "192.0.2.11"
    assert f"{second[0].records[0].address}" == "192.0.2.12"
    assert second[0].records[0].generation == first[0].records[0].generation + 1
    assert GRO in second[1].restore
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


def test_status_adds_up(machine: FakeMachine) -> None:
    Balancer(machine).up(request())
    machine.run_on()
    (status,) = Balancer(machine).status()
    assert (status.flows, status.nat_ports_used, status.nat_ports_total) == (4, 4, 72560)
    (service,) = status.services
    assert [backend.share for backend in service.backends] == [0.75, 0.25]
    assert (service.backends[0].packets_in, service.backends[0].bytes_out) == (5, 400)
