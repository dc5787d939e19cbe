"""``doctor`` on a machine in memory: what is looked at, what cannot be, what is mended."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, ip_address

import pytest
from fake_examiner import NEXT_MAC, STRANGER, FakeExaminer, running, veth

from xdplb.doctor import Result, examine, has_failed, mend
from xdplb.doctor.evidence import (
    Leftover,
    Trial,
)
from xdplb.errors import NotReadyError, TableError
from xdplb.facts import Neighbour

WARN, FAIL = Result.WARN, Result.FAIL
SERVICE = ip_address("192.0.2.1")
BACKEND = ip_address("192.0.2.10")
ENDS = ("192.0.2.10",)


@pytest.fixture
def up() -> FakeExaminer:
    """A machine whose balancer has one backend."""
    return FakeExaminer(running(*ENDS))


def test_a_healthy_machine_passes_every_check(up: FakeExaminer) -> None:
    findings = examine(up)
    assert {item.result for item in findings} == {Result.PASS}
    assert not has_failed(findings)
    assert Counter(item.scope for item in findings) == {
        "machine": 13,
        "interface eth0": 7,
        "balancer eth0": 12,
        "backend 192.0.2.10": 3,
    }


def test_before_anything_is_up_only_the_machine_and_named_interfaces_are_looked_at() -> None:
    assert {item.scope for item in examine(FakeExaminer())} == {"machine"}
    scopes = {item.scope for item in examine(FakeExaminer(), ["eth1"])}
    assert scopes == {"machine", "interface eth1"}


@pytest.mark.parametrize(
    "question",
    [
        *("lacking", "kernel", "bcc", "libbpf", "trial", "setting", "memlock", "lockdown"),
        *("chains", "leftovers", "features", "queues", "peer", "offloads", "sockets", "agents"),
        *("check_problem", "namespace", "interface", "program", "carriers", "owners", "route"),
    ],
)
@pytest.mark.parametrize("error", [NotReadyError("gone"), PermissionError(1, "not allowed")])
def test_a_question_without_an_answer_stops_nothing_else(question: str, error: Exception) -> None:
    examiner = veth(running(*ENDS))
    whole = {(item.scope, item.name) for item in examine(examiner)}
    examiner.fail[question] = error
    findings = examine(examiner)
    silent = {"features", "queues", "check_problem"}
    unknown = [item for item in findings if item.result is not Result.PASS]
    assert unknown or question in silent
    assert all(f"{item.opinion.reason}".endswith(("gone", "not allowed")) for item in unknown)
    missing = whole - {(item.scope, item.name) for item in findings}
    assert len({scope for scope, _ in missing}) <= 3
    assert ("machine", "privileges") not in missing


def test_a_balancer_of_another_version_fails_and_its_interface_is_looked_at(
    up: FakeExaminer,
) -> None:
    up.fail["cases"] = TableError("the running balancer was started by xdplb 9")
    findings = examine(up)
    (item,) = (item for item in findings if item.name == "balancers")
    assert item.result is FAIL
    assert "interface eth0" in {item.scope for item in findings}


# What is mended


def test_only_what_cannot_hurt_is_mended_and_each_thing_once(up: FakeExaminer) -> None:
    examiner = veth(running("192.0.2.10", "192.0.2.11"), gro=False)
    examiner.hanging[2] = STRANGER
    examiner.said["leftovers"] = (Leftover(2, "eth0", IPv4Address("192.0.2.77")),)
    examiner.said["trial"] = Trial(is_compiled=False)
    examiner.hops[BACKEND] = Neighbour(NEXT_MAC)
    done = mend(examiner, examine(examiner))
    assert [item.what for item in examiner.repaired] == ["jit", "forget", "gro", "manage"]
    assert all(not item.problem for item in done)
    assert examiner.settled == 1
    assert mend(up, examine(up)) == []
    assert up.settled == 0


def test_what_cannot_be_mended_says_why() -> None:
    examiner = veth(running(*ENDS), gro=False)
    examiner.said["repair"] = "Operation not supported"
    (done,) = mend(examiner, examine(examiner))
    assert done.problem == "Operation not supported"
