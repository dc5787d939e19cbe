"""Whether clients may be sent to a balancer, over a machine in memory."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from agent_machine import LiveMachine
from fake_machine import OWN, service

from xdplb import live
from xdplb.balancer import Balancer
from xdplb.errors import BusyError, PrivilegeError, TableError, XdplbError
from xdplb.facts import Attached
from xdplb.fitness import Fitness, judge
from xdplb.model import IPV4, Backend, Mode
from xdplb.request import Request, Service

A, B = "192.0.2.10", "192.0.2.11"
MAC = bytes.fromhex("020000000010")
DNS = service("192.0.2.1", A, B, name="dns")
SYSLOG = service("192.0.2.2", B, ports=(514,), name="syslog")
NOBODY = "no backend takes new flows"


@pytest.fixture
def machine() -> LiveMachine:
    """A machine on which every next hop answers."""
    return LiveMachine()


def up(machine: LiveMachine, *services: Service, interfaces: tuple[str, ...] = ("eth0",)) -> None:
    Balancer(machine).up(Request(interfaces, services or (DNS, SYSLOG)))


def edit(machine: LiveMachine, address: str, **what: object) -> None:
    Balancer(machine).edit_backend(
        Backend(ip_address(address)),
        lambda it: replace(it, **what),  # type: ignore[arg-type]
    )


def test_a_balancer_with_a_server_for_each_service_is_healthy(machine: LiveMachine) -> None:
    up(machine)
    found = judge(machine)
    assert (found.is_healthy, found.reasons, found.interfaces) == (True, (), ("eth0",))
    assert [f"{item.service}" for item in found.services] == ["dns udp", "syslog udp"]


def test_where_nothing_is_up_nothing_is_healthy(machine: LiveMachine) -> None:
    assert judge(machine) == Fitness(troubles=("no balancer is up",))
    assert judge(machine, "eth0").reasons == ("no balancer is up on eth0",)
    assert judge(machine, "eth7").reasons == ("no balancer is up on eth7",)
    assert not judge(machine).is_healthy


def test_the_balancer_on_an_interface_is_the_one_that_is_meant(machine: LiveMachine) -> None:
    up(machine)
    assert judge(machine, "eth0").is_healthy
    assert judge(machine, "eth1").reasons == ("no balancer is up on eth1",)


def test_of_several_balancers_one_has_to_be_named(machine: LiveMachine) -> None:
    up(machine)
    (first,) = machine.balancers
    on = replace(first.state.interfaces[0], name="eth1", index=3)
    state = replace(first.state, interfaces=(on,))
    machine.programs[3] = Attached(101, Mode.NATIVE)
    machine.balancers.append(replace(first, program_id=101, state=state))
    found = judge(machine)
    assert not found.is_healthy
    assert found.reasons == ("several balancers are up: say which one with --iface NAME",)
    assert judge(machine, "eth0").interfaces == ("eth0",)
    assert judge(machine, "eth1").interfaces == ("eth1",)


def test_one_service_with_a_server_is_enough_and_the_others_are_named(
    machine: LiveMachine,
) -> None:
    up(machine)
    edit(machine, B, weight=0)
    found = judge(machine)
    assert found.is_healthy
    assert found.reasons == (f"syslog udp: {NOBODY}",)
    Balancer(machine).edit_backend(Backend(ip_address(A)), live.drain)
    found = judge(machine)
    assert not found.is_healthy
    assert found.reasons == (f"dns udp and syslog udp: {NOBODY}",)


@pytest.mark.parametrize("name", ["syslog", "192.0.2.2"])
def test_a_service_that_is_named_is_the_only_one_that_matters(
    machine: LiveMachine, name: str
) -> None:
    up(machine)
    assert judge(machine, service=name).is_healthy
    edit(machine, B, weight=0)
    found = judge(machine, service=name)
    assert (found.is_healthy, found.reasons) == (False, (f"syslog udp: {NOBODY}",))


def test_a_service_that_is_not_there_is_not_healthy(machine: LiveMachine) -> None:
    up(machine)
    found = judge(machine, service="mail")
    assert (found.is_healthy, found.reasons) == (False, ("there is no service mail",))


def test_a_server_counts_when_its_next_hop_has_answered(machine: LiveMachine) -> None:
    up(machine, DNS)
    (running,) = machine.balancers
    deaf = [item._replace(mac=None) for item in running.records[IPV4]]
    machine.balancers = [replace(running, records={IPV4: tuple(deaf)})]
    found = judge(machine)
    assert not found.is_healthy
    assert found.reasons == (f"dns udp: nobody answers for {A} and {B}, the way to its backends",)
    machine.balancers = [replace(running, records={IPV4: (deaf[0]._replace(mac=MAC), *deaf[1:])})]
    assert judge(machine).is_healthy


def test_a_balancer_that_drains_is_not_healthy(machine: LiveMachine) -> None:
    up(machine)
    (running,) = machine.balancers
    machine.balancers = [replace(running, state=replace(running.state, draining=True))]
    found = judge(machine)
    assert (found.is_healthy, found.draining) == (False, True)
    assert found.reasons == ("it is draining: 'xdplb down --drain' is to take it down",)


class TestInterfaces:
    """What is wrong with one of several."""

    @pytest.fixture(autouse=True)
    def _up(self, machine: LiveMachine) -> None:
        up(machine, DNS, interfaces=("eth0", "eth1"))

    def test_one_that_has_lost_the_program(self, machine: LiveMachine) -> None:
        del machine.programs[3]
        found = judge(machine)
        assert not found.is_healthy
        assert found.reasons == ("eth1 does not carry the balancer's program any more",)
        assert judge(machine, "eth1") == found, "it is still the balancer that was on it"

    def test_one_that_carries_another_program(self, machine: LiveMachine) -> None:
        machine.programs[3] = Attached(77, Mode.NATIVE)
        assert judge(machine).reasons == (
            "eth1 carries program 77 in place of the balancer's program",
        )

    def test_one_that_is_gone(self, machine: LiveMachine) -> None:
        del machine.links["eth1"]
        reason = "eth1 is not in this network namespace any more"
        assert judge(machine).reasons == judge(machine, "eth1").reasons == (reason,)

    def test_one_without_a_carrier(self, machine: LiveMachine) -> None:
        machine.dark = {"eth1"}
        assert judge(machine).reasons == ("eth1 has no carrier",)

    def test_one_with_another_mac_address(self, machine: LiveMachine) -> None:
        machine.links["eth1"] = replace(machine.links["eth1"], mac=bytes(6))
        assert judge(machine).reasons == (
            "eth1 has another MAC address than the program was made for",
        )

    def test_another_name_or_mtu_does_not_matter(self, machine: LiveMachine) -> None:
        machine.links["lan0"] = replace(machine.links.pop("eth1"), name="lan0", mtu=9000)
        assert judge(machine).is_healthy
        assert judge(machine).interfaces == ("eth0", "lan0")
        assert judge(machine, "lan0").is_healthy


class TestAddresses:
    """Which addresses the host has to have."""

    NAT = ip_address("192.0.2.3")

    @pytest.fixture(autouse=True)
    def _up(self, machine: LiveMachine) -> None:
        up(machine, replace(DNS, nat_addresses=(self.NAT,)))

    def test_that_of_the_service_may_be_elsewhere(self, machine: LiveMachine) -> None:
        """Who asks may move it here because of the answer."""
        machine.lost = {OWN[IPV4]}
        assert judge(machine).is_healthy
        machine.lost = {OWN[IPV4], self.NAT}
        assert judge(machine).is_healthy

    def test_with_that_of_the_service_answers_need_theirs(self, machine: LiveMachine) -> None:
        machine.lost = {self.NAT}
        found = judge(machine)
        assert not found.is_healthy
        assert found.reasons == ("dns udp: answers go to 192.0.2.3, which this host has not got",)


def test_what_somebody_is_changing_is_looked_at_when_that_is_done(machine: LiveMachine) -> None:
    up(machine)
    machine.fail["running"] = [BusyError("it was replaced just now")]
    assert judge(machine).is_healthy


def test_who_takes_long_to_change_it_is_not_waited_for(machine: LiveMachine) -> None:
    up(machine)
    machine.fail = {"running": [TableError("damaged")], "lock": [BusyError("locked")]}
    assert judge(machine).reasons == ("damaged",)


def test_what_was_known_before_is_not_looked_at_twice(machine: LiveMachine) -> None:
    known = judge(machine)
    machine.looks = 0
    assert judge(machine, known=known) == known
    assert machine.looks == 1


def test_records_that_cannot_be_read_are_a_reason(machine: LiveMachine) -> None:
    up(machine)
    machine.fail["running"] = [TableError("of another version")] * 2
    assert judge(machine).reasons == ("of another version",)


def test_who_may_not_look_is_told(machine: LiveMachine) -> None:
    machine.fail["running"] = [PrivilegeError("look")]
    with pytest.raises(XdplbError, match="no privilege"):
        judge(machine)
