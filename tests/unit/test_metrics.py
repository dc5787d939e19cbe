"""Metrics: names, types and values."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
from full_status import STATUS
from prometheus_client.parser import text_string_to_metric_families

from xdplb.metrics import text

if TYPE_CHECKING:
    from xdplb.model import BalancerStatus

ON = "eth0,eth1"
SERVICE = {
    "interfaces": ON,
    "service": "dns",
    "address": "192.0.2.1",
    "protocol": "udp",
    "ports": "53",
}


@pytest.fixture
def bcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", {"bcc": "0.26.0"}.__getitem__)


def samples(*balancers: BalancerStatus) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every value by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text(balancers))
        for sample in family.samples
    }


def value(name: str, **labels: str) -> float:
    return samples(STATUS)[name, frozenset(labels.items())]


def test_the_balancer_is_told() -> None:
    assert value("xdplb_flows", interfaces=ON) == 7
    assert value("xdplb_flows_capacity", interfaces=ON) == 1000
    assert value("xdplb_nat_ports_used", interfaces=ON) == 7
    assert value("xdplb_nat_ports_capacity", interfaces=ON) == 500
    assert value("xdplb_interface_up", interfaces=ON, interface="eth0", mode="native") == 1
    assert value("xdplb_interface_up", interfaces=ON, interface="eth1", mode="generic") == 0


@pytest.mark.usefixtures("bcc")
def test_the_build_is_told_with_the_compiler_that_is_there() -> None:
    build = {"version": "0.1.0", "program_tag": "0123456789abcdef"}
    assert value("xdplb_build_info", interfaces=ON, **build, bcc="0.26.0") == 1


def test_a_machine_without_bcc_has_no_version_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert 'bcc=""' in text([STATUS])


def test_maps_that_can_become_full_say_how_full_they_are() -> None:
    place = {"interfaces": ON, "ip_version": "4", "map": "reverse_lookup"}
    assert value("xdplb_map_entries", **place) == 8
    assert value("xdplb_map_capacity", **place) == 1000
    assert value("xdplb_map_entries", **{**place, "map": "backends"}) == 2


def test_what_became_of_packets_is_counted_by_its_name() -> None:
    assert value("xdplb_sent_total", interfaces=ON, verdict="forward") == 10
    assert value("xdplb_passed_total", interfaces=ON, reason="socket") == 2
    assert value("xdplb_drops_total", interfaces=ON, reason="no_port") == 4


def test_backends_are_told_with_their_traffic() -> None:
    first = {**SERVICE, "backend": "192.0.2.10:53"}
    second = {**SERVICE, "backend": "192.0.2.11:53"}
    assert value("xdplb_backend_packets_total", **first, direction="to_backend") == 10
    assert value("xdplb_backend_packets_total", **first, direction="from_backend") == 9
    assert value("xdplb_backend_bytes_total", **first, direction="to_backend") == 1000
    assert value("xdplb_backend_bytes_total", **first, direction="from_backend") == 900
    assert value("xdplb_backend_refused_total", **first) == 1
    assert (value("xdplb_backend_up", **first), value("xdplb_backend_up", **second)) == (1, 0)
    assert value("xdplb_backend_resolved", **first) == 1
    assert value("xdplb_backend_resolved", **second) == 0
    assert value("xdplb_backend_state", **second, state="drain") == 1
    assert value("xdplb_backend_state", **second, state="up") == 0
    assert value("xdplb_backend_weight", **first) == 3
    assert value("xdplb_backend_share_ratio", **second) == 0.25
    assert value("xdplb_backend_flows", **first) == 7


def test_nothing_up_is_no_value() -> None:
    assert samples() == {}


def test_every_metric_says_what_it_is() -> None:
    printed = text([STATUS])
    names = set(re.findall(r"^(xdplb_\w+)\{", printed, re.MULTILINE))
    assert names == set(re.findall(r"^# HELP (\w+) \S", printed, re.MULTILINE))
    assert names == set(re.findall(r"^# TYPE (\w+) (?:counter|gauge)$", printed, re.MULTILINE))
