"""Services and requests: what each refuses, and what they are called."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from fake_machine import OWN, service

from xdplb.errors import InvalidValueError
from xdplb.model import (
    ALL_PORTS,
    IPV4,
    IPV6,
    MAX_FLOWS_LIMIT,
    Backend,
    Endpoint,
    PortRange,
    Protocol,
    Reservation,
)
from xdplb.request import Request, Service, simple_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.model import Address

VIP, VIP6 = "192.0.2.1", "2001:db8::1"
TEN, TEN6 = "192.0.2.10", "2001:db8::10"
TCP = Protocol.TCP


def _addresses(*texts: str) -> tuple[Address, ...]:
    return tuple(ip_address(text) for text in texts)


def _reserved(*items: tuple[str, int, int]) -> tuple[Reservation, ...]:
    return tuple(Reservation(Endpoint(ip_address(host), port), nat) for host, port, nat in items)


def _request(*services: Service, **options: Any) -> Request:
    return Request(("eth0",), services, **options)


@pytest.mark.parametrize(
    ("backends", "options", "message"),
    [
        ([], {}, "192.0.2.1 port 53 udp has no backend"),
        ([TEN, TEN], {}, "backend 192.0.2.10 is given twice"),
        ([VIP], {}, "backend 192.0.2.1 is the service itself"),
        ([TEN6], {}, "backend 2001:db8::10 is IPv6, the service is IPv4"),
        ([TEN, TEN6], {}, "backend 2001:db8::10 is IPv6, the service is IPv4"),
        ([TEN], {"nat_addresses": _addresses(VIP6)}, "NAT address 2001:db8::1 is IPv6, the serv"),
        ([TEN], {"nat_addresses": _addresses("192.0.2.3") * 2}, "NAT address 192.0.2.3 is given t"),
        ([TEN], {"nat_addresses": _addresses("127.0.0.1")}, "NAT address 127.0.0.1 is a loopback"),
        ([TEN], {"nat_addresses": _addresses("224.0.0.9")}, "NAT address 224.0.0.9 is a multicast"),
        ([TEN], {"reservations": _reserved((TEN6, 5, 6))}, "client 2001:db8::10 is IPv6, the ser"),
        (
            [TEN],
            {"reservations": _reserved(("198.51.100.7", 5, 2000), ("198.51.100.8", 5, 2000))},
            "reserved NAT port 2000 is given twice",
        ),
        (
            [TEN],
            {"reservations": _reserved(("198.51.100.7", 5, 2000), ("198.51.100.7", 5, 2001))},
            "reserved client 198.51.100.7:5 is given twice",
        ),
        ([TEN], {"reservations": _reserved(("127.0.0.1", 5, 6))}, "reserved client 127.0.0.1 is"),
    ],
)
def test_a_service_refuses_what_cannot_be_meant(
    backends: Sequence[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        service(VIP, *backends, **options)
    assert message in f"{caught.value}"
    assert caught.value.hint


def test_a_service_of_tcp_needs_ports() -> None:
    backends = (Backend(ip_address(TEN)),)
    with pytest.raises(InvalidValueError, match="tcp needs ports"):
        Service(backends, protocol=TCP)
    assert Service(backends, protocol=TCP, ports=(PortRange(1, 65534),)).address is None


def test_ports_of_a_service_do_not_overlap() -> None:
    ports = (PortRange(5, 9), PortRange(1, 5))
    with pytest.raises(InvalidValueError, match="--port 1-5 and 5-9 overlap"):
        replace(service(VIP, TEN), ports=ports)


@pytest.mark.parametrize("address", ["127.0.0.1", "224.0.0.1", "240.0.0.1", "0.0.0.7", "::1"])
def test_a_service_is_at_the_address_of_a_host(address: str) -> None:
    with pytest.raises(InvalidValueError, match=f"service {address} is "):
        service(address, TEN6 if ":" in address else TEN)


def test_backends_of_two_versions_are_refused_where_the_service_has_no_address_yet() -> None:
    with pytest.raises(InvalidValueError, match="backend 2001:db8::10 is IPv6"):
        service("", TEN, TEN6)
    assert service("", TEN6).version == IPV6


@pytest.mark.parametrize(
    ("name", "address", "ports", "protocol", "text"),
    [
        ("", VIP, (53,), Protocol.UDP, "192.0.2.1 port 53 udp"),
        ("", VIP6, (53, 443), TCP, "2001:db8::1 port 53,443 tcp"),
        ("dns", VIP, (53,), Protocol.UDP, "dns udp"),
        ("dns", "", (53,), TCP, "dns tcp"),
        ("", "", (53,), TCP, "service port 53 tcp"),
    ],
)
def test_a_service_is_called_by_its_name_or_by_what_is_dialled(
    name: str, address: str, ports: tuple[int, ...], protocol: Protocol, text: str
) -> None:
    backend = TEN6 if ":" in address else TEN
    assert f"{service(address, backend, ports=ports, protocol=protocol, name=name)}" == text


@pytest.mark.parametrize(("address", "text"), [(VIP, "192.0.2.1 udp"), ("", "service udp")])
def test_a_service_of_all_ports_is_called_without_them(address: str, text: str) -> None:
    assert f"{replace(service(address, TEN), ports=ALL_PORTS)}" == text


def test_a_range_of_ports_is_in_the_name_as_it_was_asked_for() -> None:
    item = replace(service(VIP, TEN), ports=(PortRange(5, 9), PortRange(53, 53)))
    assert f"{item}" == "192.0.2.1 port 5-9,53 udp"


def test_a_service_speaks_from_its_nat_addresses_or_from_its_own() -> None:
    plain = service(VIP, TEN)
    assert plain.own_addresses == _addresses(VIP)
    nat = _addresses("192.0.2.3", "192.0.2.2")
    assert replace(plain, nat_addresses=nat).own_addresses == nat


def test_what_is_dialled_has_to_be_known() -> None:
    assert service(VIP, TEN).dialled == ip_address(VIP)
    with pytest.raises(ValueError, match="service port 53 udp"):
        _ = service("", TEN).dialled


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interfaces": ()}, "nothing is to be balanced"),
        ({"services": ()}, "nothing is to be balanced"),
        ({"interfaces": ("eth0", "eth0")}, "interface eth0 is given twice"),
        ({"nat_ports": (PortRange(5, 6), PortRange(6, 7))}, "--nat-ports 5-6 and 6-7 overlap"),
        ({"max_flows": 0}, "--max-flows 0 is out of range"),
        ({"max_flows": MAX_FLOWS_LIMIT + 1}, "--max-flows 268435457 is out of range"),
        ({"max_client_flows": -1}, "--max-client-flows -1 is out of range"),
        (
            {"max_client_flows": MAX_FLOWS_LIMIT + 1},
            "--max-client-flows 268435457 is out of range",
        ),
    ],
)
def test_a_request_of_services_refuses_what_cannot_be_meant(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message) as caught:
        Request(**{"interfaces": ("eth0",), "services": (service(VIP, TEN),), **options})
    assert caught.value.hint


@pytest.mark.parametrize(
    ("one", "other"),
    [((53,), (53,)), ((53, 80), (443, 80)), ((1, 65535), (65535,))],
)
def test_a_port_is_of_one_service_only(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    for address in (VIP, ""):
        first, second = service(address, TEN, ports=one), service(address, TEN, ports=other)
        with pytest.raises(InvalidValueError) as caught:
            _request(first, second)
        assert f"{caught.value}" == f"{first} and {second} have a port in common"
        assert caught.value.hint


def test_ranges_that_touch_in_the_middle_have_a_port_in_common() -> None:
    wide = replace(service(VIP, TEN), ports=(PortRange(50, 60),))
    for ports in ((55, 56), (40, 50), (60, 70), (40, 70)):
        narrow = replace(wide, ports=(PortRange(*ports),))
        assert narrow.has_port_of(wide)
        assert wide.has_port_of(narrow)
        with pytest.raises(InvalidValueError, match="have a port in common"):
            _request(wide, narrow)
    for ports in ((40, 49), (61, 70)):
        assert not wide.has_port_of(replace(wide, ports=(PortRange(*ports),)))


@pytest.mark.parametrize(
    "other",
    [
        service(VIP, TEN, protocol=TCP),
        service("192.0.2.2", TEN),
        service(VIP, TEN, ports=(54,)),
        service("", TEN),
        service(VIP6, TEN6),
    ],
    ids=["protocol", "address", "ports", "no address yet", "version"],
)
def test_services_that_differ_in_what_is_dialled_run_side_by_side(other: Service) -> None:
    both = _request(service(VIP, TEN), other)
    assert both.services[1] is other


def test_services_without_an_address_of_both_versions_run_side_by_side() -> None:
    both = _request(service("", TEN), service("", TEN6))
    assert both.versions == (IPV4, IPV6)
    assert [item.address for item in both.with_addresses(OWN).services] == list(OWN.values())


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    "other",
    [
        service("192.0.2.2", TEN),
        service(VIP, TEN, ports=(54,), nat_addresses=_addresses("192.0.2.3", "192.0.2.2")),
    ],
    ids=["what clients dial", "a NAT address"],
)
def test_no_backend_is_an_address_of_the_balancer(
    other: Service,
    is_first: bool,  # noqa: FBT001 - a parameter
) -> None:
    wrong = service(VIP, "192.0.2.2")
    services = (wrong, other) if is_first else (other, wrong)
    with pytest.raises(InvalidValueError, match=r"backend 192\.0\.2\.2 is the service itself"):
        _request(*services)


def test_no_backend_is_a_nat_address_of_its_own_service() -> None:
    wrong = service(VIP, TEN, nat_addresses=_addresses(TEN))
    with pytest.raises(InvalidValueError, match=r"backend 192\.0\.2\.10 is the service itself"):
        _request(wrong)


def test_the_interfaces_address_can_make_two_services_one() -> None:
    request = _request(service("", TEN), service(VIP, "192.0.2.11"))
    with pytest.raises(InvalidValueError, match="have a port in common"):
        request.with_addresses(OWN)
    elsewhere = {IPV4: ip_address("192.0.2.2")}
    assert request.with_addresses(elsewhere).addresses == _addresses("192.0.2.2", VIP)


def test_the_interfaces_address_can_be_a_backend() -> None:
    request = _request(service("", TEN), service("192.0.2.2", VIP))
    with pytest.raises(InvalidValueError, match=r"backend 192\.0\.2\.1 is the service itself"):
        request.with_addresses(OWN)
    with pytest.raises(InvalidValueError, match=r"backend 192\.0\.2\.10 is the service itself"):
        request.with_addresses({IPV4: ip_address(TEN)})


def test_addresses_that_were_asked_for_stay() -> None:
    request = _request(service("192.0.2.2", TEN), service("", TEN6))
    filled = request.with_addresses({IPV6: OWN[IPV6]})
    assert [item.address for item in filled.services] == [*_addresses("192.0.2.2"), OWN[IPV6]]
    assert request.services[1].address is None


def test_the_balancers_addresses_are_dialled_ones_and_nat_addresses_each_once() -> None:
    request = _request(
        service(VIP, TEN, nat_addresses=_addresses("192.0.2.3", VIP)),
        service("", TEN6),
        service("192.0.2.2", TEN, nat_addresses=_addresses("192.0.2.3")),
    )
    assert request.addresses == _addresses(VIP, "192.0.2.3", "192.0.2.2")


def test_the_backends_of_a_request_are_those_of_all_services_each_once() -> None:
    request = _request(
        service(VIP, TEN, "192.0.2.11"), service("192.0.2.2", "192.0.2.12", TEN), service("", TEN6)
    )
    assert [f"{item}" for item in request.backends] == [TEN, "192.0.2.11", "192.0.2.12", TEN6]


def test_services_are_told_apart_by_ip_version() -> None:
    request = _request(service("", TEN6), service("", TEN), service("", TEN6, protocol=TCP))
    assert request.versions == (IPV4, IPV6)
    assert request.of(IPV4) == request.services[1:2]
    assert request.of(IPV6) == request.services[::2]


def test_a_simple_request_makes_a_service_of_each_protocol_and_ip_version() -> None:
    reserved = _reserved(("198.51.100.7", 5, 2000), ("2001:db8:7::7", 5, 2000))
    request = simple_request(
        ("eth0", "eth1"),
        tuple(Backend(item) for item in _addresses(TEN, TEN6, "192.0.2.11")),
        _addresses(VIP6, VIP),
        protocols=(Protocol.TCP, Protocol.UDP),
        ports=(PortRange(53, 53),),
        reservations=reserved,
        max_flows=77,
    )
    assert (request.interfaces, request.max_flows) == (("eth0", "eth1"), 77)
    assert [
        (f"{item}", [f"{one}" for one in item.backends], item.reservations)
        for item in request.services
    ] == [
        ("192.0.2.1 port 53 tcp", [TEN, "192.0.2.11"], reserved[:1]),
        ("192.0.2.1 port 53 udp", [TEN, "192.0.2.11"], reserved[:1]),
        ("2001:db8::1 port 53 tcp", [TEN6], reserved[1:]),
        ("2001:db8::1 port 53 udp", [TEN6], reserved[1:]),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backends": ()}, "nothing is to be balanced"),
        ({"protocols": ()}, "nothing is to be balanced"),
        ({"protocols": (TCP, TCP)}, "protocol tcp is given twice"),
        ({"protocols": (TCP,)}, "tcp needs ports"),
        ({"services": _addresses(TEN)}, "is the service itself"),
        ({"backends": (Backend(ip_address(TEN), 53),) * 2}, "backend 192.0.2.10:53 is given twice"),
        (
            {"reservations": _reserved(("198.51.100.7", 5, 6), ("198.51.100.8", 5, 6))},
            "reserved NAT port 6 is given twice",
        ),
    ],
)
def test_a_simple_request_refuses_what_cannot_be_meant(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        simple_request(
            **{"interfaces": ("eth0",), "backends": (Backend(ip_address(TEN)),), **options}
        )
    assert message in f"{caught.value}"
    assert caught.value.hint
