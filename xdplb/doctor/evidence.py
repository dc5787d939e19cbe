"""What is asked of a machine before it is judged, and the seam that answers. Plain data."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from xdplb.checks import Check
    from xdplb.doctor.findings import Repair
    from xdplb.facts import Link, Neighbour, Running, Way
    from xdplb.model import Address, BalancerStatus, Endpoint, Mode, PortRange, Protocol

# Of the machine


@dataclass(frozen=True, slots=True)
class Bcc:
    """The compiler, as this Python finds it; ``problem`` says why it is none."""

    version: str = ""
    path: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of the program when it was compiled and loaded, but attached nowhere.

    Attributes:
        is_compiled: The kernel turned it into machine code.
        problem: Why it was not loaded, with ``hint``; empty where it was.
    """

    is_compiled: bool = True
    problem: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of nftables that filters what comes in."""

    family: str
    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Leftover:
    """A next hop that the kernel is to ask for, though no balancer wants it."""

    ifindex: int
    interface: str
    address: Address


# Of an interface


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface and what it has to do with others.

    Attributes:
        is_up: An administrator wants it to work; and ``has_carrier``: it does.
        master: The bridge, bond or team that it is a part of; empty for none.
        vlans: The VLAN interfaces on it.
    """

    link: Link
    is_up: bool = True
    has_carrier: bool = True
    master: str = ""
    vlans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a veth pair.

    Attributes:
        netns: Inode of its network namespace, and ``path``, by which that is entered.
        is_up: An administrator wants it to work.
        gro: It puts packets together, and so runs NAPI.
        is_native: It has an XDP program of its own.
        tx_queues: By which it sends; None where it does not say.
        segmentation: The offloads that are on and leave packets larger than the MTU.
    """

    name: str
    index: int
    netns: int
    path: str
    mtu: int
    gro: bool
    is_up: bool = True
    is_native: bool = False
    tx_queues: int | None = None
    segmentation: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hanging:
    """The program on an interface, in words.

    Attributes:
        is_ours: It is a balancer's.
    """

    program_id: int
    words: str
    mode: Mode
    is_ours: bool


# Of a balancer


@dataclass(frozen=True, slots=True)
class Case:
    """A balancer that runs, and how it is; its interfaces by their names of now.

    Attributes:
        names: Of its interfaces, in its own order; empty for one that is not here.
        traced_for: For how many seconds it tells what it does; None where it does not.
    """

    running: Running
    status: BalancerStatus
    names: tuple[str, ...]
    traced_for: float | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has an address of the balancer.

    Attributes:
        interface: Where this host has it, empty for nowhere; ``index`` is that interface's.
        is_duplicate: The kernel does not use it, since another host had it first.
        other: The MAC address of another host that has it; empty for none.
        has_route: There is a route that leads away from here, by a router.
        length: Of the network's prefix; None where no address here is of that network.
    """

    interface: str = ""
    index: int = 0
    is_duplicate: bool = False
    other: str = ""
    has_route: bool = False
    length: int | None = None


@dataclass(frozen=True, slots=True)
class HostSocket:
    """A socket of the host.

    Attributes:
        address: None for every one of its IP version; and ``is_dual``: also of the other.
        remote: Whom it is connected with, if it is.
    """

    protocol: Protocol
    version: int
    address: Address | None
    port: int
    is_dual: bool = False
    remote: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """How packets to a backend leave.

    Attributes:
        way: None where there is none, as ``problem`` says, with ``hint``.
        interface: The name of that interface; ``lower`` is what a VLAN interface lies on.
        mtu: Of the interface.
    """

    way: Way | None = None
    interface: str = ""
    lower: int | None = None
    mtu: int = 0
    problem: str = ""
    hint: str = ""


class Examiner(typing.Protocol):
    """Answers about this host. ``xdplb.kernel.examiner`` has the real one.

    Each raises XdplbError or OSError where it cannot answer; that is said, and the rest goes on.
    """

    def lacking(self) -> str:
        """Which privileges are missing, in words; empty for none."""

    def kernel(self) -> str:
        """The kernel's release."""

    def too_old(self) -> str:
        """What the kernel's BPF lacks, in words; empty for nothing."""

    def bcc(self) -> Bcc:
        """The compiler."""

    def libbpf(self) -> tuple[str, ...]:
        """The functions that the library has not."""

    def trial(self) -> Trial:
        """Compile the program and load it, attach it nowhere."""

    def setting(self, name: str) -> str | None:
        """A sysctl; None where this kernel or this network namespace has none of that name."""

    def memlock(self) -> int | None:
        """How many bytes a process may lock; None for any."""

    def lockdown(self) -> str:
        """The kernel's lockdown mode; empty where there is none."""

    def chains(self) -> tuple[Chain, ...]:
        """What filters packets that come in."""

    def leftovers(self) -> tuple[Leftover, ...]:
        """What a killed command has left behind."""

    def interface(self, name: str) -> Interface:
        """The interface called ``name``."""

    def addresses(self, index: int) -> tuple[Address, ...]:
        """Those of an interface that a service could have."""

    def features(self, index: int) -> int | None:
        """The kernel's NETDEV_XDP_ACT flags of an interface; None before Linux 6.3."""

    def queues(self, name: str) -> int | None:
        """How many queues an interface receives by; None where it does not say."""

    def peer(self, link: Link) -> Peer | None:
        """The other end of a veth pair; None where it is out of reach."""

    def offloads(self, name: str) -> Mapping[str, bool]:
        """Which offloads of an interface are on, by the kernel's names."""

    def program(self, index: int) -> Hanging | None:
        """What hangs on an interface."""

    def namespace(self) -> int:
        """The inode of the network namespace."""

    def carriers(self) -> tuple[str, ...]:
        """The interfaces that a balancer of any version hangs on."""

    def cases(self) -> tuple[Case, ...]:
        """Every balancer of this version."""

    def owners(
        self, addresses: Collection[Address], indexes: Sequence[int]
    ) -> Mapping[Address, Owner]:
        """Who has these addresses, here and on the networks of these interfaces."""

    def sockets(self) -> tuple[HostSocket, ...]:
        """Those of UDP, and of TCP."""

    def ephemeral(self) -> PortRange:
        """The ports that the host takes for its own connections."""

    def agents(self) -> frozenset[str]:
        """The interfaces that an ``xdplb run`` looks after."""

    def check_problem(self, check: Check | None, address: Address) -> str:
        """Why this machine cannot do a check; empty where it can."""

    def route(self, address: Address) -> Route:
        """The way to a backend."""

    def next_hop(self, ifindex: int, address: Address) -> Neighbour | None:
        """A neighbour on an interface; None for a stranger."""

    def repair(self, repair: Repair) -> str:
        """Do what mends a finding; returns why it did not work, or nothing."""

    def settle(self) -> None:
        """Wait a moment for the answers of next hops that are asked for."""
