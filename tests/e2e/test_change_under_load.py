"""Whatever is changed while 50,000 packets a second pass: none is lost, and no flow moves.

``XDPLB_LOAD_RATE`` sets the rate, in packets a second toward the backends; as many come back.
Nothing here asserts a rate or a time: a slow machine sends less, and loses as little.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from socket import SOCK_STREAM
from typing import TYPE_CHECKING, Final

import pytest
from lab import SERVICE, SERVICE6, Lab, run
from load import PORT, Load, Talk

from xdplb import source
from xdplb.balancer import Balancer
from xdplb.kernel import netns
from xdplb.kernel.machine import Machine
from xdplb.model import Backend, Hash, PortRange, Protocol, Timeouts
from xdplb.request import Request, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from load import Account

THOROUGH: Final = "XDPLB_LOAD_RATE" in os.environ
"""All changes; else those that have lost something once, and one of each kind."""

RATE: Final = int(os.environ.get("XDPLB_LOAD_RATE", "50000"))
FIRST, SECOND, THIRD, FOURTH = (f"172.11.0.{number}" for number in (20, 21, 24, 25))
PORTS: Final = ("--port", "7000-7099")
BOTH: Final = ("--protocol", "udp", "--protocol", "tcp", *PORTS)
_GOOD: Final = frozenset({"forward", "return", "pass_not_ours"})
TIMEOUTS: Final = ("--timeout", "60", "--timeout-unreplied", "10", "--timeout-tcp", "600")
LOG: Final = logging.getLogger(__name__)

pytestmark = pytest.mark.alone


class Trial:
    """A balancer under load, and what is done to it meanwhile."""

    def __init__(self, lab: Lab, load: Load, interfaces: tuple[str, ...] = ("balancer",)) -> None:
        """Take over a lab whose balancer is up, and a load that sits there already."""
        self.lab = lab
        self.load = load
        self.changes = self.exchanges = 0
        self.interfaces = interfaces
        self._where_lost: dict[str, dict[str, int]] = {}

    def up(self, *options: str, backends: tuple[str, ...] = (FIRST, SECOND)) -> None:
        """``up`` again."""
        words = [word for backend in backends for word in ("--backend", backend)]
        words += [word for name in self.interfaces for word in ("--iface", name)]
        self.command("up", *words, *options)

    def command(self, *words: str, check: bool = True) -> None:
        """Any command that changes something, or tries to."""
        with self.step(" ".join(words)):
            done = self.lab.xdplb(*words, check=False)
            assert (done.returncode == 0) == check, f"{words}: {done.stdout}{done.stderr}"

    def request(self, request: Request, what: str) -> None:
        """``up`` with a request that has no options on the command line."""
        with self.step(what), netns.inside(self.lab.path("b")), Machine() as machine:
            Balancer(machine).up(request)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Note whether anything goes wrong meanwhile, under a name; then go on for a while."""
        before = self.load.faults()
        yield
        self.load.send(RATE // 20)
        after = self.load.faults()
        if after != before:
            self._where_lost[what] = {
                name: count - before[name] for name, count in after.items() if count != before[name]
            }
        self.changes += 1

    def control(self) -> None:
        """The same load, and nothing changes: what is lost here is not the balancer's."""
        self.load.start()
        self.load.send(RATE // 2)
        account = self.load.stop()
        LOG.info("without a change: %s", account)
        assert not account.faults, f"the load itself is faulty: {account}"

    def judge(self) -> Account:
        """Stop the load: nothing was lost, and the balancer's counters say so, too."""
        account = self.load.stop()
        verdicts = self.lab.status()["verdicts"]
        LOG.info("%d changes: %s, %d TCP exchanges", self.changes, account, self.exchanges)
        assert not account.faults, f"{account}; {self._where_lost}; {verdicts}"
        passed = verdicts["forward"] + verdicts["return"]
        others = sum(count for name, count in verdicts.items() if name not in _GOOD)
        assert not others, f"{verdicts}; {self._where_lost}"
        # One verdict may be about several segments in generic mode, and never about none.
        assert account.asked + account.answered + 2 * self.exchanges <= passed
        return account


@contextmanager
def under_load(mode: str) -> Iterator[Trial]:
    with Lab() as lab, Load(lab, RATE) as load:
        if mode == "generic":  # else frames that XDP sends have nobody to take them there
            run(*lab.inside("b", "ethtool", "-K", "balancer", "gro", "on"))
        lab.up(*PORTS, "--mode", mode)
        load.sit_on("h", "outside")
        trial = Trial(lab, load)
        trial.control()
        load.start()
        yield trial


@contextmanager
def talking(trial: Trial, where: str = "h") -> Iterator[None]:
    """TCP connections that speak all the while, with backends in a namespace."""
    lab = trial.lab
    names = (FIRST, SECOND) if where == "h" else ("172.12.0.20",)
    servers = [lab.socket(name, PORT, where, SOCK_STREAM) for name in names]
    for server in servers:
        server.listen()
    before = {name: _segments(lab, name) for name in {"h", where}}
    clients = [f"172.11.0.{number}" for number in (22, 23, 22, 23)]
    with Talk(lab, clients, servers) as talk:
        yield
        talk.finish()
        trial.exchanges += talk.exchanges
    for name, (lost, resets) in before.items():
        now = _segments(lab, name)
        assert now[0] <= lost, "TCP had to send something anew"
        assert now[1] == resets, "a connection was reset"


def _segments(lab: Lab, where: str) -> tuple[int, int]:
    """What TCP sent anew and had been lost, not only late; and resets."""
    late = lab.counter("TcpExt", "TCPDSACKRecv", where)
    return lab.counter("Tcp", "RetransSegs", where) - late, lab.counter("Tcp", "OutRsts", where)


def other_version(place: Path) -> Path:
    """A copy of xdplb whose program has other code."""
    tree = place / "tree"
    shutil.copytree(Path(source.__file__).parent, tree / "xdplb")
    shutil.copytree(source.directory(), tree / "bpf")
    text = (tree / "bpf" / "xdplb.c").read_text()
    changed = text.replace("\tpkt->tags = 0;\n", "\tpkt->tags = 0;\n\tbpf_get_prandom_u32();\n")
    assert changed != text
    (tree / "bpf" / "xdplb.c").write_text(changed)
    return tree


def upgrade(trial: Trial, tree: Path) -> None:
    """``up`` again by the xdplb in another directory; the program is another one then."""
    before = trial.lab.status()["program"]["tag"]
    words = ("up", "--iface", "balancer", "--backend", FIRST, "--backend", SECOND, *BOTH)
    command = (sys.executable, "-P", "-m", "xdplb", "--netns", trial.lab.balancer, *words)
    with trial.step("upgrade"):
        run(*command, env={**os.environ, "PYTHONPATH": f"{tree}"})
    assert trial.lab.status()["program"]["tag"] != before


def change_backends(trial: Trial) -> None:
    """All that ``backend`` can do, and nothing to a backend with flows that go on."""
    trial.command("backend", "add", FOURTH, "--weight", "3")
    trial.command("backend", "drain", FOURTH)
    trial.command("backend", "undrain", FOURTH)
    trial.command("backend", "weight", FIRST, "5")
    trial.command("backend", "drain", FIRST)
    trial.command("backend", "undrain", FIRST)
    trial.command("backend", "drain", FOURTH)
    trial.command("backend", "remove", FOURTH)
    trial.command("backend", "weight", FIRST, "1")
    trial.command("trace", "--seconds", "0.2", "--reason", "all")


def change_services(trial: Trial) -> None:
    """From one service to several, which are looked up, one for another, and back."""
    backends = tuple(Backend(ip_address(address)) for address in (FIRST, SECOND))
    ours = Service(backends, ip_address(SERVICE), ports=(PortRange(7000, 7099),))
    tcp = replace(ours, protocol=Protocol.TCP, hash=Hash.SRC)
    dns = replace(ours, ports=(PortRange(53, 53),), timeouts=Timeouts(2, 5, 10, 20))
    ntp = replace(ours, ports=(PortRange(123, 123),), hash=Hash.FIVE_TUPLE)
    other = replace(ours, address=ip_address("172.11.0.9"), backends=backends[:1])
    request = Request(("balancer",), (ours, tcp))
    trial.request(request, "a service with another hash")
    trial.request(replace(request, services=(dns, tcp, ours)), "a third one, before the first")
    trial.request(replace(request, services=(ours, ntp, tcp)), "one for another")
    trial.request(replace(request, services=(other, tcp, ntp, ours)), "another address first")
    trial.up(*BOTH)


def test_no_change_loses_a_packet_or_moves_a_flow_in_native_mode(tmp_path: Path) -> None:
    with under_load("native") as trial:
        trial.up(*BOTH)
        with talking(trial):
            trial.up(*BOTH, "--hash", "5-tuple", "--port", "53", "--port", "8000-8999")
            trial.up(*BOTH, "--hash", "src", *TIMEOUTS, "--max-client-flows", "100")
            trial.up(*BOTH, "--max-client-flows", "0", "--no-vlan", "--on-down", "drop")
            trial.up(*BOTH, backends=(THIRD, SECOND, FIRST))
            change_backends(trial)
            if THOROUGH:
                trial.command("backend", "drain", THIRD)
                trial.up(*BOTH, "--client", "172.11.0.22:5555=6666")
                trial.command("up", "--iface", "balancer", "--backend", "198.51.100.1", check=False)
            trial.up(
                *BOTH, "--service", SERVICE, "--service", SERVICE6,
                backends=(FIRST, SECOND, "2001:db8::20"),
            )  # fmt: skip
            upgrade(trial, other_version(tmp_path))
            change_services(trial)
        trial.up(*PORTS)
        trial.judge()


def test_no_change_loses_a_packet_or_moves_a_flow_in_generic_mode() -> None:
    with under_load("generic") as trial:
        trial.up(*BOTH)
        with talking(trial):
            trial.up(*BOTH, "--hash", "5-tuple", backends=(THIRD, SECOND, FIRST))
            trial.up(*BOTH, "--max-client-flows", "100", backends=(FIRST, SECOND, THIRD))
            change_backends(trial)
        trial.up(*PORTS, "--no-vlan", backends=(THIRD, FIRST, SECOND))
        trial.judge()


@pytest.mark.parametrize("mode", ["native", "generic"] if THOROUGH else ["native"])
def test_no_change_loses_a_packet_of_a_balancer_on_two_interfaces(mode: str) -> None:
    near, far, third = "172.11.0.20", "172.12.0.20", "172.12.0.21"
    both = (*BOTH, "--service", SERVICE)
    with Lab() as lab, Load(lab, RATE) as load:
        lab.second_network()
        lab.ip("s", f"address add {third}/24 dev servers")
        for device in ("balancer", "second") if mode == "generic" else ():
            run(*lab.inside("b", "ethtool", "-K", device, "gro", "on"))
        lab.up("--iface", "second", *PORTS, "--mode", mode, backends=(far,))
        load.sit_on("h", "outside")
        load.sit_on("s", "servers")
        trial = Trial(lab, load, ("balancer", "second"))
        trial.control()
        load.start()
        trial.up(*both, "--hash", "src", backends=(far,))
        with talking(trial, "s"):
            trial.interfaces = ("second", "balancer")
            trial.up(*both, "--no-vlan", backends=(third, far))
            trial.command("backend", "drain", third)
            trial.command("backend", "add", near)
            trial.interfaces = ("balancer", "second")
            trial.up(*both, "--hash", "5-tuple", backends=(far, near))
            trial.command("backend", "drain", near)
            trial.up(*both, backends=(far,))
        trial.judge()
