"""What the operations need of a host: the seam between deciding and doing.

``xdplb.kernel.machine`` has the real one; tests bring one of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

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
    from xdplb.listing import FlowName
    from xdplb.model import Address, Clients, Mode, PortRange
    from xdplb.plan import Plan
    from xdplb.saved import Restored, Saved
    from xdplb.state import Restore, State
    from xdplb.wire import BackendRecord, StatsRecord


class Follower(Protocol):
    """The flows of a balancer as they change. ``xdplb.kernel.following`` has the real one."""

    def changes(
        self, running: Running, interfaces: Sequence[str], interval: float
    ) -> Iterator[Saved]:
        """All that is new since it was asked last, in sets."""


class Tap(Protocol):
    """A loaded program that tells what it does. ``xdplb.kernel.tap`` has the real one."""

    program_fd: int
    program_id: int
    at_zero_ns: int

    def ask_for(self, seconds: float) -> None:
        """Let the program tell for so many seconds from now on."""

    def wait(self, seconds: float) -> list[bytes]:
        """What it has told, after at most so many seconds; more of it may be left."""

    def lost(self) -> int:
        """How many packets there was no room for."""


def interface_names(machine: Machine, state: State) -> tuple[str, ...]:
    """What a balancer's interfaces are called now; those that are not here, as they were."""
    return tuple(machine.interface_name(item.index) or item.name for item in state.interfaces)


class Machine(Protocol):
    """What the operations need of a host. ``xdplb.kernel.machine`` has the real one."""

    def require_privileges(self) -> None:
        """Raise PrivilegeError unless everything below is allowed."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only one who changes balancers here; raises BusyError."""

    def link(self, name: str) -> Link:
        """The interface called ``name``."""

    def interface_name(self, index: int) -> str | None:
        """What an interface is called now."""

    def interface_index(self, name: str) -> int | None:
        """The index of an interface; None if there is none of that name."""

    def presence(self, index: int) -> Presence | None:
        """What an interface is now; None if it is not here."""

    def has_address(self, address: Address) -> bool:
        """Whether an address is one of this host's own."""

    def address(self, link: Link, version: int) -> Address:
        """Its first address of an IP version."""

    def settle(self, link: Link) -> None:
        """Wait while the interface's IPv6 addresses are checked for duplicates."""

    def ephemeral_ports(self) -> PortRange:
        """The ports that the host takes for its own connections."""

    def namespace(self) -> int:
        """The inode of the network namespace."""

    def way(self, address: Address) -> Way:
        """The route to ``address``."""

    def neighbours(self, indexes: Sequence[int]) -> Mapping[tuple[int, Address], Neighbour]:
        """The neighbours on some interfaces, by interface and address."""

    def manage(self, ifindex: int, address: Address) -> None:
        """Let the kernel keep asking for a next hop."""

    def unmanage_all(self) -> None:
        """Let the kernel ask no more for any next hop that ``manage`` was called for."""

    def prepare(self, link: Link) -> Prepared:
        """What makes sure that what a native program sends by ``link`` arrives."""

    def switch_gro(self, item: Restore) -> str:
        """Switch GRO on where ``item`` switches it off; returns a warning or nothing."""

    def split(self, link: Link) -> Split:
        """Make sure that no super-packet meets a generic program on ``link``."""

    def restore(self, item: Restore) -> None:
        """Put back one thing that was changed."""

    def attached(self, ifindex: int) -> Attached | None:
        """What hangs on an interface."""

    def describe(self, program_id: int) -> str:
        """Words for a program that is not ours."""

    def found(self) -> list[Found]:
        """Every balancer that is attached here, of any version."""

    def running(self) -> list[Running]:
        """Every balancer that is attached here."""

    def compile(self, flags: Mapping[int, Sequence[str]]) -> Any:  # noqa: ANN401 - only handed on to load()
        """Compile the program, once for each IP version that there are flags for."""

    def load(
        self,
        code: Any,  # noqa: ANN401 - from compile()
        plans: Sequence[Plan],
        state: State,
        old: Running | None,
    ) -> int:
        """Create and fill the maps, load the program; returns its descriptor."""

    def attach(
        self, ifindex: int, name: str, program_fd: int, mode: Mode, old_id: int | None
    ) -> None:
        """Attach the program to one interface."""

    def detach(self, ifindex: int, name: str, program_id: int, mode: Mode) -> None:
        """Take the program off one interface."""

    def hold(self, program_id: int) -> int | None:
        """A descriptor that keeps a program alive; None if it has gone."""

    def map_ids(self, program_id: int) -> list[int]:
        """The kernel's numbers for the maps that a program holds."""

    def await_freed(self, map_ids: Sequence[int]) -> None:
        """Return when the kernel has freed these maps, or after a second."""

    def program_id(self, program_fd: int) -> int:
        """The kernel's number for a program."""

    def set_backend(self, program_id: int, number: int, record: BackendRecord) -> None:
        """Write one backend of a running balancer."""

    def end_services(self, program_id: int, plan: Plan) -> None:
        """End the flows of the services that a plan has removed."""

    def end_flows(self, running: Running, names: Collection[FlowName]) -> int:
        """End some flows; how many there still were."""

    def change(self, running: Running, plans: Sequence[Plan], state: State) -> None:
        """Write what of some plans differs from what runs, and then the new description."""

    def rehearse(self, running: Running, question: Question) -> Rehearsal:
        """Find out what a balancer would do with a packet; nothing of it changes."""

    def tap(
        self, running: Running, flags: Mapping[int, Sequence[str]]
    ) -> AbstractContextManager[Tap]:
        """A balancer's program once more, compiled with other flags to tell what it does."""

    def load_again(self, running: Running) -> int:
        """A balancer's program once more, as it was compiled; returns its descriptor."""

    def traced_for(self, running: Running) -> float | None:
        """For how many seconds a balancer tells what it does; None for one that does not."""

    def usage(self, running: Running, version: int) -> Usage:
        """The counters of a running balancer for one IP version."""

    def clients(self, running: Running, limit: int) -> Clients:
        """The clients with the most flows, so many of each IP version."""

    def traffic(self, running: Running) -> Mapping[int, Mapping[int, StatsRecord]]:
        """What has gone to and come from each backend, by IP version and number."""

    def verdicts(self, running: Running) -> dict[str, int]:
        """Packets by verdict."""

    def save_flows(self, running: Running, interfaces: Sequence[str]) -> Saved:
        """The flows of a balancer that have not timed out, and its interfaces' names."""

    def list_flows(self, running: Running, interfaces: Sequence[str]) -> Saved:
        """The same, and reservations that have had a packet: to be shown, not for a file."""

    def follow_flows(self, running: Running) -> AbstractContextManager[Follower]:
        """The flows of a balancer as they change."""

    def restore_flows(
        self, running: Running, interfaces: Sequence[str], saved: Saved, *, rules: bool = False
    ) -> Restored:
        """Give saved flows to a balancer, attached or not; what is there stays, or they rule."""
