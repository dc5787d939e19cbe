"""Two balancers behind a router that spreads flows over them, and clients that never pause.

All is as the recipe has it: BIRD, BFD, the scripts and the files that ship. What is measured is
logged; nothing is decided by times.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from lab import wait_for
from questions import Questions
from recipes import Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from questions import Account

SERVICE = "198.51.100.200"
CLIENTS = tuple(f"198.51.100.{number}" for number in range(7, 15))
BOTH = ("balancer", "other")
ADDRESSES = {"balancer": "192.0.2.1", "other": "192.0.2.2"}
SECRET = "a secret of some length, the same for both"
ALL_FLOWS = "xdplb flows --json --limit 1000000"
UP = "xdplb up --config /etc/xdplb/ecmp.toml"
SET_UP = (
    "install -D -m 600 $SHARE/examples/ecmp.toml /etc/xdplb/ecmp.toml",
    "address=$(ip -4 -oneline address show eth0 | sed 's|.*inet ||; s|/.*||'); "
    'sed -i "/^nat-addresses/s/192.0.2.1/$address/" /etc/xdplb/ecmp.toml',
    f"(umask 077; echo '{SECRET}' >/etc/xdplb/secret)",
    f"ip address add {SERVICE}/32 dev lo",
    UP,
    "install -D -t /usr/local/lib/xdplb $SHARE/announce",
    "install -D -m 644 $SHARE/bird/bird.conf /etc/bird/bird.conf",
    "install -m 644 $SHARE/bird/xdplb-announce.service /etc/systemd/system",
    "systemctl restart bird",
    "until birdc show status >/dev/null 2>&1; do sleep 0.05; done",
    "birdc disable bfd1",  # but in its own test: a processor here may be busy for three packets
    "systemctl enable --now xdplb-announce",
)
ROUNDS = int(os.environ.get("XDPLB_DRAIN_ROUNDS", "1"))
"""How often one of them is drained, in turn, and goes without."""
LOG = logging.getLogger(__name__)

pytestmark = pytest.mark.alone


class Balancers:
    """Both balancers, the router, and the clients."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self.questions: Questions

    def run(self, machine: str, command: str) -> str:
        done = self._section.run(machine, command)
        assert done.code == 0, f"{machine}# {command}: {done.output}"
        return done.output

    def routes(self, *machines: str) -> None:
        """Return when the router sends to these balancers, and to no other one."""
        wanted = {ADDRESSES[machine] for machine in machines}

        def ways() -> set[str]:
            words = self.run("router", f"ip route show {SERVICE}").split()
            return {after for word, after in pairwise(words) if word == "via"}

        wait_for(lambda: ways() == wanted, 30)

    def flows(self, machine: str) -> dict[tuple[str, int], tuple[str, str]]:
        """Which server each client has, and whom that sees."""
        return {
            (flow["client"]["address"], flow["client"]["port"]): (
                flow["backend"]["address"],
                flow["nat"]["address"],
            )
            for flow in json.loads(self.run(machine, ALL_FLOWS))["flows"]
        }

    def random_while(self) -> None:
        """Let clients ask for a while."""
        self.questions.go_on(random.uniform(0.3, 1.0))


@pytest.fixture(scope="module")
def balancers() -> Iterator[Balancers]:
    """Both are up, and announce the service; clients ask."""
    with Section() as section:
        made = Balancers(section)
        for address in CLIENTS[1:]:
            made.run("client", f"ip address add {address}/25 dev eth0")
        for machine in BOTH:
            for command in SET_UP:
                made.run(machine, command)
        made.run("router", "systemctl restart bird")
        made.routes(*BOTH)
        with Questions(section.namespace("client"), CLIENTS, SERVICE) as made.questions:
            made.questions.go_on(1)
            yield made


@pytest.fixture(autouse=True)
def _both_are_up_again(balancers: Balancers) -> Iterator[None]:
    """Whatever a test did, the next one finds both; and each client has met one server alone."""
    yield
    balancers.run("router", "ip link set port-balancer up")
    for machine in BOTH:
        balancers.run(machine, f"xdplb health || {UP}")
    balancers.routes(*BOTH)
    servers = balancers.questions.servers()
    assert set(servers) == set(CLIENTS)
    assert all(len(found) == 1 for found in servers.values()), servers
    assert len({server for found in servers.values() for server in found}) == 2


def tell(what: str, account: Account) -> None:
    LOG.info("%s: %d of %d questions lost, within %.2f s",
             what, account.lost, account.asked, account.gap_s)  # fmt: skip


@pytest.mark.parametrize("attempt", range(ROUNDS))
def test_a_drain_loses_nothing_and_neither_does_coming_back(
    balancers: Balancers, attempt: int
) -> None:
    """Flows that last move to the other balancer, to the same server, which sees its address."""
    questions = balancers.questions
    moving = BOTH[attempt % 2]
    staying = BOTH[1 - attempt % 2]
    balancers.random_while()
    before = balancers.flows(moving)
    began = time.monotonic()
    said = balancers.run(moving, "xdplb down --drain --idle 1")
    assert said.startswith("drains: eth0\ndown: eth0 (program "), said
    balancers.routes(staying)
    questions.go_on(0.5)
    after = balancers.flows(staying)
    moved = [port for port in questions.ports if port in before and before[port] != after[port]]
    assert moved, "no flow that lasts went by this balancer"
    for port in moved:
        assert before[port][0] == after[port][0], "another server"
        assert (before[port][1], after[port][1]) == (ADDRESSES[moving], ADDRESSES[staying])

    came_back = time.monotonic()
    balancers.run(moving, UP)
    balancers.routes(*BOTH)
    questions.go_on(0.5)
    assert balancers.flows(moving)
    for what, account in (
        (f"down --drain of {moving}", questions.account(began, came_back)),
        (f"{moving} comes back", questions.account(came_back)),
    ):
        tell(what, account)
        assert account.lost == 0, what


def test_without_a_drain_little_is_lost(balancers: Balancers) -> None:
    """Between the program's end and the router's turn."""
    for _ in range(ROUNDS):
        balancers.random_while()
        began = time.monotonic()
        balancers.run("balancer", "xdplb down")
        balancers.routes("other")
        recovered = time.monotonic()
        balancers.run("balancer", UP)
        balancers.routes(*BOTH)
        tell("down", balancers.questions.account(began, recovered))
        assert balancers.questions.account(recovered).lost == 0


@pytest.mark.parametrize("has_bfd", [True, False], ids=["BFD", "hold time"])
def test_a_balancer_that_dies_is_left_out(balancers: Balancers, has_bfd: bool) -> None:  # noqa: FBT001
    if has_bfd:
        for machine in BOTH:
            balancers.run(machine, "birdc enable bfd1")
        wait_for(lambda: balancers.run("router", "birdc show bfd sessions").count(" Up ") == 2)
    balancers.random_while()
    began = time.monotonic()
    balancers.run("router", "ip link set port-balancer down")
    balancers.routes("other")
    recovered = time.monotonic()
    balancers.questions.go_on(0.5)
    tell(f"dead, with{'' if has_bfd else 'out'} BFD", balancers.questions.account(began))
    assert balancers.questions.account(recovered).lost == 0
    if has_bfd:
        for machine in BOTH:
            balancers.run(machine, "birdc disable bfd1")


class TestAnnouncement:
    """``announce`` itself: however it ends, the way is withdrawn."""

    @pytest.fixture(autouse=True)
    def _announces_again(self, balancers: Balancers) -> Iterator[None]:
        balancers.routes(*BOTH)
        yield
        balancers.run("balancer", "install -D -t /usr/local/lib/xdplb $SHARE/announce")
        balancers.run("balancer", "systemctl restart xdplb-announce")

    def test_when_the_watch_is_killed(self, balancers: Balancers) -> None:
        own = "$(cat /run/started/xdplb-announce)"
        children = f"/proc/{own}/task/{own}/children"
        balancers.run("balancer", f"read -r watch _ <{children}; kill -KILL $watch")
        balancers.routes("other")

    def test_when_it_is_stopped(self, balancers: Balancers) -> None:
        balancers.run("balancer", "systemctl stop xdplb-announce")
        balancers.routes("other")

    def test_when_xdplb_is_not_there(self, balancers: Balancers) -> None:
        gone = "sed 's/xdplb health/xdplb-was-removed health/' $SHARE/announce"
        balancers.run("balancer", f"{gone} >/usr/local/lib/xdplb/announce")
        balancers.run("balancer", "systemctl restart xdplb-announce")
        balancers.routes("other")

    def test_what_the_daemon_forgets_it_is_told_again(self, balancers: Balancers) -> None:
        balancers.run("balancer", "birdc disable service")
        balancers.routes("other")
        balancers.routes(*BOTH)
