"""``from xdplb import Balancer`` in network namespaces: the README's example, and another one."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import Lab, exchange, run

from xdplb import Balancer, XdplbError
from xdplb.kernel import netns
from xdplb.model import BackendState

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).resolve().parents[2] / "README.md"
SHOWN = """\
192.0.2.10: drain, 0%, 0 flows
192.0.2.11: up, 33%, 0 flows
192.0.2.12: up, 67%, 0 flows
0 flows from the office
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """With another pair of interfaces, which has the README's names and addresses."""
    with Lab() as built:
        built.ip("b", "link add eth0 type veth peer name servers netns", built.hosts)
        built.ip("b", "address add 192.0.2.1/24 dev eth0")
        built.ip("b", "link set eth0 up")
        built.ip("h", "link set servers up")
        for number in (10, 11, 12):
            built.ip("h", f"address add 192.0.2.{number}/24 dev servers")
        yield built


def test_the_example_of_the_readme_runs(lab: Lab) -> None:
    section = README.read_text().partition("## From Python\n")[2]
    (example,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    done = run(*lab.inside("b", sys.executable, "-c", example))
    assert (done.stdout, done.stderr) == (SHOWN, "")
    assert lab.xdplb("status").stdout.startswith("no balancer is up")


def test_a_balancer_in_another_namespace(lab: Lab) -> None:
    home = netns.identity()
    balancer = Balancer("balancer", netns=lab.balancer)
    assert balancer.status() is None
    balancer.up(["172.11.0.20"], ports=[53])
    client = lab.socket("172.11.0.22", 5555)
    exchange(client, lab.socket("172.11.0.20", 53), b"?", 53)
    (flow,) = balancer.flows(client="172.11.0.22")
    assert (f"{flow.client}", f"{flow.backend}") == ("172.11.0.22:5555", "172.11.0.20:53")
    assert balancer.flows(client="172.11.0.23") == ()
    balancer.drain("172.11.0.20")
    (backend,) = balancer.backends()
    assert (backend.state, backend.packets_in, backend.flows) == (BackendState.DRAIN, 1, 1)
    assert balancer.down()
    assert not balancer.down()
    with pytest.raises(XdplbError, match="no balancer is up"):
        balancer.flows()
    assert netns.identity() == home


def test_a_call_leaves_no_descriptor_open(lab: Lab) -> None:
    balancer = Balancer("balancer", netns=lab.balancer)
    balancer.status()
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    for _ in range(3):
        balancer.status()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - a count
