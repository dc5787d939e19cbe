"""The units for systemd: what systemd itself says of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "xdplb" / "share" / "systemd"
NAMES = ("xdplb@.service", "xdplb-agent@.service")
INSTALLED = "/usr/bin/xdplb"
SHARE = UNITS.parent
OF_RECIPES = (
    "bird/xdplb-announce.service",
    "exabgp/xdplb-announce.service",
    "keepalived/xdplb-mirror.service",
    "prometheus/xdplb-metrics.service",
    "prometheus/xdplb-metrics.timer",
)
SCRIPTS = "/usr/local/lib/xdplb"
MOST_EXPOSED = 35
"""Tenths of a point; 3.4 is what root, CAP_SYS_ADMIN and the network take."""


@pytest.fixture(scope="module")
def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None and os.environ.get("XDPLB_REQUIRE_KERNEL") != "1":
        pytest.skip("needs systemd-analyze")
    assert found is not None, "needs systemd-analyze"
    return found


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def unit(name: str, directory: Path) -> str:
    """A unit that names the xdplb of this environment; its path."""
    path = directory / name
    program = Path(sys.executable).parent / "xdplb"
    text = (UNITS / name).read_text()
    assert INSTALLED in text
    path.write_text(text.replace(INSTALLED, f"{program}"))
    return f"{path}"


@pytest.mark.parametrize("name", NAMES)
def test_systemd_has_nothing_to_say_against_a_unit(
    systemd_analyze: str, tmp_path: Path, name: str
) -> None:
    instance = unit(name, tmp_path).replace("@", "@dns")
    done = run(systemd_analyze, "verify", "--man=no", instance)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", OF_RECIPES)
def test_systemd_has_nothing_to_say_against_a_unit_of_a_recipe(
    systemd_analyze: str, tmp_path: Path, name: str
) -> None:
    for path in (SHARE / name).parent.glob("*.*"):  # a timer has its service beside it
        text = path.read_text()
        for script in (SHARE / "announce", SHARE / "keepalived" / "mirror"):
            text = text.replace(f"{SCRIPTS}/{script.name}", f"{script}")
        (tmp_path / path.name).write_text(text)
    for engine in ("bird", "exabgp"):  # from packages that are not installed
        (tmp_path / f"{engine}.service").write_text("[Service]\nExecStart=/bin/true\n")
    done = run(systemd_analyze, "verify", "--man=no", f"{tmp_path / Path(name).name}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_may_do_little(systemd_analyze: str, tmp_path: Path, name: str) -> None:
    path = unit(name, tmp_path)
    limit = f"--threshold={MOST_EXPOSED}"
    done = run(systemd_analyze, "security", "--offline=true", "--no-pager", limit, path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_units_are_held_as_tight() -> None:
    first, second = (
        text[text.index("CapabilityBoundingSet") :] for name in NAMES
        if (text := (UNITS / name).read_text())
    )  # fmt: skip
    assert first == second


def test_the_end_of_the_agent_is_not_the_end_of_the_balancer() -> None:
    agent = (UNITS / "xdplb-agent@.service").read_text()
    assert not {"ExecStop", "ExecStopPost", "BindsTo", "PartOf"} & {
        line.partition("=")[0] for line in agent.splitlines()
    }
