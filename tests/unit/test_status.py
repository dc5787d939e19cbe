"""What ``status`` sums up, on a machine in memory."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from fake_machine import MAC, OWN, FakeMachine, request, service

from xdplb.balancer import Balancer
from xdplb.checks import Health, IcmpCheck
from xdplb.errors import BusyError
from xdplb.facts import Attached, Neighbour, Usage, Way
from xdplb.model import (
    IPV4,
    IPV6,
    BackendState,
    Clients,
    ClientStatus,
    Hash,
    MapStatus,
    Mode,
    OnDown,
    PortRange,
    Protocol,
)
from xdplb.request import Request
from xdplb.wire import StatsRecord

BOTH = ("192.0.2.10", "2001:db8::10", "192.0.2.11", "2001:db8::11")
SERVICES = (OWN[IPV6], OWN[IPV4])


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


def test_status_adds_up(machine: FakeMachine) -> None:
    Balancer(machine).up(request())
    machine.run_on()
    (status,) = Balancer(machine).status()
    assert (status.flows, status.nat_ports_used, status.nat_ports_total) == (4, 4, 72560)
    (service,) = status.services
    assert [backend.share for backend in service.backends] == [0.75, 0.25]
    assert (service.backends[0].packets_in, service.backends[0].bytes_out) == (5, 400)


def test_status_looks_again_when_a_balancer_goes_while_it_is_read(machine: FakeMachine) -> None:
    Balancer(machine).up(request())
    machine.run_on()
    machine.fail["verdicts"] = [BusyError("gone"), BusyError("gone")]
    assert len(Balancer(machine).status()) == 1
    machine.fail["verdicts"] = [BusyError("gone")] * 4
    with pytest.raises(BusyError):
        Balancer(machine).status()


def test_status_lists_the_services_of_both_ip_versions(machine: FakeMachine) -> None:
    ports = (PortRange(53, 53),)
    protocols = (Protocol.UDP, Protocol.TCP)
    asked = request(*BOTH, services=SERVICES, ports=ports, protocols=protocols)
    Balancer(machine).up(asked)
    machine.run_on()
    (status,) = Balancer(machine).status()
    assert [(service.address, service.protocol) for service in status.services] == [
        (OWN[IPV4], Protocol.UDP),
        (OWN[IPV4], Protocol.TCP),
        (OWN[IPV6], Protocol.UDP),
        (OWN[IPV6], Protocol.TCP),
    ]
    assert [[f"{item.backend}" for item in service.backends] for service in status.services] == [
        *[["192.0.2.10", "192.0.2.11"]] * 2,
        *[["2001:db8::10", "2001:db8::11"]] * 2,
    ]
    assert {item.interface for service in status.services for item in service.backends} == {"eth0"}


def test_status_adds_up_over_both_ip_versions(machine: FakeMachine) -> None:
    Balancer(machine).up(request(*BOTH, services=SERVICES))
    machine.run_on()
    (status,) = Balancer(machine).status()
    assert (status.flows, status.capacity) == (4 + 2, 2 * 262144)
    assert (status.nat_ports_used, status.nat_ports_total) == (6, 2 * 72560)
    assert status.verdicts == {"forward": 5}
    ipv4, ipv6 = (service.backends for service in status.services)
    assert [item.flows for item in (*ipv4, *ipv6)] == [3, 1, 2, 0]
    assert [item.share for item in (*ipv4, *ipv6)] == [0.75, 0.25, 0.5, 0.5]
    assert [item.bytes_in for item in (*ipv4, *ipv6)] == [500, 0, 700, 0]


def test_a_backends_interface_has_the_name_that_it_has_now(machine: FakeMachine) -> None:
    machine.way = lambda address: Way(3 if address.version == IPV6 else 2, address)  # type: ignore[method-assign]
    Balancer(machine).up(request(*BOTH, services=SERVICES, interfaces=("eth0", "eth1")))
    machine.run_on()
    machine.links = {"lan": replace(machine.links["eth0"], name="lan")}
    (status,) = Balancer(machine).status()
    names = [{item.interface for item in service.backends} for service in status.services]
    assert names == [{"lan"}, {"eth1"}]


# Several services


def test_a_service_has_its_name_its_hash_and_the_backends_that_are_its_own(
    machine: FakeMachine,
) -> None:
    dns = service("192.0.2.2", "192.0.2.10", "192.0.2.11", name="dns", hash=Hash.SRC)
    web = service("192.0.2.3", "192.0.2.11", name="web", ports=(80, 443), protocol=Protocol.TCP)
    Balancer(machine).up(Request(("eth0",), (dns, web, replace(dns, ports=(PortRange(5, 9),)))))
    machine.run_on()
    machine.usages[IPV4] = Usage(
        flows={0: 1, 1: 2, 2: 4, 3: 8, 4: 16},
        traffic={number: StatsRecord(10 + number, 0, 0, 0, number) for number in range(5)},
        shares={0: 30, 1: 10, 2: 40, 3: 0, 4: 40},
    )
    (status,) = Balancer(machine).status()
    assert [(item.name, f"{item.address}", item.ports, item.hash) for item in status.services] == [
        ("dns", "192.0.2.2", (PortRange(53, 53),), Hash.SRC),
        ("web", "192.0.2.3", (PortRange(80, 80), PortRange(443, 443)), Hash.SRC_DST),
        ("dns", "192.0.2.2", (PortRange(5, 9),), Hash.SRC),
    ]
    assert [
        [(item.number, f"{item.backend}", item.flows, item.share) for item in one.backends]
        for one in status.services
    ] == [
        [(0, "192.0.2.10", 1, 0.75), (1, "192.0.2.11", 2, 0.25)],
        [(2, "192.0.2.11", 4, 1.0)],
        [(3, "192.0.2.10", 8, 0.0), (4, "192.0.2.11", 16, 1.0)],
    ]
    assert [
        (item.packets_in, item.refused) for one in status.services for item in one.backends
    ] == [(10 + number, number) for number in range(5)]
    assert status.flows == status.nat_ports_used == 31


def test_services_share_nat_ports_where_they_speak_from_one_address(machine: FakeMachine) -> None:
    one = service("192.0.2.2", "192.0.2.10")
    Balancer(machine).up(Request(("eth0",), (one, replace(one, ports=(PortRange(5, 9),)))))
    machine.run_on()
    (status,) = Balancer(machine).status()
    assert status.nat_ports_total == 36280


def test_a_backend_spoken_to_from_several_addresses_is_summed_up(machine: FakeMachine) -> None:
    lanes = tuple(ip_address(f"192.0.2.{number}") for number in (101, 102))
    item = service("192.0.2.1", "192.0.2.10", "192.0.2.11", nat_addresses=lanes)
    Balancer(machine).up(Request(("eth0",), (item,)))
    machine.run_on()
    machine.usages[IPV4] = Usage(
        flows={0: 1, 1: 2, 3: 8},
        traffic={0: StatsRecord(1, 2, 3, 4, 5), 1: StatsRecord(10, 20, 30, 40, 50)},
        shares={0: 10, 1: 11, 2: 9, 3: 10},
    )
    (status,) = Balancer(machine).status()
    ten, eleven = status.services[0].backends
    assert (ten.number, f"{ten.backend}", eleven.number) == (0, "192.0.2.10", 2)
    assert (ten.flows, eleven.flows) == (3, 8)
    assert (ten.share, eleven.share) == (21 / 40, 19 / 40)
    assert (ten.packets_in, ten.bytes_in, ten.packets_out, ten.bytes_out) == (11, 22, 33, 44)
    assert (ten.refused, eleven.refused, eleven.packets_in) == (55, 0, 0)
    assert status.nat_ports_total == 4 * 36280


@pytest.mark.parametrize("on_down", OnDown)
def test_a_backend_that_is_down_is_down_whatever_its_flows_do(
    machine: FakeMachine, on_down: OnDown
) -> None:
    item = service("192.0.2.1", "192.0.2.10", "192.0.2.11", on_down=on_down)
    down = replace(item.backends[0], state=BackendState.DOWN)
    item = replace(item, backends=(down, item.backends[1]))
    Balancer(machine).up(Request(("eth0",), (item,)))
    machine.run_on()
    (status,) = Balancer(machine).status()
    assert [one.state for one in status.services[0].backends] == [
        BackendState.DOWN,
        BackendState.UP,
    ]


# Shares, NAT ports, and what is around


def test_the_expected_share_is_that_of_the_weight_among_those_that_are_up(
    machine: FakeMachine,
) -> None:
    item = service("192.0.2.1", "192.0.2.10", "192.0.2.11", "192.0.2.12")
    ten, eleven, twelve = item.backends
    backends = (ten, replace(eleven, weight=3), replace(twelve, state=BackendState.DRAIN))
    Balancer(machine).up(Request(("eth0",), (replace(item, backends=backends),)))
    machine.run_on()
    (status,) = Balancer(machine).status()
    assert [one.expected_share for one in status.backends] == [0.25, 0.75, 0]


def test_backends_that_share_nat_ports_have_the_same_in_use(machine: FakeMachine) -> None:
    one = service("192.0.2.2", "192.0.2.10")
    Balancer(machine).up(Request(("eth0",), (one, replace(one, ports=(PortRange(5, 9),)))))
    machine.run_on()
    (status,) = Balancer(machine).status()
    assert [(item.nat_ports_used, item.nat_ports_total) for item in status.backends] == [
        (4, 36280),
        (4, 36280),
    ]
    assert status.fullest is status.backends[0]


def test_a_backend_spoken_to_from_several_addresses_has_the_nat_ports_of_all(
    machine: FakeMachine,
) -> None:
    lanes = tuple(ip_address(f"192.0.2.{number}") for number in (101, 102))
    item = service("192.0.2.1", "192.0.2.10", nat_addresses=lanes)
    Balancer(machine).up(Request(("eth0",), (item,)))
    machine.run_on()
    (status,) = Balancer(machine).status()
    (backend,) = status.backends
    assert (backend.nat_ports_used, backend.nat_ports_total) == (4, 2 * 36280)
    assert backend.nat_ports_fill == pytest.approx(4 / 72560)


class TestWarnings:
    """What is around a balancer reaches the warnings."""

    @pytest.fixture
    def running(self, machine: FakeMachine) -> FakeMachine:
        places = [(2, ip_address(f"192.0.2.{last}")) for last in (10, 11)]
        machine.known = dict.fromkeys(places, Neighbour(MAC))
        machine.usages[IPV4] = Usage({}, {}, {0: 1, 1: 1})
        Balancer(machine).up(request())
        machine.run_on()
        assert self.told(machine) == []
        return machine

    def told(self, machine: FakeMachine) -> list[str]:
        (status,) = Balancer(machine).status()
        return [item.what for item in status.warnings]

    def test_another_program(self, running: FakeMachine) -> None:
        running.programs[2] = Attached(77, Mode.NATIVE)
        assert self.told(running) == ["eth0 carries program 77 in place of the balancer's program"]

    def test_no_program(self, running: FakeMachine) -> None:
        del running.programs[2]
        assert self.told(running) == ["eth0 does not carry the balancer's program any more"]

    def test_another_name(self, running: FakeMachine) -> None:
        running.links = {"lan": replace(running.links["eth0"], name="lan")}
        assert self.told(running) == ["eth0 is called lan now"]

    def test_no_interface(self, running: FakeMachine) -> None:
        running.links = {}
        assert self.told(running) == ["eth0 is not in this network namespace any more"]

    def test_no_carrier(self, running: FakeMachine) -> None:
        running.dark = {"eth0"}
        assert self.told(running) == ["eth0 has no carrier"]

    def test_no_address(self, running: FakeMachine) -> None:
        running.lost = {OWN[IPV4]}
        assert self.told(running) == ["192.0.2.1 is not an address of this host"]

    def test_no_agent(self, running: FakeMachine) -> None:
        checked = replace(service("", "192.0.2.10"), health=Health(IcmpCheck()))
        Balancer(running).up(Request(("eth0",), (checked,)))
        running.run_on()
        assert self.told(running) == [
            "nobody checks the health of backends: the agent is not running"
        ]
        running.agents = {"eth0"}
        assert self.told(running) == []


def test_the_clients_are_those_of_every_balancer(machine: FakeMachine) -> None:
    Balancer(machine).up(request())
    machine.run_on()
    machine.busiest = Clients(9, (ClientStatus(ip_address("198.51.100.7"), 4),) * 3)
    assert Balancer(machine).clients(2) == [Clients(9, machine.busiest.first[:2])]
    machine.balancers = []
    assert Balancer(machine).clients(2) == []


def test_status_says_how_full_the_maps_are(machine: FakeMachine) -> None:
    machine.usages[IPV4] = replace(machine.usages[IPV4], records=9)
    Balancer(machine).up(request())
    machine.run_on()
    (status,) = Balancer(machine).status()
    flows, backends = status.maps
    assert flows == MapStatus(IPV4, "reverse_lookup", 9, status.capacity)
    assert (backends.name, backends.entries) == ("backends", 2)
    assert backends.capacity == machine.balancers[0].state.sides[0].room


def test_status_says_which_interface_does_not_carry_the_program(machine: FakeMachine) -> None:
    Balancer(machine).up(request(interfaces=("eth0", "eth1")))
    machine.run_on()
    (status,) = Balancer(machine).status()
    assert [item.attached for item in status.interfaces] == [True, True]
    machine.programs[2] = replace(machine.programs[2], program_id=7)
    del machine.programs[3]
    (status,) = Balancer(machine).status()
    assert [item.attached for item in status.interfaces] == [False, False]
