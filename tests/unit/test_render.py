"""The status as text and as JSON, for a fixed balancer."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from xdplb.model import (
    ALL_PORTS,
    Advice,
    Backend,
    BackendState,
    BackendStatus,
    BalancerStatus,
    Clients,
    ClientStatus,
    Hash,
    InterfaceStatus,
    Mode,
    PortRange,
    Protocol,
    ServiceStatus,
)
from xdplb.rates import Rates, Traffic, place_of
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
    expected_share=0.25,
    nat_ports_used=2,
    nat_ports_total=36280,
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
            BACKEND,
            number=1,
            backend=Backend(IPv4Address("172.11.0.21"), 53, 3),
            mac=None,
            flows=0,
            expected_share=0.75,
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
  backend         state  mac                share  flows  packets in  packets out  bytes in  \
bytes out  weight  expected
  172.11.0.20     up     02:00:00:00:00:14  50.0%      2          10            9       400  \
      360       1     25.0%
  172.11.0.21:53  up     unresolved         50.0%      0          10            9       400  \
      360       3     75.0%
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
  backend            state  mac                share  flows  packets in  packets out  bytes in  \
bytes out  weight  expected
  2001:db8::20       up     02:00:00:00:00:14  50.0%      2          10            9       400  \
      360       1     25.0%
  [2001:db8::20]:53  up     unresolved         50.0%      0          10            9       400  \
      360       1     25.0%"""


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
        "expected_share": 0.25,
        "nat_ports": {"used": 2, "total": 36280},
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
    named = replace(STATUS, services=(replace(tcp, name="web"),))
    assert backends_to_text([named]).splitlines()[1].split()[:3] == ["web", "tcp", "172.11.0.20"]


def test_the_json_counts_the_errors_that_a_backend_answered_with() -> None:
    status = replace(STATUS, services=(replace(SERVICE, backends=(replace(BACKEND, refused=4),)),))
    services = json.loads(to_json([status]))["balancers"][0]["services"]
    assert services[0]["backends"][0]["refused"] == 4


WARNED = replace(
    STATUS,
    verdicts={"forward": 10, "return": 9, "drop_no_port": 12, "drop_ttl": 0},
    warnings=(Advice("backend 172.11.0.21:53 is down", "'xdplb backend undrain' lets it back"),),
)


def test_the_text_says_why_packets_were_dropped_and_what_is_wrong() -> None:
    assert to_text([WARNED]).splitlines()[4:] == [
        "  flows 2 of 262144, NAT ports 2 of 72560",
        "  packets: forward 10, return 9, drop_no_port 12",
        "  drop_no_port 12: no free NAT port toward the backend was found",
        "    hint: add backends or nat-addresses, widen --nat-ports, or shorten --timeout; "
        "'xdplb capacity' says how much",
        "  program 31, tag abcd, xdplb 0.1.0",
        "  warning: backend 172.11.0.21:53 is down",
        "    hint: 'xdplb backend undrain' lets it back",
    ]


def test_the_json_says_so_too() -> None:
    (item,) = json.loads(to_json([WARNED]))["balancers"]
    assert item["warnings"] == [
        {"what": "backend 172.11.0.21:53 is down", "hint": "'xdplb backend undrain' lets it back"}
    ]
    assert [(one["reason"], one["packets"]) for one in item["drops"]] == [("drop_no_port", 12)]
    assert all(one["meaning"] and one["hint"] for one in item["drops"])
    (well,) = json.loads(to_json([STATUS]))["balancers"]
    assert (well["warnings"], well["drops"]) == ([], [])


def test_the_json_says_how_full_it_is() -> None:
    full = replace(BACKEND, nat_ports_used=27210)
    status = replace(STATUS, services=(replace(SERVICE, backends=(BACKEND, full)),), flows=131072)
    (item,) = json.loads(to_json([status]))["balancers"]
    assert item["flows"] == {"active": 131072, "capacity": 262144, "fill": 0.5, "full_in": None}
    assert item["nat_ports"] == {
        "used": 2,
        "total": 72560,
        "fill": 0.000028,
        "fullest": {"backend": "172.11.0.20", "fill": 0.75},
        "full_in": None,
    }


RATES = {
    7: Rates(
        over_s=2.0,
        traffic={place_of(SERVICE, BACKEND): Traffic(1000.0, 480000.5, 990.0, 475000.0)},
        verdicts={"forward": 1000.0, "drop_no_port": 1.5},
        flows_full_s=240.0,
        nat_ports_full_s=40.0,
    )
}
FULL = replace(STATUS, flows=196608, nat_ports_used=56597)


def test_what_was_measured_is_added_to_the_text() -> None:
    lines = to_text([FULL], RATES).splitlines()
    assert lines[1].endswith("expected  packets/s in  packets/s out  bit/s in  bit/s out")
    assert lines[2].endswith("25.0%        1.00 k            990     480 k      475 k")
    assert lines[3].endswith("75.0%             0              0         0          0")
    assert lines[4] == (
        "  flows 196608 of 262144 (75 % used, full in about 4 min at this rate), "
        "NAT ports 56597 of 72560 (78 % used, full in about 40 s at this rate)"
    )


def test_the_text_names_the_backend_whose_ports_end_first() -> None:
    full = replace(BACKEND, nat_ports_used=36000)
    status = replace(STATUS, services=(replace(SERVICE, backends=(BACKEND, full)),))
    assert (
        to_text([status], RATES)
        .splitlines()[4]
        .endswith(
            "NAT ports 2 of 72560 (99 % used toward 172.11.0.20, full in about 40 s at this rate)"
        )
    )


def test_without_a_measurement_there_is_no_forecast() -> None:
    assert (
        to_text([FULL])
        .splitlines()[4]
        .endswith("(75 % used), NAT ports 56597 of 72560 (78 % used)")
    )


def test_what_was_measured_is_added_to_the_json() -> None:
    text = to_json([FULL], RATES, indent=None)
    assert "\n" not in text
    (item,) = json.loads(text)["balancers"]
    assert item["rates"] == {"over": 2.0, "verdicts": {"forward": 1000.0, "drop_no_port": 1.5}}
    assert (item["flows"]["full_in"], item["nat_ports"]["full_in"]) == (240.0, 40.0)
    first, second = item["services"][0]["backends"]
    assert first["rates"] == {
        "packets_in": 1000.0,
        "bits_in": 480000.5,
        "packets_out": 990.0,
        "bits_out": 475000.0,
    }
    assert set(second["rates"].values()) == {0}
    (unmeasured,) = json.loads(to_json([FULL], {}))["balancers"]
    assert "rates" not in unmeasured


CLIENTS = Clients(
    12,
    (
        ClientStatus(IPv4Address("198.51.100.7"), 9),
        ClientStatus(IPv6Address("2001:db8:5::"), 2),
    ),
)


def test_clients_that_were_counted_are_added() -> None:
    lines = to_text([STATUS, STATUS], None, [CLIENTS, Clients(0, ())]).splitlines()
    assert "  clients 12, most flows: 198.51.100.7 9, 2001:db8:5::/64 2" in lines
    assert "  clients 0, most flows: none yet" in lines
    first, second = json.loads(to_json([STATUS, STATUS], None, [CLIENTS]))["balancers"]
    assert first["clients"] == {
        "total": 12,
        "first": [
            {"client": "198.51.100.7", "flows": 9},
            {"client": "2001:db8:5::/64", "flows": 2},
        ],
    }
    assert "clients" not in second
