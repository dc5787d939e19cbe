"""The machine that ``doctor`` looks at: answers to its questions, and what ``--fix`` does."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from functools import wraps
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from pyroute2.ethtool.ioctl import EthtoolError
from pyroute2.netlink.exceptions import NetlinkError

from xdplb.doctor.evidence import Case, Hanging, Leftover, Route
from xdplb.errors import NotReadyError, PrivilegeError, TableError, XdplbError
from xdplb.kernel import (
    features,
    libbpf,
    netns,
    offloads,
    program,
    surroundings,
    trial,
    veth,
    views,
)
from xdplb.kernel.claims import is_claimed
from xdplb.kernel.closing import Closing
from xdplb.kernel.events import Events
from xdplb.kernel.links import Network
from xdplb.kernel.owners import owners
from xdplb.kernel.xdp_features import xdp_features
from xdplb.state import Restore

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from xdplb.checks import Check
    from xdplb.doctor.evidence import Bcc, Chain, HostSocket, Interface, Owner, Peer, Trial
    from xdplb.doctor.findings import Repair
    from xdplb.facts import Link, Neighbour
    from xdplb.kernel.machine import Machine
    from xdplb.model import Address, BalancerStatus, PortRange


_ANSWERED_WITHIN_S: Final = 1.0

_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


def _asked(method: Callable[_Asked, _Answer]) -> Callable[_Asked, _Answer]:
    """Make an error that the user understands of what netlink and ethtool say."""

    @wraps(method)
    def ask(*arguments: _Asked.args, **options: _Asked.kwargs) -> _Answer:
        try:
            return method(*arguments, **options)
        except (NetlinkError, EthtoolError) as error:
            raise NotReadyError(f"the kernel does not tell: {error}") from error

    return ask


class Examiner(Closing):
    """This host, seen from the current network namespace."""

    def __init__(self, machine: Machine, status: Callable[[], list[BalancerStatus]]) -> None:
        """Look by way of ``machine``; ``status`` says how its balancers are."""
        self._machine = machine
        self._status = status
        self._network = Network()
        self._views = views.Views()
        self._trial: Trial | None = None
        self._neighbours: dict[int, Mapping[tuple[int, Address], Neighbour]] = {}

    def close(self) -> None:
        """Let go of the sockets."""
        self._network.close()
        self._views.close()

    # Of the machine

    def lacking(self) -> str:
        """Which privileges are missing, in words; empty for none."""
        try:
            self._machine.require_privileges()
        except PrivilegeError as error:
            return f"{error}"
        return ""

    def kernel(self) -> str:
        """The kernel's release."""
        return os.uname().release

    def too_old(self) -> str:
        """What the kernel's BPF lacks, in words; empty for nothing."""
        return features.lacking()

    def bcc(self) -> Bcc:
        """The compiler."""
        return surroundings.bcc()

    def libbpf(self) -> tuple[str, ...]:
        """The functions that the library has not."""
        return libbpf.missing()

    def trial(self) -> Trial:
        """Compile the program and load it, attach it nowhere; once is enough."""
        if self._trial is None:
            self._trial = trial.load_once(self._machine)
        return self._trial

    def setting(self, name: str) -> str | None:
        """A sysctl; None where this kernel or this network namespace has none of that name."""
        return surroundings.setting(name)

    def memlock(self) -> int | None:
        """How many bytes a process may lock; None for any."""
        return surroundings.memlock()

    def lockdown(self) -> str:
        """The kernel's lockdown mode; empty where there is none."""
        return surroundings.lockdown()

    def chains(self) -> tuple[Chain, ...]:
        """What filters packets that come in."""
        return surroundings.chains()

    @_asked
    def leftovers(self) -> tuple[Leftover, ...]:
        """Next hops that a killed command has left managed."""
        machine = self._machine
        wanted = {
            (item.ifindex, item.address)
            for found in machine.found()
            for item in found.restore
            if item.what == "neighbour"
        }
        hops: set[Address] = set()
        with suppress(TableError):  # a balancer of another version, as another check says
            records = (every for item in machine.running() for every in item.records.values())
            hops = {record.next_hop for every in records for record in every}
        return tuple(
            Leftover(index, netns.interface_name(index) or f"{index}", address)
            for index, address in self._network.managed()
            if (index, f"{address}") not in wanted and address not in hops
        )

    # Of an interface

    @_asked
    def interface(self, name: str) -> Interface:
        """The interface called ``name``."""
        return self._views.interface(self._network.link(name))

    @_asked
    def addresses(self, index: int) -> tuple[Address, ...]:
        """Those of an interface that a service could have."""
        return tuple(
            item.address for item in self._views.held() if item.ifindex == index and item.is_usable
        )

    @_asked
    def features(self, index: int) -> int | None:
        """The kernel's NETDEV_XDP_ACT flags of an interface; None where it has none."""
        return xdp_features(index)

    def queues(self, name: str) -> int | None:
        """How many queues an interface receives by; None where it does not say."""
        return views.queues(name, "rx")

    @_asked
    def peer(self, link: Link) -> Peer | None:
        """The other end of a veth pair; None where it is out of reach."""
        return views.peer(link, self._network)

    @_asked
    def offloads(self, name: str) -> Mapping[str, bool]:
        """Which offloads of an interface are on, by the kernel's names."""
        return offloads.all_on(name)

    def program(self, index: int) -> Hanging | None:
        """What hangs on an interface."""
        there = program.attached(index)
        if there is None:
            return None
        ours = {item.program_id for item in self._machine.found()}
        words = program.describe(there.program_id)
        return Hanging(there.program_id, words, there.mode, there.program_id in ours)

    # Of a balancer

    def namespace(self) -> int:
        """The inode of the network namespace."""
        return netns.identity()

    def carriers(self) -> tuple[str, ...]:
        """The interfaces that a balancer of any version hangs on."""
        indexes = sorted({index for item in self._machine.found() for index in item.indexes})
        return tuple(name for index in indexes if (name := netns.interface_name(index)))

    def cases(self) -> tuple[Case, ...]:
        """Every balancer of this version."""
        by_id = {item.program_id: item for item in self._status()}
        return tuple(
            Case(
                item,
                by_id[item.program_id],
                tuple(netns.interface_name(on.index) or "" for on in item.state.interfaces),
                self._machine.traced_for(item),
            )
            for item in self._machine.running()
            if item.program_id in by_id
        )

    @_asked
    def owners(
        self, addresses: Collection[Address], indexes: Sequence[int]
    ) -> Mapping[Address, Owner]:
        """Who has these addresses, here and on the networks of these interfaces."""
        return owners(addresses, indexes, self._views, self._network)

    @_asked
    def sockets(self) -> tuple[HostSocket, ...]:
        """Those of UDP, and of TCP."""
        return surroundings.sockets()

    def ephemeral(self) -> PortRange:
        """The ports that the host takes for its own connections."""
        return self._machine.ephemeral_ports()

    def agents(self) -> frozenset[str]:
        """The interfaces that an ``xdplb run`` looks after."""
        return frozenset(filter(is_claimed, netns.interface_names()))

    def check_problem(self, check: Check | None, address: Address) -> str:
        """Why this machine cannot do a check; empty where it can."""
        from xdplb.health.probes import require  # noqa: PLC0415 - only where there are checks

        try:
            require(check, address)
        except XdplbError as error:
            return f"{error}"
        return ""

    # Of a backend

    @_asked
    def route(self, address: Address) -> Route:
        """The way to a backend."""
        try:
            way = self._network.way(address)
            name = netns.interface_name(way.ifindex) or f"interface {way.ifindex}"
            link = self._network.link(name)
        except XdplbError as error:
            return Route(problem=f"{error}", hint=error.hint)
        return Route(way, name, link.lower, link.mtu)

    @_asked
    def next_hop(self, ifindex: int, address: Address) -> Neighbour | None:
        """A neighbour on an interface; None for a stranger."""
        if ifindex not in self._neighbours:
            self._neighbours[ifindex] = self._network.neighbours([ifindex])
        return self._neighbours[ifindex].get((ifindex, address))

    def repair(self, repair: Repair) -> str:
        """Do what mends a finding; returns why it did not work, or nothing."""
        try:
            return self._repair(repair)
        except XdplbError as error:
            return f"{error}"
        except OSError as error:
            return error.strerror or f"{error}"

    @_asked
    def _repair(self, repair: Repair) -> str:
        match repair.what:
            case "gro":
                return veth.switch_gro(Restore("gro", repair.netns, repair.ifindex))
            case "segmentation":
                return veth.cut(repair.netns, repair.ifindex, repair.features)
            case "manage":
                self._network.manage(repair.ifindex, ip_address(repair.address))
            case "forget":
                self._forget(repair)
            case "jit":
                surroundings.set_setting("net/core/bpf_jit_enable", "1")
                self._trial = None
        return ""

    def _forget(self, repair: Repair) -> None:
        """Forget a leftover, unless somebody wants it by now."""
        place = (repair.ifindex, ip_address(repair.address))
        if place in {(item.ifindex, item.address) for item in self.leftovers()}:
            self._network.unmanage(*place, existed=False)

    @_asked
    def settle(self) -> None:
        """Wait a moment for the answers of next hops that are asked for."""
        self._neighbours = {}
        deadline = time.monotonic() + _ANSWERED_WITHIN_S
        with Events() as events:
            while self._is_asking() and (left := deadline - time.monotonic()) > 0:
                select.select([events], (), (), left)
                events.clear()

    def _is_asking(self) -> bool:
        places = self._network.managed()
        known = self._network.neighbours([index for index, _ in places])
        return any(place in known and known[place].state == "INCOMPLETE" for place in places)
