"""Metrics and alert rules, as Prometheus' own tool sees them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import Lab, exchange
from unpacked import unpacked

import xdplb

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = Path(xdplb.__file__).parent / "share" / "prometheus" / "xdplb.rules.yml"


@pytest.fixture(scope="module")
def promtool() -> Path:
    return unpacked("prometheus", "prometheus") / "usr" / "bin" / "promtool"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        built.up("--port", "53", backends=("172.11.0.20",))
        yield built


def test_promtool_has_nothing_to_say_about_the_metrics(lab: Lab, promtool: Path) -> None:
    exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 53), b"?", 53)
    printed = lab.xdplb("metrics").stdout
    assert 'xdplb_sent_total{interfaces="balancer",verdict="return"} 1.0' in printed
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=printed, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_promtool_finds_no_fault_in_the_alert_rules(promtool: Path) -> None:
    checked = subprocess.run(
        [promtool, "check", "rules", RULES], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "SUCCESS: 6 rules found" in checked.stdout
