"""Which service is which, from one request to the next."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from request_strategies import services

from xdplb.matching import common_ports, match_services
from xdplb.model import ALL_PORTS, Backend, PortRange, Protocol
from xdplb.request import Service

BACKENDS = {
    4: (Backend(ip_address("192.0.2.10")),),
    6: (Backend(ip_address("2001:db8::10")),),
}


def _service(*ports: tuple[int, int], address: str | None = "192.0.2.1", **more: str) -> Service:
    parsed = None if address is None else ip_address(address)
    return Service(
        BACKENDS[4 if parsed is None else parsed.version],
        parsed,
        Protocol(more.get("protocol", "udp")),
        tuple(PortRange(*item) for item in ports) or ALL_PORTS,
        name=more.get("name", ""),
    )


@pytest.mark.parametrize(
    ("old", "new", "matched"),
    [
        ([], [_service()], {}),
        ([_service()], [], {}),
        ([_service()], [_service((53, 53))], {0: 0}),
        ([_service((53, 53))], [_service((54, 54))], {}),
        ([_service()], [_service(address="192.0.2.2")], {}),
        ([_service((5, 5))], [_service((5, 5), protocol="tcp")], {}),
        ([_service(name="one")], [_service(name="two")], {0: 0}),
        ([_service((1, 9)), _service((10, 99))], [_service((5, 50))], {0: 1}),
        ([_service((1, 99))], [_service((1, 9)), _service((10, 99))], {1: 0}),
        ([_service((1, 1)), _service((2, 2))], [_service((2, 2)), _service((1, 1))], {0: 1, 1: 0}),
        (
            [_service((1, 9), name="one"), _service((10, 19), name="two")],
            [_service((5, 14), name="two")],
            {0: 1},
        ),
        ([_service((1, 9)), _service((10, 19))], [_service((6, 14))], {0: 1}),
        ([_service((1, 9)), _service((11, 19))], [_service((9, 11))], {0: 0}),
        ([_service(address=None)], [_service(address=None)], {0: 0}),
    ],
)
def test_most_common_ports_then_the_name_then_the_order_decide(
    old: list[Service], new: list[Service], matched: dict[int, int]
) -> None:
    assert match_services(old, new) == matched


def test_own_addresses_of_both_versions_are_two() -> None:
    four, six = (Service(backends) for backends in BACKENDS.values())
    assert match_services([four], [six]) == {}
    assert match_services([four, six], [six, four]) == {0: 1, 1: 0}


def test_common_ports_are_counted_over_all_ranges() -> None:
    assert common_ports(_service((1, 9), (20, 29)), _service((5, 24), (29, 40))) == 5 + 5 + 1


@given(st.lists(services(), max_size=5), st.lists(services(), max_size=5))
def test_each_service_is_at_most_one_other_with_a_port_in_common(
    old: list[Service], new: list[Service]
) -> None:
    matched = match_services(old, new)
    assert len(set(matched.values())) == len(matched)
    for after, before in matched.items():
        assert new[after].has_port_of(old[before])
        assert new[after].address == old[before].address
        assert new[after].protocol is old[before].protocol
