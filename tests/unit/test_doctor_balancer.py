"""What ``doctor`` thinks of a balancer and its backends: each check can fail."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from fake_examiner import NEXT_MAC, STRANGER, FakeExaminer, found, one, running, with_state
from fake_machine import MAC

from xdplb import __version__
from xdplb.checks import Health, IcmpCheck
from xdplb.doctor import Result
from xdplb.doctor.evidence import (
    Hanging,
    Interface,
    Route,
)
from xdplb.facts import Link, Neighbour, Way
from xdplb.model import BackendState
from xdplb.secret import hash_keys
from xdplb.verdicts import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


WARN, FAIL = Result.WARN, Result.FAIL
SERVICE = ip_address("192.0.2.1")
BACKEND = ip_address("192.0.2.10")
ENDS = ("192.0.2.10",)


@pytest.fixture
def up() -> FakeExaminer:
    """A machine whose balancer has one backend."""
    return FakeExaminer(running(*ENDS))


def test_a_secret_that_is_another_one_now_or_cannot_be_used_is_told(
    up: FakeExaminer, tmp_path: Path
) -> None:
    assert found(up, "secret") == []
    path = tmp_path / "secret"
    path.write_bytes(bytes(32))
    path.chmod(0o600)
    up.running = (with_state(up.running[0], secret=path, hash_keys=hash_keys(path)),)
    assert one(up, "secret").result is Result.PASS
    path.write_bytes(bytes(33))
    item = one(up, "secret")
    assert (item.result, f"{path} is another secret" in item.opinion.reason) == (WARN, True)
    path.chmod(0o644)
    item = one(up, "secret")
    assert (item.result, "could not be started anew" in item.opinion.reason) == (WARN, True)
    assert "chmod 600" in item.opinion.hint


@pytest.mark.parametrize("there", [None, STRANGER])
def test_a_balancer_that_has_lost_an_interface_fails(there: Hanging | None) -> None:
    examiner = FakeExaminer(running(*ENDS, interfaces=("eth0", "eth1")))
    examiner.hanging.pop(3)
    if there:
        examiner.hanging[3] = there
    result = {item.scope: item.result for item in found(examiner, "program")}
    assert (result["interface eth0"], result["interface eth1"]) == (Result.PASS, FAIL)


def test_an_interface_that_has_gone_fails(up: FakeExaminer) -> None:
    up.running = (replace(up.running[0], names=("",)),)
    assert one(up, "interfaces").result is FAIL
    assert found(up, "address") == []


def test_a_balancer_that_was_moved_to_another_namespace_fails(up: FakeExaminer) -> None:
    up.said["namespace"] = 7
    item = one(up, "interfaces")
    assert item.result is FAIL
    assert "was moved here" in item.opinion.reason


def test_a_new_name_is_told_and_no_fault(up: FakeExaminer) -> None:
    up.interfaces["wan"] = Interface(Link("wan", 2, MAC))
    up.running = (replace(up.running[0], names=("wan",)),)
    item = one(up, "interfaces")
    assert item.result is Result.PASS
    assert "wan, once eth0" in item.opinion.reason


def test_another_version_is_told(up: FakeExaminer) -> None:
    up.running = (with_state(up.running[0], version=f"{__version__}.1"),)
    assert one(up, "version").result is WARN


def test_interfaces_of_two_widths_are_found() -> None:
    examiner = FakeExaminer(running(*ENDS, interfaces=("eth0", "eth1")))
    examiner.interfaces["eth1"] = Interface(Link("eth1", 3, MAC, mtu=9000))
    item = one(examiner, "widths")
    assert item.result is WARN
    assert item.opinion.fix is not None
    assert item.opinion.fix.command == "ip link set dev eth1 mtu 1500"


def test_a_driver_that_takes_nothing_from_others_fails_with_several_interfaces() -> None:
    examiner = FakeExaminer(running(*ENDS, interfaces=("eth0", "eth1")))
    assert {item.result for item in found(examiner, "redirect")} == {Result.PASS}
    examiner.said["features"] = 0b011
    assert {item.result for item in found(examiner, "redirect")} == {FAIL}


def test_a_service_without_anybody_to_answer_fails(up: FakeExaminer) -> None:
    assert one(up, "services").result is Result.PASS
    _change_backends(up, lambda item: replace(item, mac=None))
    assert one(up, "services").result is FAIL
    _change_backends(up, lambda item: replace(item, mac="", state=BackendState.DRAIN))
    assert one(up, "services").result is FAIL


def _change_backends(examiner: FakeExaminer, how: Callable[[Any], Any]) -> None:
    """Let a balancer's status say something else of its backends."""
    case = examiner.running[0]
    services = tuple(
        replace(item, backends=tuple(how(backend) for backend in item.backends))
        for item in case.status.services
    )
    examiner.running = (replace(case, status=replace(case.status, services=services)),)


def test_little_room_for_flows_is_found(up: FakeExaminer) -> None:
    case = up.running[0]
    up.running = (replace(case, status=replace(case.status, flows=210_000)),)
    item = one(up, "room")
    assert item.result is WARN
    assert "210000 of 262144 flows" in item.opinion.reason


def test_few_nat_ports_are_found_also_where_others_have_more() -> None:
    examiner = FakeExaminer(running(*ENDS))
    busy = ip_address(ENDS[-1])
    _change_backends(
        examiner,
        lambda item: replace(
            item, nat_ports_used=900 if item.backend.address == busy else 0, nat_ports_total=1000
        ),
    )
    item = one(examiner, "room")
    assert item.result is WARN
    assert f"900 of 1000 NAT ports toward {busy}" in item.opinion.reason


def test_backends_with_one_mac_address_are_found() -> None:
    examiner = FakeExaminer(running("192.0.2.10", "192.0.2.11"))
    item = one(examiner, "macs")
    assert item.result is WARN
    assert "192.0.2.10, 192.0.2.11 have one MAC address" in item.opinion.reason
    router = ip_address("192.0.2.254")
    _change_backends(examiner, lambda backend: replace(backend, next_hop=router))
    assert one(examiner, "macs").result is Result.PASS


CHECKED = Health(check=IcmpCheck())


def test_checks_that_nobody_does_are_found(up: FakeExaminer) -> None:
    assert one(up, "agent").result is Result.PASS
    _ask_for_checks(up)
    item = one(up, "agent")
    assert item.result is WARN
    assert item.opinion.fix is not None
    assert item.opinion.fix.command == "xdplb run --iface eth0"
    up.said["check_problem"] = "checks by HTTP need the library aiohttp"
    assert one(up, "agent").result is FAIL
    up.said["agents"] = frozenset({"eth0"})
    assert one(up, "agent").result is Result.PASS


def _ask_for_checks(examiner: FakeExaminer) -> None:
    case = examiner.running[0]
    sides = tuple(
        replace(
            side,
            services=tuple(
                replace(item, service=replace(item.service, health=CHECKED))
                for item in side.services
            ),
        )
        for side in case.running.state.sides
    )
    examiner.running = (with_state(case, sides=sides),)


@pytest.mark.parametrize("name", ["drop_unresolved", "drop_no_port", "drop_too_big"])
def test_drops_point_to_their_cause_in_the_words_of_the_verdicts(
    up: FakeExaminer, name: str
) -> None:
    _count(up, {"forward": 1_000_000, name: 2})
    item = one(up, "drops")
    assert item.result is WARN
    assert f"2 times {name}: {VERDICTS[name].meaning}" == item.opinion.reason
    assert item.opinion.hint == VERDICTS[name].hint


def _count(examiner: FakeExaminer, verdicts: dict[str, int]) -> None:
    case = examiner.running[0]
    examiner.running = (replace(case, status=replace(case.status, verdicts=verdicts)),)


def test_a_few_broken_senders_are_no_fault_of_the_machine(up: FakeExaminer) -> None:
    _count(up, {"forward": 1_000_000, "drop_malformed": 2, "drop_martian": 5000})
    (item,) = found(up, "drops")
    assert "drop_martian" in item.opinion.reason


@pytest.mark.parametrize(
    ("route", "result", "says"),
    [
        (Route(problem="there is no route", hint="ask"), FAIL, "there is no route"),
        (Route(Way(5, BACKEND), "eth5", None, 1500), FAIL, "through eth5"),
        (Route(Way(5, BACKEND), "eth0.7", 2, 1500), Result.PASS, "on eth0.7"),
        (Route(Way(2, SERVICE), "eth0", None, 1500), WARN, "the kernel goes by 192.0.2.1"),
        (Route(Way(2, BACKEND, 1400), "eth0", None, 1500), WARN, "takes 1400 bytes, eth0 1500"),
        (Route(Way(2, BACKEND, 1500), "eth0", None, 1500), Result.PASS, "on eth0"),
    ],
)
def test_a_way_that_is_not_the_balancers_is_found(
    up: FakeExaminer, route: Route, result: Result, says: str
) -> None:
    up.routes[BACKEND] = route
    item = one(up, "route")
    assert item.result is result
    assert says in item.opinion.reason


def test_no_next_hop_is_asked_for_where_the_way_is_not_the_balancers(up: FakeExaminer) -> None:
    up.routes[BACKEND] = Route(Way(5, BACKEND), "eth5", None, 1500)
    up.hops[BACKEND] = None
    assert found(up, "next-hop") == []


OTHER_MAC = bytes.fromhex("020000000099")


@pytest.mark.parametrize(
    ("known", "result", "says", "is_mended"),
    [
        (None, FAIL, "is not asked for", True),
        (Neighbour(None, is_managed=True, state="FAILED"), FAIL, "not answer (FAILED)", False),
        (Neighbour(None, state="FAILED"), FAIL, "does not answer (FAILED)", True),
        (Neighbour(OTHER_MAC, is_managed=True), FAIL, f"is at {OTHER_MAC.hex(':')}", False),
        (Neighbour(NEXT_MAC), WARN, "does not keep asking", True),
        (Neighbour(NEXT_MAC, is_permanent=True), Result.PASS, NEXT_MAC.hex(":"), False),
    ],
)
def test_a_next_hop_that_is_not_sure_is_found(
    up: FakeExaminer, known: Neighbour | None, result: Result, says: str, *, is_mended: bool
) -> None:
    up.hops[BACKEND] = known
    item = one(up, "next-hop")
    assert item.result is result
    assert says in item.opinion.reason
    assert (item.opinion.fix is not None) == is_mended
    assert not is_mended or (item.opinion.fix and item.opinion.fix.is_safe)


def test_a_mac_address_that_only_the_kernel_knows_fails(up: FakeExaminer) -> None:
    _change_backends(up, lambda item: replace(item, mac=None))
    assert one(up, "next-hop").result is FAIL


def test_an_old_kernel_is_not_asked_to_keep_next_hops(up: FakeExaminer) -> None:
    up.said["kernel"] = "5.10.0"
    up.hops[BACKEND] = Neighbour(NEXT_MAC)
    assert one(up, "next-hop").result is Result.PASS


@pytest.mark.parametrize(
    ("changes", "result", "says"),
    [
        ({"state": BackendState.DOWN}, WARN, "it is down"),
        ({"packets_in": 9, "refused": 3}, WARN, "3 of 9 packets were refused"),
        ({"packets_in": 9, "packets_out": 0}, WARN, "9 packets went there, and none came back"),
        ({"packets_in": 2, "packets_out": 0}, Result.PASS, "2 packets"),
        ({"state": BackendState.DRAIN}, Result.PASS, "it drains"),
    ],
)
def test_a_backend_that_does_not_serve_is_found(
    up: FakeExaminer, changes: dict[str, Any], result: Result, says: str
) -> None:
    _change_backends(up, lambda item: replace(item, **changes))
    item = one(up, "answers")
    assert item.result is result
    assert says in item.opinion.reason


@pytest.mark.parametrize(
    ("left", "result"), [(None, Result.PASS), (2.5, Result.PASS), (-60.0, WARN)]
)
def test_a_trace_that_nobody_reads_is_found(
    up: FakeExaminer, left: float | None, result: Result
) -> None:
    up.running = (replace(up.running[0], traced_for=left),)
    item = one(up, "trace")
    assert item.result is result
    assert (item.opinion.fix is not None) is (result is WARN)


def test_nobody_waits_for_answers_of_a_one_way_service(up: FakeExaminer) -> None:
    case = up.running[0]
    sides = tuple(
        replace(
            side,
            services=tuple(
                replace(item, service=replace(item.service, one_way=True)) for item in side.services
            ),
        )
        for side in case.running.state.sides
    )
    up.running = (with_state(case, sides=sides),)
    _change_backends(up, lambda item: replace(item, packets_in=9, packets_out=0))
    assert one(up, "answers").result is Result.PASS
