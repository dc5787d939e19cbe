"""The flags of the compiler: numbers and ranges of numbers, and what is a constant."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fake_machine import OWN, request, service
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import EPHEMERAL, facts_for, plan_for, plan_of

from xdplb import source, wire
from xdplb.flags import flags, shares_ports
from xdplb.model import IPV4, IPV6, Hash, PortRange, Protocol, Timeouts
from xdplb.plan import make_plan
from xdplb.request import Request

if TYPE_CHECKING:
    from xdplb.model import Address
    from xdplb.plan import Plan

SERVICE4, SERVICE6 = OWN[IPV4], OWN[IPV6]
NUMBER = r"[0-9]+(?:U|ULL)?"
ENTRY = rf"(?:RANGE|ADDRESS|MAC)\({NUMBER}(?:, {NUMBER}){{0,2}}\)"
FLAG = re.compile(rf"-D[A-Z0-9_]+(?:\((?:RANGE|ADDRESS|MAC)\))?=(?:{NUMBER}|{ENTRY}(?: {ENTRY})*)")

CONSTANTS_OF_ONE = {
    *("SERVICE_WORD_0", "SERVICE_PORTS(RANGE)", "SERVICE_HASH"),
    *("UNREPLIED_TICKS", "ANSWERED_TICKS", "TRANSITORY_TICKS", "ESTABLISHED_TICKS"),
}


def _values(plan: Plan) -> dict[str, str]:
    return dict(item[2:].split("=", 1) for item in flags(plan, shares_ports=True))


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (SERVICE4, ["16908480ULL", None]),
        (SERVICE6, ["3087860000ULL", "72057594037927936ULL"]),
    ],
    ids=str,
)
def test_the_service_is_in_the_words_that_the_program_loads(
    service: Address, words: list[str | None]
) -> None:
    values = _values(plan_of(request(f"{service + 9}", services=(service,))))
    assert [values.get("SERVICE_WORD_0"), values.get("SERVICE_WORD_1")] == words
    size = 4 if service.version == IPV4 else 8
    loaded = [int(word.removesuffix("ULL")).to_bytes(size, "little") for word in words if word]
    assert b"".join(loaded) == service.packed


@settings(max_examples=30, deadline=None)
@given(
    name=st.text(min_size=1),
    kind=st.sampled_from(Hash),
    keys=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    address=st.ip_addresses(network="198.51.100.0/24") | st.ip_addresses(network="2001:db8:1::/48"),
    seconds=st.integers(1, 86400),
    is_many=st.booleans(),
)
def test_no_text_of_the_user_gets_into_a_flag(
    name: str,
    kind: Hash,
    keys: tuple[int, int],
    address: Address,
    seconds: int,
    is_many: bool,  # noqa: FBT001 - drawn
) -> None:
    backend = (SERVICE4 if address.version == IPV4 else SERVICE6) + 9
    timeouts = Timeouts(seconds, seconds, seconds, seconds)
    options: dict[str, Any] = {"hash": kind, "timeouts": timeouts, "name": name}
    services = [service(f"{address}", f"{backend}", **options)]
    if is_many:
        services.append(service(f"{address}", f"{backend}", ports=(54,), **options))
    facts = facts_for(address.version, [backend])
    port = replace(facts.ports[0], name=name)
    asked = Request(
        (name,), tuple(services), virtual_mac=("02:00:00:00:00:0a", "00:00:5e:00:01:35")
    )
    plan = make_plan(asked, replace(facts, ports=(port,), hash_keys=keys))
    assert plan.has_many == is_many
    assert all(FLAG.fullmatch(flag) for flag in flags(plan, shares_ports=True))


@pytest.mark.parametrize("version", [IPV4, IPV6])
def test_every_flag_has_a_default_in_the_program(version: int) -> None:
    config = (source.directory() / "config.h").read_text()
    own, backend = OWN[version], f"{OWN[version] + 9}"
    one = plan_for(service(f"{own}", backend))
    many = plan_for(service(f"{own}", backend), service(f"{own}", backend, ports=(54,)))
    for flag in (*flags(one, shares_ports=True), *flags(many, shares_ports=True)):
        name = flag[2:].split("=")[0].split("(")[0]
        assert f"#ifndef {name}\n" in config


@pytest.mark.parametrize(
    ("option", "name"),
    [
        (30, "UNREPLIED_TICKS"),
        (120, "ANSWERED_TICKS"),
        (240, "TRANSITORY_TICKS"),
        (7440, "ESTABLISHED_TICKS"),
    ],
)
def test_a_default_timeout_is_the_one_of_the_program(option: int, name: str) -> None:
    config = (source.directory() / "config.h").read_text()
    found = re.search(rf"#define {name} (\d+)", config)
    assert found is not None
    assert abs(int(found[1]) - option * wire.TICKS_PER_S) < 2


@pytest.mark.parametrize(
    ("options", "limit", "window"),
    [
        ({}, 36280 // 2, 0),
        ({"max_client_flows": 0}, 0, 0),
        ({"max_client_flows": 100}, 100, 200),
        ({"max_client_flows": 36280}, 36280, 0),
        ({"max_client_flows": 100, "max_flows": 201}, 100, 0),
        ({"max_client_flows": 100, "max_flows": 202}, 100, 200),
        ({"nat_ports": (PortRange(2000, 2008),)}, 4, 0),
        ({"nat_ports": (PortRange(2000, 2000),)}, 0, 0),
    ],
)
def test_a_client_may_have_half_of_the_ports_or_what_was_asked_for(
    options: dict[str, Any], limit: int, window: int
) -> None:
    values = _values(plan_of(request("192.0.2.10", **options), pool=()))
    assert values["CLIENT_LIMIT"] == f"{limit}"
    assert values["CLIENT_WINDOW"] == f"{window}"


@pytest.mark.parametrize(
    ("flows", "counters"),
    [(1, 1024), (4096, 1024), (4100, 2048), (262_144, 65536), (1_000_000, 262_144)],
)
def test_there_is_a_counter_for_every_four_flows(flows: int, counters: int) -> None:
    for limit in (0, 1, 1000):
        plan = plan_of(request("192.0.2.10", max_flows=flows, max_client_flows=limit))
        assert plan.client_counters == counters
        assert _values(plan)["CLIENT_COUNTERS"] == f"{counters}"


@pytest.mark.parametrize("kind", list(Hash))
def test_flags_are_numbers_and_ranges_only(kind: Hash) -> None:
    values = _values(plan_of(request(hash=kind, ports=(PortRange(53, 53), PortRange(80, 90)))))
    assert values["SERVICE_PORTS(RANGE)"] == "RANGE(53, 53) RANGE(80, 90)"
    assert values["UNREPLIED_TICKS"] == "447"
    assert values["ANSWERED_TICKS"] == "1788"
    for value in values.values():
        assert set(value) <= set("0123456789ULRANGE(), ")


@pytest.mark.parametrize(("kind", "number"), [("src-dst", 0), ("5-tuple", 1), ("src", 2)])
def test_the_hash_of_one_service_is_a_number(kind: str, number: int) -> None:
    assert _values(plan_of(request(hash=Hash(kind))))["SERVICE_HASH"] == f"{number}"


def test_a_service_of_all_ports_is_told_so() -> None:
    assert _values(plan_of(request()))["SERVICE_PORTS(RANGE)"] == "RANGE(0, 65535)"


def test_short_timeouts_shorten_the_refresh() -> None:
    values = _values(plan_of(request(timeouts=Timeouts(unreplied=1))))
    assert values["REFRESH_TICKS"] == "3"


def test_the_shortest_timeout_of_all_services_counts_for_the_refresh() -> None:
    patient = service("192.0.2.1", "192.0.2.10")
    for short in ({"unreplied": 1}, {"answered": 1}, {"transitory": 1}, {"established": 1}):
        hasty = service("192.0.2.1", "192.0.2.10", ports=(54,), timeouts=Timeouts(**short))
        assert _values(plan_for(patient, hasty))["REFRESH_TICKS"] == "3"
    assert _values(plan_for(patient))["REFRESH_TICKS"] == "16"


@pytest.mark.parametrize(
    ("shared", "value"), [(True, "1"), (False, "0")], ids=["shared", "not shared"]
)
def test_the_program_is_told_whether_the_host_shares_the_ports(
    shared: bool,  # noqa: FBT001 - a parameter
    value: str,
) -> None:
    assert f"-DSERVICE_SHARES_PORTS={value}" in flags(plan_of(request()), shares_ports=shared)


def test_ports_are_shared_where_the_host_may_have_them() -> None:
    every = service("192.0.2.1", "192.0.2.10")
    every = replace(every, ports=(PortRange(1, 65535),))
    some = replace(every, ports=(PortRange(53, 53), PortRange(5000, 5100)))
    assert shares_ports([every], EPHEMERAL)
    assert not shares_ports([some], EPHEMERAL)
    assert shares_ports([some, every], EPHEMERAL)


@pytest.mark.parametrize(
    ("protocols", "udp", "tcp"),
    [
        ([Protocol.UDP], "1", "0"),
        ([Protocol.TCP], "0", "1"),
        ([Protocol.UDP, Protocol.TCP], "1", "1"),
    ],
)
def test_only_what_is_balanced_is_compiled(protocols: list[Protocol], udp: str, tcp: str) -> None:
    services = [service("192.0.2.1", "192.0.2.10", protocol=item) for item in protocols]
    values = _values(plan_for(*services))
    assert (values["HAVE_UDP"], values["HAVE_TCP"]) == (udp, tcp)


def test_udp_and_tcp_alike_are_still_constants() -> None:
    both = [service("192.0.2.1", "192.0.2.10", protocol=item) for item in Protocol]
    values = _values(plan_for(*both))
    assert values.keys() >= CONSTANTS_OF_ONE
    assert "MANY_SERVICES" not in values
    assert "ADDRESSES(ADDRESS)" not in values


def test_of_many_services_only_the_addresses_are_constants() -> None:
    values = _values(
        plan_for(
            service("192.0.2.1", "192.0.2.10", nat_addresses=(SERVICE4 + 3,)),
            service("192.0.2.2", "192.0.2.10"),
        )
    )
    assert values["MANY_SERVICES"] == "1"
    assert values["ADDRESSES(ADDRESS)"] == (
        "ADDRESS(0, 16908480ULL, 0) ADDRESS(1, 67240128ULL, 0) ADDRESS(2, 33685696ULL, 0)"
    )
    assert not any(name in values for name in CONSTANTS_OF_ONE)


def test_an_ipv6_address_of_many_is_two_words() -> None:
    values = _values(
        plan_for(
            service("2001:db8::1", "2001:db8::10"),
            service("2001:db8::2", "2001:db8::10"),
        )
    )
    assert values["ADDRESSES(ADDRESS)"] == (
        "ADDRESS(0, 3087860000ULL, 72057594037927936ULL) "
        "ADDRESS(1, 3087860000ULL, 144115188075855872ULL)"
    )
