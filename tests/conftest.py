"""The floors that need a kernel: skipped without one, but in CI that is a failure.

Several processes may run tests at once. Each takes turns for what it marks ``alone``.
"""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from locks import turn

if TYPE_CHECKING:
    from collections.abc import Generator

TESTS = Path(__file__).parent

# How fast examples are made says how busy the machine is, and nothing of the code.
settings.register_profile("busy", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("busy")


def _missing() -> str:
    if os.geteuid() != 0:
        return "needs root"
    return "" if find_spec("bcc") else "needs BCC (python3-bpfcc)"


def _has_devices() -> bool:
    """Whether this kernel can make what the mark ``devices`` is about."""
    trial = (
        "ip link add bond0 type bond && ip link add link bond0 vlan10 type vlan id 10 && "
        "tc qdisc add dev bond0 root netem delay 1ms && ipvsadm -Ln"
    )
    ended = subprocess.run(
        ["unshare", "--net", "sh", "-c", trial], capture_output=True, check=False
    )
    return ended.returncode == 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this kernel has no devices for; skip, or let fail, what cannot run here."""
    marked = [item for item in items if item.get_closest_marker("devices")]
    if marked and os.environ.get("XDPLB_REQUIRE_DEVICES") != "1" and not _has_devices():
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]
    reason = _missing()
    if not reason or os.environ.get("XDPLB_REQUIRE_KERNEL") == "1":
        return
    for item in items:
        if item.path.is_relative_to(TESTS / "bpf") or item.path.is_relative_to(TESTS / "e2e"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that is marked ``alone`` have the machine, and all others share it."""
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)
