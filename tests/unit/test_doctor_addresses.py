"""What ``doctor`` thinks of a balancer's addresses and ports: each check can fail."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from fake_examiner import FakeExaminer, one, running

from xdplb.doctor import Result
from xdplb.doctor.evidence import (
    HostSocket,
    Owner,
)
from xdplb.model import Endpoint, PortRange, Protocol

WARN, FAIL = Result.WARN, Result.FAIL
SERVICE = ip_address("192.0.2.1")
BACKEND = ip_address("192.0.2.10")
ENDS = ("192.0.2.10",)


@pytest.fixture
def up() -> FakeExaminer:
    """A machine whose balancer has one backend."""
    return FakeExaminer(running(*ENDS))


@pytest.mark.parametrize(
    ("owner", "result", "says"),
    [
        (Owner(length=24), FAIL, "no interface has 192.0.2.1 any more"),
        (Owner(other="02:00:00:00:00:99"), WARN, "at 02:00:00:00:00:99, and this one has not"),
        (Owner(has_route=True), WARN, "only what a router sends here"),
        (Owner("eth0", 2, other="02:00:00:00:00:99"), FAIL, "another host has 192.0.2.1, too"),
        (Owner("eth0", 2, is_duplicate=True), FAIL, "another host has 192.0.2.1, too"),
    ],
)
def test_an_address_that_is_not_this_hosts_alone_is_found(
    up: FakeExaminer, owner: Owner, result: Result, says: str
) -> None:
    up.owned[SERVICE] = owner
    item = one(up, "address")
    assert item.result is result
    assert says in item.opinion.reason
    if owner.length:
        assert item.opinion.fix is not None
        assert item.opinion.fix.command == "ip address add 192.0.2.1/24 dev eth0"


@pytest.mark.parametrize(
    ("everywhere", "here", "index", "result"),
    [
        ("0", "0", 1, Result.PASS),
        ("0", "8", 2, FAIL),
        ("8", "0", 2, FAIL),
        ("0", "1", 2, Result.PASS),
        ("1", "0", 1, FAIL),
    ],
)
def test_a_host_that_does_not_answer_arp_for_the_service_fails(
    up: FakeExaminer, everywhere: str, here: str, index: int, result: Result
) -> None:
    up.owned[SERVICE] = Owner("eth0" if index == 2 else "lo", index)
    up.settings |= {
        "net/ipv4/conf/all/arp_ignore": everywhere,
        "net/ipv4/conf/eth0/arp_ignore": here,
    }
    item = one(up, "address")
    assert item.result is result
    if result is FAIL:
        assert item.opinion.fix is not None
        where = "all" if here == "0" else "eth0"
        assert item.opinion.fix.command == f"sysctl -w net/ipv4/conf/{where}/arp_ignore=0"


def test_nat_ports_that_the_host_takes_are_found_with_what_keeps_it_off() -> None:
    examiner = FakeExaminer(running(*ENDS, nat_ports=(PortRange(30000, 40000),)))
    examiner.settings["net/ipv4/ip_local_reserved_ports"] = "35000-36000"
    item = one(examiner, "nat-ports")
    assert item.result is WARN
    fix = item.opinion.fix
    assert fix is not None
    setting = "sysctl -w net.ipv4.ip_local_reserved_ports="
    assert fix.command == f"{setting}35000-36000,32768-34999,36001-40000"
    assert fix.undo == f"{setting}35000-36000"
    examiner.settings["net/ipv4/ip_local_reserved_ports"] = "32768-40000"
    assert one(examiner, "nat-ports").result is Result.PASS


def test_a_host_is_not_told_to_reserve_all_its_ports() -> None:
    examiner = FakeExaminer(running(*ENDS, nat_ports=(PortRange(1024, 65535),)))
    item = one(examiner, "nat-ports")
    assert item.result is WARN
    assert item.opinion.fix is None
    assert "--nat-ports" in item.opinion.hint


def _socket(port: int, **more: Any) -> HostSocket:
    values: dict[str, Any] = {"protocol": Protocol.UDP, "version": 4, "address": None, **more}
    return HostSocket(port=port, **values)


@pytest.mark.parametrize(
    ("sock", "result"),
    [
        (_socket(53), WARN),
        (_socket(53, address=SERVICE), WARN),
        (_socket(53, address=BACKEND), Result.PASS),
        (_socket(53, version=6), Result.PASS),
        (_socket(53, version=6, is_dual=True), WARN),
        (_socket(53, protocol=Protocol.TCP), Result.PASS),
        (_socket(53, remote=Endpoint(BACKEND, 5)), Result.PASS),
        (_socket(54), Result.PASS),
    ],
)
def test_a_program_of_the_host_at_a_balanced_port_is_found(
    sock: HostSocket, result: Result
) -> None:
    examiner = FakeExaminer(running(*ENDS, ports=(PortRange(53, 53),)))
    examiner.said["sockets"] = (sock,)
    item = one(examiner, "sockets")
    assert item.result is result
    assert result is Result.PASS or "no longer that program" in item.opinion.reason


def test_with_all_ports_a_program_of_the_host_keeps_its_own(up: FakeExaminer) -> None:
    up.said["sockets"] = tuple(_socket(port) for port in (1, 2, 3, 4, 5, 6, 40000))
    item = one(up, "sockets")
    assert item.result is WARN
    assert "udp 5, 1 more" in item.opinion.reason
    assert "no backend does" in item.opinion.reason


@pytest.mark.parametrize(
    ("port", "protocol", "result"),
    [
        (2000, Protocol.UDP, WARN),
        (40000, Protocol.UDP, Result.PASS),
        (2000, Protocol.TCP, Result.PASS),
    ],
)
def test_a_connection_with_a_backend_from_a_nat_port_is_found(
    up: FakeExaminer, port: int, protocol: Protocol, result: Result
) -> None:
    talk = _socket(port, protocol=protocol, address=SERVICE, remote=Endpoint(BACKEND, 53))
    up.said["sockets"] = (talk,)
    assert one(up, "host-connections").result is result
