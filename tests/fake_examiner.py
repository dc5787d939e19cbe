"""A healthy machine in memory for ``doctor``; a test breaks one thing of it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from fake_machine import MAC, FakeMachine, request

from xdplb.balancer import Balancer
from xdplb.doctor import examine
from xdplb.doctor.evidence import Bcc, Case, Hanging, Interface, Owner, Peer, Route, Trial
from xdplb.errors import InterfaceNotFoundError
from xdplb.facts import Link, Neighbour, Way
from xdplb.model import Mode, PortRange

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from xdplb.doctor.findings import Finding, Repair
    from xdplb.model import Address

NATIVE = 0b111
"""Flags of a driver that has XDP, redirects, and takes what others redirect."""

VETH = Link("eth0", 2, MAC, kind="veth", peer_index=9, peer_nsid=1)
PEER = Peer("far", 9, 4026532000, "/run/netns/far", 1500, gro=True, tx_queues=1)
STRANGER = Hanging(7, "program 7 (stranger, tag 00)", Mode.NATIVE, is_ours=False)
NEXT_MAC = bytes.fromhex("020000000010")


def running(*backends: str, **options: Any) -> Case:
    """A balancer that has been brought up on a machine in memory."""
    machine = FakeMachine()
    asked = request(*backends, **options)
    for address in (item.address for item in asked.backends):
        machine.known[2, address] = Neighbour(NEXT_MAC)
    Balancer(machine).up(asked)
    machine.run_on()
    (status,) = Balancer(machine).status()
    return Case(machine.running()[0], status, asked.interfaces)


def with_state(case: Case, **changes: Any) -> Case:
    """The same balancer, but it knows something else of itself."""
    return replace(
        case, running=replace(case.running, state=replace(case.running.state, **changes))
    )


class FakeExaminer:
    """``xdplb.doctor.evidence.Examiner`` in memory. ``fail`` says what cannot be answered."""

    def __init__(self, *cases: Case) -> None:
        """All is well; ``cases`` run."""
        self.running = cases
        self.fail: dict[str, Exception] = {}
        self.said: dict[str, Any] = {
            "lacking": "",
            "kernel": "6.18.1",
            "too_old": "",
            "bcc": Bcc("0.26.0", "/usr/lib/bcc"),
            "libbpf": (),
            "trial": Trial(),
            "memlock": None,
            "lockdown": "",
            "chains": (),
            "leftovers": (),
            "features": NATIVE,
            "queues": 1,
            "peer": PEER,
            "offloads": {},
            "sockets": (),
            "agents": frozenset(),
            "check_problem": "",
            "namespace": FakeMachine().namespace(),
        }
        self.settings = {
            "net/core/bpf_jit_harden": "0",
            "kernel/bpf_stats_enabled": "0",
            "kernel/unprivileged_bpf_disabled": "2",
            "net/ipv4/ip_local_reserved_ports": "",
        }
        self.interfaces = {
            "eth0": Interface(Link("eth0", 2, MAC)),
            "eth1": Interface(Link("eth1", 3, MAC)),
        }
        self.hanging: dict[int, Hanging] = {
            on.index: Hanging(case.running.program_id, "program 100", on.mode, is_ours=True)
            for case in cases
            for on in case.running.state.interfaces
        }
        self.owned: dict[Address, Owner] = {}
        self.routes: dict[Address, Route] = {}
        self.hops: dict[Address, Neighbour | None] = {}
        self.repaired: list[Repair] = []
        self.settled = 0
        self.is_locked: Callable[[], bool] = lambda: True

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """What answers with one value, whatever is asked."""
        if name not in self.said:
            raise AttributeError(name)
        return lambda *_: self._say(name)

    def _say(self, name: str) -> Any:
        if name in self.fail:
            raise self.fail[name]
        return self.said.get(name)

    def setting(self, name: str) -> str | None:
        self._say("setting")
        return self.settings.get(name)

    def interface(self, name: str) -> Interface:
        self._say("interface")
        if name not in self.interfaces:
            raise InterfaceNotFoundError(name)
        return self.interfaces[name]

    def addresses(self, index: int) -> tuple[Address, ...]:
        del index
        return (ip_address("192.0.2.1"),)

    def program(self, index: int) -> Hanging | None:
        self._say("program")
        return self.hanging.get(index)

    def carriers(self) -> tuple[str, ...]:
        self._say("carriers")
        return tuple(name for case in self.running for name in case.names)

    def cases(self) -> tuple[Case, ...]:
        self._say("cases")
        return self.running

    def owners(
        self, addresses: Collection[Address], indexes: Sequence[int]
    ) -> Mapping[Address, Owner]:
        self._say("owners")
        here = Owner("eth0", indexes[0])
        return {item: self.owned.get(item, here) for item in addresses}

    def ephemeral(self) -> PortRange:
        return PortRange(32768, 60999)

    def route(self, address: Address) -> Route:
        self._say("route")
        return self.routes.get(address, Route(Way(2, address), "eth0", None, 1500))

    def next_hop(self, ifindex: int, address: Address) -> Neighbour | None:
        del ifindex
        known = Neighbour(NEXT_MAC, is_managed=True, is_ours=True, state="REACHABLE")
        return self.hops.get(address, known)

    def repair(self, repair: Repair) -> str:
        assert self.is_locked()
        self.repaired.append(repair)
        problem = str(self._say("repair") or "")
        if repair.what == "gro" and not problem:
            self.said["peer"] = replace(self.said["peer"], gro=True)
        return problem

    def settle(self) -> None:
        self.settled += 1


def found(examiner: FakeExaminer, name: str, *interfaces: str) -> list[Finding]:
    """What a check has found."""
    return [item for item in examine(examiner, interfaces) if item.name == name]


def one(examiner: FakeExaminer, name: str, *interfaces: str) -> Finding:
    """The only thing that a check has found."""
    (item,) = found(examiner, name, *interfaces)
    return item


def veth(*cases: Case, **peer: Any) -> FakeExaminer:
    """A machine whose interface is one end of a veth pair."""
    examiner = FakeExaminer(*cases)
    examiner.interfaces["eth0"] = Interface(VETH)
    examiner.said["peer"] = replace(PEER, **peer)
    return examiner
