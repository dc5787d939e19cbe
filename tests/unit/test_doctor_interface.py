"""What ``doctor`` thinks of an interface: each check can fail."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from fake_examiner import NEXT_MAC, STRANGER, VETH, FakeExaminer, found, one, running, veth
from fake_machine import MAC

from xdplb.doctor import Result, examine, has_failed
from xdplb.doctor.evidence import (
    Interface,
)
from xdplb.errors import NotReadyError
from xdplb.facts import Link
from xdplb.model import Mode

WARN, FAIL = Result.WARN, Result.FAIL
SERVICE = ip_address("192.0.2.1")
BACKEND = ip_address("192.0.2.10")
ENDS = ("192.0.2.10",)


@pytest.fixture
def up() -> FakeExaminer:
    """A machine whose balancer has one backend."""
    return FakeExaminer(running(*ENDS))


@pytest.mark.parametrize(
    ("link", "changes", "result", "says"),
    [
        (Link("eth0", 2, MAC), {"is_up": False}, FAIL, "eth0 is down"),
        (Link("eth0", 2, MAC), {"has_carrier": False}, FAIL, "no carrier"),
        (Link("eth0", 2, MAC), {"master": "br0"}, WARN, "a part of br0"),
    ],
)
def test_an_interface_that_carries_nothing_is_found(
    link: Link, changes: dict[str, Any], result: Result, says: str
) -> None:
    examiner = FakeExaminer()
    examiner.interfaces["eth0"] = replace(Interface(link), **changes)
    item = one(examiner, "link", "eth0")
    assert item.result is result
    assert says in item.opinion.reason


def test_a_peer_that_is_down_is_named_with_its_command() -> None:
    item = one(veth(is_up=False), "link", "eth0")
    assert item.result is FAIL
    assert item.opinion.fix is not None
    assert item.opinion.fix.command == "ip link set dev far up"
    assert item.opinion.fix.place == "/run/netns/far"


def test_an_interface_that_is_not_there_fails_and_the_others_are_looked_at() -> None:
    findings = examine(FakeExaminer(), ["nix", "eth0"])
    assert [item.name for item in findings if item.scope == "interface nix"] == ["link"]
    assert has_failed(findings)
    assert "mtu" in {item.name for item in findings if item.scope == "interface eth0"}


@pytest.mark.parametrize(
    ("examiner", "says"),
    [
        (veth(mtu=9000), "an MTU of 9000, more than 3506"),
        (veth(tx_queues=4), "sends by 4 queues, eth0 receives by 1"),
    ],
)
def test_what_keeps_a_veth_from_native_mode_is_named(examiner: FakeExaminer, says: str) -> None:
    item = one(examiner, "mode", "eth0")
    assert item.result is WARN
    assert says in item.opinion.reason
    assert item.opinion.fix is not None


@pytest.mark.parametrize(
    ("link", "features", "says"),
    [
        (Link("eth0", 2, MAC, kind="bridge"), 0, "of the kind bridge"),
        (Link("eth0", 2, MAC, kind="vlan", lower=5), 0, "of the kind vlan"),
        (Link("eth0", 2, MAC), 0, "the driver of eth0 has no native XDP"),
        (Link("eth0", 2, MAC, mtu=9000), 7, "more than most drivers take"),
    ],
)
def test_what_keeps_other_interfaces_from_native_mode_is_named(
    link: Link, features: int, says: str
) -> None:
    examiner = FakeExaminer()
    examiner.interfaces["eth0"] = Interface(link)
    examiner.said["features"] = features
    item = one(examiner, "mode", "eth0")
    assert item.result is WARN
    assert says in item.opinion.reason


def test_an_old_kernel_does_not_say_what_a_driver_can_and_that_is_no_fault() -> None:
    examiner = FakeExaminer()
    examiner.fail["features"] = NotReadyError("no such family")
    item = one(examiner, "mode", "eth0")
    assert (item.result, item.opinion.reason) == (Result.PASS, "'up' tries native mode")


def test_generic_mode_without_need_is_found() -> None:
    item = one(FakeExaminer(running(*ENDS, mode=Mode.GENERIC)), "mode")
    assert item.result is WARN
    assert "nothing is to be seen that keeps eth0 from native mode" in item.opinion.reason


@pytest.mark.parametrize(
    ("peer", "result"),
    [({}, Result.PASS), ({"gro": False}, FAIL), ({"gro": False, "is_native": True}, Result.PASS)],
)
def test_a_peer_that_takes_nothing_fails_where_a_balancer_is_up(
    peer: dict[str, Any], result: Result
) -> None:
    assert one(veth(running(*ENDS), **peer), "peer").result is result


def test_before_up_the_gro_of_a_peer_is_no_fault() -> None:
    assert one(veth(gro=False), "peer", "eth0").result is Result.PASS


@pytest.mark.parametrize(
    ("features", "result"), [(None, WARN), (0b011, WARN), (0b111, Result.PASS)]
)
def test_a_peer_out_of_reach_is_judged_by_what_the_kernel_says(
    features: int | None, result: Result
) -> None:
    examiner = veth(running(*ENDS))
    examiner.said |= {"peer": None, "features": features}
    item = one(examiner, "peer")
    assert item.result is result
    assert result is Result.PASS or "index 9" in item.opinion.hint


BOTH = {"interfaces": ("eth0", "eth1"), "mode": Mode.GENERIC}


def _generic(peer: dict[str, Any] | None) -> FakeExaminer:
    examiner = veth(running(*ENDS, **BOTH), **(peer or {}))
    if peer is None:
        examiner.said["peer"] = None
    return examiner


@pytest.mark.parametrize(
    ("peer", "result"),
    [({}, Result.PASS), ({"segmentation": ("tx-udp-segmentation",)}, FAIL), (None, WARN)],
)
def test_a_peer_that_does_not_cut_is_found_with_several_generic_interfaces(
    peer: dict[str, Any] | None, result: Result
) -> None:
    assert one(_generic(peer), "peer").result is result


def test_a_peer_need_not_cut_for_one_generic_interface() -> None:
    examiner = veth(running(*ENDS, mode=Mode.GENERIC), segmentation=("tx-udp-segmentation",))
    assert one(examiner, "peer").result is Result.PASS


@pytest.mark.parametrize(("mine", "narrowed"), [(1500, "far"), (9000, "eth0")])
def test_a_veth_pair_of_two_widths_fails(mine: int, narrowed: str) -> None:
    examiner = veth(mtu=2000)
    examiner.interfaces["eth0"] = Interface(replace(VETH, mtu=mine))
    item = one(examiner, "mtu", "eth0")
    assert item.result is FAIL
    assert item.opinion.fix is not None
    assert item.opinion.fix.command == f"ip link set dev {narrowed} mtu {min(mine, 2000)}"


def test_an_mtu_that_has_changed_since_up_is_found_where_it_matters() -> None:
    examiner = FakeExaminer(running(*ENDS, interfaces=("eth0", "eth1")))
    examiner.interfaces["eth0"] = Interface(Link("eth0", 2, MAC, mtu=1400))
    examiner.interfaces["eth1"] = Interface(Link("eth1", 3, MAC, mtu=1400))
    findings = found(examiner, "mtu")
    assert {item.result for item in findings} == {WARN}
    assert "was 1500" in findings[0].opinion.reason


def test_a_mac_address_that_has_changed_since_up_fails(up: FakeExaminer) -> None:
    up.interfaces["eth0"] = Interface(Link("eth0", 2, NEXT_MAC))
    item = one(up, "mac")
    assert item.result is FAIL
    assert item.opinion.fix is not None
    assert item.opinion.fix.command == f"ip link set dev eth0 address {MAC.hex(':')}"


@pytest.mark.parametrize("feature", ["rx-lro", "rx-gro-hw"])
def test_a_device_that_puts_packets_together_is_found(up: FakeExaminer, feature: str) -> None:
    up.said["offloads"] = {feature: True}
    item = one(up, "offloads")
    assert item.result is WARN
    assert item.opinion.fix is not None
    assert "ethtool -K eth0" in item.opinion.fix.command


def test_what_lies_below_several_generic_interfaces_is_pointed_at() -> None:
    examiner = FakeExaminer(running(*ENDS, **BOTH))
    examiner.interfaces["eth0"] = Interface(Link("eth0", 2, MAC, kind="bridge"))
    assert found(examiner, "offloads")[0].result is WARN


def test_hidden_vlan_tags_are_found_where_there_are_vlans() -> None:
    examiner = FakeExaminer()
    examiner.said["offloads"] = {"rx-vlan-hw-parse": True}
    assert one(examiner, "vlan", "eth0").result is Result.PASS
    examiner.interfaces["eth0"] = Interface(Link("eth0", 2, MAC), vlans=("eth0.20",))
    item = one(examiner, "vlan", "eth0")
    assert item.result is WARN
    assert item.opinion.fix is not None
    assert item.opinion.fix.command == "ethtool -K eth0 rxvlan off"
    examiner.said["offloads"] = {}
    assert one(examiner, "vlan", "eth0").result is Result.PASS


def test_an_interface_without_an_address_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    examiner = FakeExaminer()
    monkeypatch.setattr(examiner, "addresses", lambda _: ())
    assert one(examiner, "address", "eth0").result is WARN


def test_a_foreign_program_fails_before_up() -> None:
    examiner = FakeExaminer()
    examiner.hanging[2] = STRANGER
    (item,) = (it for it in found(examiner, "program", "eth0") if it.scope == "interface eth0")
    assert item.result is FAIL
    assert "which is not xdplb's" in item.opinion.reason
    assert item.opinion.fix is not None
    assert not item.opinion.fix.is_safe
