"""The status as text and as JSON, for a fixed balancer."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from xdplb.model import (
    ALL_PORTS,
    Backend,
    BackendState,
    BackendStatus,
    BalancerStatus,
    Hash,
    InterfaceStatus,
    Mode,
    PortRange,
    Protocol,
    ServiceStatus,
)
from xdplb.render import backends_to_json, backends_to_text, to_json, to_text

SERVER6 = IPv6Address("2001:db8::20")
BACKEND = BackendStatus(
    0,
    Backend(IPv4Address("172.11.0.20")),
    BackendState.UP,
    "02:00:00:00:00:14",
    IPv4Address("172.11.0.20"),
    "balancer",
    0.5,
    flows=2,
    packets_in=10,
    bytes_in=400,
    packets_out=9,
    bytes_out=360,
)
SERVICE = ServiceStatus(
    name="",
    address=IPv4Address("172.11.0.1"),
    protocol=Protocol.UDP,
    ports=ALL_PORTS,
    hash=Hash.SRC_DST,
    backends=(
        BACKEND,
        replace(
            BACKEND, number=1, backend=Backend(IPv4Address("172.11.0.21"), 53), mac=None, flows=0
        ),
    ),
)
STATUS = BalancerStatus(
    interfaces=(InterfaceStatus("balancer", 7, Mode.NATIVE),),
    program_id=31,
    program_tag="abcd",
    version="0.1.0",
    services=(SERVICE,),
    flows=2,
    capacity=262144,
    nat_ports_used=2,
    nat_ports_total=72560,
    verdicts={"forward": 10, "return": 9, "drop_no_port": 0},
)
TEXT = """\
172.11.0.1 udp, all ports, by src-dst, on balancer (native)
  backend         state  mac                share  flows  packets in  packets out
  172.11.0.20     up     02:00:00:00:00:14  50.0%      2          10            9
  172.11.0.21:53  up     unresolved         50.0%      0          10            9
  flows 2 of 262144, NAT ports 2 of 72560
  packets: forward 10, return 9
  program 31, tag abcd, xdplb 0.1.0"""


SERVICE6 = ServiceStatus(
    name="",
    address=IPv6Address("2001:db8::1"),
    protocol=Protocol.UDP,
    ports=ALL_PORTS,
    hash=Hash.SRC_DST,
    backends=(
        replace(BACKEND, backend=Backend(SERVER6), next_hop=IPv6Address("fe80::1")),
        replace(
            BACKEND, number=1, backend=Backend(SERVER6, 53), next_hop=SERVER6, mac=None, flows=0
        ),
    ),
)
TEXT6 = """\
2001:db8::1 udp, all ports, by src-dst, on balancer (native)
  backend            state  mac                share  flows  packets in  packets out
  2001:db8::20       up     02:00:00:00:00:14  50.0%      2          10            9
  [2001:db8::20]:53  up     unresolved         50.0%      0          10            9"""


def test_the_text_of_both_ip_versions_is_one_balancers() -> None:
    *ipv4, flows, packets, program = TEXT.splitlines()
    lines = [*ipv4, *TEXT6.splitlines(), flows, packets, program]
    assert to_text([replace(STATUS, services=(SERVICE, SERVICE6))]).splitlines() == lines


def test_the_json_has_ipv6_addresses_without_brackets() -> None:
    status = replace(STATUS, services=(SERVICE, SERVICE6))
    ipv4, ipv6 = json.loads(to_json([status]))["balancers"][0]["services"]
    assert (ipv4["address"], ipv6["address"]) == ("172.11.0.1", "2001:db8::1")
    assert [(item["address"], item["port"], item["next_hop"]) for item in ipv6["backends"]] == [
        ("2001:db8::20", None, "fe80::1"),
        ("2001:db8::20", 53, "2001:db8::20"),
    ]
    assert ipv4["backends"][0].keys() == ipv6["backends"][0].keys()


def test_the_text_is_stable() -> None:
    assert to_text([STATUS]) == TEXT


def test_balancers_stand_apart_by_an_empty_line() -> None:
    assert to_text([STATUS, STATUS]) == f"{TEXT}\n\n{TEXT}"


def test_the_json_of_one_backend_is_the_contract_and_what_was_added() -> None:
    backend = json.loads(to_json([STATUS]))["balancers"][0]["services"][0]["backends"][0]
    assert backend == {
        "address": "172.11.0.20",
        "port": None,
        "weight": 1,
        "state": "up",
        "mac": "02:00:00:00:00:14",
        "flows": 2,
        "packets_in": 10,
        "bytes_in": 400,
        "packets_out": 9,
        "bytes_out": 360,
        "next_hop": "172.11.0.20",
        "interface": "balancer",
        "share": 0.5,
        "refused": 0,
    }


def test_the_json_lists_ports_as_they_were_asked_for() -> None:
    ports = (PortRange(53, 53), PortRange(100, 200))
    tcp = replace(SERVICE, ports=ports, protocol=Protocol.TCP)
    status = replace(STATUS, services=(SERVICE, tcp))
    services = json.loads(to_json([status]))["balancers"][0]["services"]
    assert [item["protocol"] for item in services] == ["udp", "tcp"]
    assert [item["ports"] for item in services] == ["all", "53,100-200"]


def test_the_text_has_a_table_for_each_service() -> None:
    status = replace(STATUS, services=(SERVICE, replace(SERVICE, protocol=Protocol.TCP)))
    lines = to_text([status]).splitlines()
    assert lines[0].startswith("172.11.0.1 udp, ")
    assert lines[4].startswith("172.11.0.1 tcp, ")
    assert lines[1:4] == lines[5:8]


def test_the_json_names_every_verdict_also_those_at_zero() -> None:
    assert json.loads(to_json([STATUS]))["balancers"][0]["verdicts"] == STATUS.verdicts


def test_a_service_that_has_a_name_begins_with_it() -> None:
    status = replace(STATUS, services=(replace(SERVICE, name="dns"), SERVICE6))
    lines = to_text([status]).splitlines()
    assert lines[0] == "dns: " + TEXT.splitlines()[0]
    assert lines[4:] == [*TEXT6.splitlines(), *TEXT.splitlines()[4:]]


def test_the_json_has_the_name_of_a_service_or_none() -> None:
    status = replace(STATUS, services=(replace(SERVICE, name="dns"), SERVICE6))
    services = json.loads(to_json([status]))["balancers"][0]["services"]
    assert [item["name"] for item in services] == ["dns", None]
    backends = json.loads(backends_to_json([status]))["backends"]
    assert [(item["name"], item["service"], item["protocol"]) for item in backends] == [
        *[("dns", "172.11.0.1", "udp")] * 2,
        *[(None, "2001:db8::1", "udp")] * 2,
    ]


def test_the_table_of_backends_says_of_which_service_each_is() -> None:
    tcp = replace(SERVICE, protocol=Protocol.TCP, backends=(BACKEND,))
    lines = backends_to_text([replace(STATUS, services=(SERVICE, tcp))]).splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["172.11.0.1", "udp", "172.11.0.20"],
        ["172.11.0.1", "udp", "172.11.0.21:53"],
        ["172.11.0.1", "tcp", "172.11.0.20"],
    ]


def test_the_json_counts_the_errors_that_a_backend_answered_with() -> None:
    status = replace(STATUS, services=(replace(SERVICE, backends=(replace(BACKEND, refused=4),)),))
    services = json.loads(to_json([status]))["balancers"][0]["services"]
    assert services[0]["backends"][0]["refused"] == 4
