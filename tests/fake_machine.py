"""A machine that only remembers what was asked of it."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self

from xdplb.facts import (
    Attached,
    Found,
    Link,
    Neighbour,
    Prepared,
    Presence,
    Question,
    Rehearsal,
    Running,
    Split,
    Usage,
    Way,
)
from xdplb.model import IPV4, IPV6, Backend, Clients, Mode, PortRange
from xdplb.request import Request, Service, simple_request
from xdplb.saved import Restored, Saved, Skip
from xdplb.wire import StatsRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from xdplb.errors import XdplbError
    from xdplb.listing import FlowName
    from xdplb.machine import Follower, Tap
    from xdplb.model import Address
    from xdplb.plan import Plan
    from xdplb.state import Restore, State
    from xdplb.wire import BackendRecord

MAC = bytes.fromhex("020000000001")
NEW_ID = 100
PLAIN_ID = 101
OWN = {IPV4: ip_address("192.0.2.1"), IPV6: ip_address("2001:db8::1")}
"""The addresses of its interfaces."""


def request(*backends: str, **options: Any) -> Request:
    """A request on the interface ``eth0``."""
    options.setdefault("interfaces", ("eth0",))
    addresses = backends or ("192.0.2.10", "192.0.2.11")
    return simple_request(
        backends=tuple(Backend(ip_address(item)) for item in addresses), **options
    )


def service(
    address: str, *backends: str, ports: tuple[int, ...] = (53,), **options: Any
) -> Service:
    """A service of some ports, without an address where that is empty."""
    return Service(
        backends=tuple(Backend(ip_address(item)) for item in backends),
        address=ip_address(address) if address else None,
        ports=tuple(PortRange(port, port) for port in ports),
        **options,
    )


class Unchanging:
    """Flows that never change, of which there are none."""

    def changes(
        self, running: Running, interfaces: Sequence[str], interval: float
    ) -> Iterator[Saved]:
        del running, interfaces, interval
        return iter(())


class FakeMachine:
    """``xdplb.machine.Machine`` in memory. ``fail`` says which step raises what."""

    def __init__(self) -> None:
        """Two interfaces and no program."""
        self.links = {"eth0": Link("eth0", 2, MAC), "eth1": Link("eth1", 3, MAC)}
        self.programs: dict[int, Attached] = {}
        self.balancers: list[Running] = []
        self.known: dict[tuple[int, Address], Neighbour] = {}
        self.fail: dict[str, list[XdplbError | None]] = {}
        self.restored: list[Restore] = []
        self.managed: list[Address] = []
        self.flags: dict[int, list[str]] = {}
        self.loaded: list[tuple[list[Plan], State]] = []
        self.changed: list[tuple[int, Plan, State]] = []
        self.counts: list[int] = []
        """What the verdict ``forward`` counts, look by look; the last one stays."""
        self.ended: list[tuple[int, Plan]] = []
        self.saved = Saved(0.0, (), (), ())
        self.given: list[tuple[Running, tuple[str, ...], Saved, Mapping[int, Attached]]] = []
        """What flows were restored: where, over which interfaces, and what was attached then."""
        self.ruled: list[bool] = []
        """Whether they came from a peer, whose word counts."""
        self.follower: Follower = Unchanging()
        self.maps: dict[int, list[int]] = {}
        """The numbers of the maps of programs."""
        self.taps: list[Tap] = []
        self.left_of_trace: float | None = None
        self.asked: list[Question] = []
        self.rehearsal = Rehearsal("pass_not_ours", b"", None, None, None, 0, is_same=True)
        self.locked = False
        self.prepared = Prepared(redirect=False)
        self.switched: list[Restore] = []
        self.gro_warning = ""
        self.splits: dict[str, Split] = {}
        self.lost: set[Address] = set()
        """Addresses that are not the host's."""
        self.agents: set[str] = set()
        """The interfaces that an agent looks after."""
        self.dark: set[str] = set()
        """The interfaces without a carrier."""
        self.busiest = Clients(0, ())
        self.ids: dict[int, int] = {}
        self.usages = {
            IPV4: Usage({0: 3, 1: 1}, {0: StatsRecord(5, 500, 4, 400)}, {0: 3, 1: 1}),
            IPV6: Usage({0: 2}, {0: StatsRecord(7, 700, 6, 600)}, {0: 1, 1: 1}),
        }

    def _step(self, name: str) -> None:
        errors = self.fail.get(name)
        if errors and (error := errors.pop(0)) is not None:
            raise error

    def require_privileges(self) -> None:
        self._step("require_privileges")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        self._step("lock")
        self.locked = True
        try:
            yield
        finally:
            self.locked = False

    def link(self, name: str) -> Link:
        self._step("link")
        return self.links[name]

    def interface_index(self, name: str) -> int | None:
        return self.links[name].index if name in self.links else None

    def interface_name(self, index: int) -> str | None:
        return next((link.name for link in self.links.values() if link.index == index), None)

    def presence(self, index: int) -> Presence | None:
        name = self.interface_name(index)
        if name is None:
            return None
        link, there = self.links[name], self.programs.get(index)
        return Presence(
            name=name,
            program_id=there.program_id if there else None,
            is_up=True,
            has_carrier=name not in self.dark,
            mac=link.mac,
            mtu=link.mtu,
            has_agent=name in self.agents,
        )

    def has_address(self, address: Address) -> bool:
        return address not in self.lost

    def address(self, link: Link, version: int) -> Address:
        del link
        return OWN[version]

    def settle(self, link: Link) -> None:
        self._step(f"settle {link.name}")

    def ephemeral_ports(self) -> PortRange:
        return PortRange(32768, 60999)

    def namespace(self) -> int:
        return 4026531840

    def way(self, address: Address) -> Way:
        self._step("way")
        return Way(2, address)

    def neighbours(self, indexes: Sequence[int]) -> Mapping[tuple[int, Address], Neighbour]:
        del indexes
        return self.known

    def manage(self, ifindex: int, address: Address) -> None:
        self._step("manage")
        del ifindex
        self.managed.append(address)

    def unmanage_all(self) -> None:
        assert self.locked
        self.managed.clear()

    def prepare(self, link: Link) -> Prepared:
        del link
        return self.prepared

    def switch_gro(self, item: Restore) -> str:
        self._step("switch_gro")
        self.switched.append(item)
        return self.gro_warning

    def split(self, link: Link) -> Split:
        return self.splits.get(link.name, Split())

    def restore(self, item: Restore) -> None:
        assert self.locked
        self.restored.append(item)

    def attached(self, ifindex: int) -> Attached | None:
        return self.programs.get(ifindex)

    def describe(self, program_id: int) -> str:
        return f"program {program_id}"

    def found(self) -> list[Found]:
        return [
            Found(
                item.program_id,
                {interface.index: interface.mode for interface in item.state.interfaces},
                item.state.restore,
            )
            for item in self.balancers
        ]

    def running(self) -> list[Running]:
        return self.balancers

    def compile(self, flags: Mapping[int, Sequence[str]]) -> str:
        self._step("compile")
        self.flags = {version: list(items) for version, items in flags.items()}
        return "code"

    def load(self, code: str, plans: Sequence[Plan], state: State, old: Running | None) -> int:
        del code, old
        self._step("load")
        self.loaded.append((list(plans), state))
        return self._descriptor(NEW_ID)

    def _descriptor(self, program_id: int) -> int:
        """A descriptor that can really be closed, and whose program it is."""
        fd = os.open("/dev/null", os.O_RDONLY)
        self.ids[fd] = program_id
        return fd

    def hold(self, program_id: int) -> int | None:
        return self._descriptor(program_id)

    def attach(
        self, ifindex: int, name: str, program_fd: int, mode: Mode, old_id: int | None
    ) -> None:
        del name
        self._step("attach")
        there = self.programs.get(ifindex)
        assert (there.program_id if there else None) == old_id
        self.programs[ifindex] = Attached(self.ids[program_fd], mode)

    def detach(self, ifindex: int, name: str, program_id: int, mode: Mode) -> None:
        del name, mode
        there = self.programs.get(ifindex)
        if there is not None and there.program_id == program_id:
            del self.programs[ifindex]

    def map_ids(self, program_id: int) -> list[int]:
        return self.maps.get(program_id, [])

    def await_freed(self, map_ids: Sequence[int]) -> None:
        del map_ids

    def program_id(self, program_fd: int) -> int:
        del program_fd
        return NEW_ID

    def set_backend(self, program_id: int, number: int, record: BackendRecord) -> None:
        del program_id, number, record

    def end_services(self, program_id: int, plan: Plan) -> None:
        self._step("end_services")
        self.ended.append((program_id, plan))

    def change(self, running: Running, plans: Sequence[Plan], state: State) -> None:
        self._step("change")
        self.changed += [(running.program_id, plan, state) for plan in plans]

    def end_flows(self, running: Running, names: Collection[FlowName]) -> int:
        del running
        return len(names)

    def rehearse(self, running: Running, question: Question) -> Rehearsal:
        del running
        self.asked.append(question)
        return self.rehearsal

    def tap(
        self, running: Running, flags: Mapping[int, Sequence[str]]
    ) -> AbstractContextManager[Tap]:
        del running
        self._step("tap")
        self.flags = {version: list(items) for version, items in flags.items()}
        return nullcontext(self.taps.pop(0))

    def load_again(self, running: Running) -> int:
        del running
        return self._descriptor(PLAIN_ID)

    def traced_for(self, running: Running) -> float | None:
        del running
        return self.left_of_trace

    def usage(self, running: Running, version: int) -> Usage:
        assert version in running.state.versions
        return self.usages[version]

    def clients(self, running: Running, limit: int) -> Clients:
        self._step("clients")
        del running
        return Clients(self.busiest.total, self.busiest.first[:limit])

    def traffic(self, running: Running) -> Mapping[int, Mapping[int, StatsRecord]]:
        self._step("traffic")
        return {version: self.usages[version].traffic for version in running.state.versions}

    def verdicts(self, running: Running) -> dict[str, int]:
        del running
        self._step("verdicts")
        if len(self.counts) > 1:
            self.counts.pop(0)
        return {"forward": self.counts[0] if self.counts else 5}

    def save_flows(self, running: Running, interfaces: Sequence[str]) -> Saved:
        self._step("save_flows")
        del running
        return replace(self.saved, interfaces=(*interfaces, ""))

    def list_flows(self, running: Running, interfaces: Sequence[str]) -> Saved:
        return self.save_flows(running, interfaces)

    def follow_flows(self, running: Running) -> AbstractContextManager[Follower]:
        self._step("follow_flows")
        del running
        return nullcontext(self.follower)

    def restore_flows(
        self, running: Running, interfaces: Sequence[str], saved: Saved, *, rules: bool = False
    ) -> Restored:
        self._step("restore_flows")
        self.ruled.append(rules)
        self.given.append((running, tuple(interfaces), saved, dict(self.programs)))
        return Restored(saved.count, Counter({Skip.TIMED_OUT: 1}) if saved.count else Counter())

    def run_on(self) -> None:
        """Let what was loaded last be what runs from now on."""
        plans, state = self.loaded[-1]
        records = {plan.version: plan.records for plan in plans}
        self.balancers = [Running(NEW_ID, "abcd", state, records)]
