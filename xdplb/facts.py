"""What the machine says: interfaces, ways, neighbours, and what runs already. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from xdplb.errors import NotReadyError
from xdplb.wire import NO_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.model import Address, Mode
    from xdplb.state import Restore, State
    from xdplb.wire import BackendRecord, ClientKey, ClientValue, FlowRecord, StatsRecord

# Kinds of interface that never have native XDP: no need to try.
_GENERIC_ONLY: Final = frozenset(
    {"bridge", "macvlan", "macvtap", "ipvlan", "vlan", "dummy", "vxlan", "geneve", "gre", "gretap"}
)
# Kinds whose packets have come through other interfaces, which may have put them together.
_STACKED: Final = (_GENERIC_ONLY | {"bond", "team"}) - {"dummy"}


@dataclass(frozen=True, slots=True)
class Link:
    """An interface.

    Attributes:
        mac: Six bytes.
        mtu: Bytes of the largest IP packet that it sends.
        lower: The interface that a VLAN interface lies on; and ``tag``, which its frames have.
        kind: What made it, such as ``veth``; empty for hardware.
        peer_index: The other end of a veth pair.
        peer_nsid: The kernel's number for the peer's network namespace; None for ours.
    """

    name: str
    index: int
    mac: bytes
    mtu: int = 1500
    kind: str = ""
    peer_index: int | None = None
    peer_nsid: int | None = None
    lower: int | None = None
    tag: bytes = NO_TAG

    @property
    def is_generic_only(self) -> bool:
        """Whether native mode is known to be impossible."""
        return self.kind in _GENERIC_ONLY or self.name == "lo"

    @property
    def is_told_apart(self) -> bool:
        """Whether native mode tells of a packet that it came by this interface.

        Of a bond it names the member, which is none of the balancer's.
        """
        return self.kind != "bond"

    @property
    def is_stacked(self) -> bool:
        """Whether its packets have come through other interfaces of this machine."""
        return self.kind in _STACKED


@dataclass(frozen=True, slots=True)
class Way:
    """How packets to an address leave: by which interface, and to which next hop.

    Attributes:
        mtu: That of the path, where the kernel knows it to be another than the interface's.
    """

    ifindex: int
    next_hop: Address
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What the kernel knows of a next hop.

    Attributes:
        mac: Six bytes; None while it is not known.
        is_permanent: An administrator set it.
        is_managed: The kernel keeps asking for it by itself.
        is_ours: And does so because xdplb wanted it.
        state: The kernel's word for what it knows, as 'ip neighbour' prints it.
    """

    mac: bytes | None
    is_permanent: bool = False
    is_managed: bool = False
    is_ours: bool = False
    state: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """How packets leave by an interface, and what is to be done for that.

    Attributes:
        redirect: By bpf_redirect(); else by XDP_TX.
        restore: What is to be switched, as ``down`` has to put it back.
        warning: What a person has to do, where we could not.
    """

    redirect: bool
    restore: Restore | None = None
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Split:
    """How it is made sure that packets arrive by an interface one by one.

    Attributes:
        off: Every offload that is off for that, as ``down`` would put it back.
        changed: Those of them that were on.
        warnings: What a person has to do, where we could not.
    """

    off: frozenset[Restore] = frozenset()
    changed: tuple[Restore, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attached:
    """A program on an interface."""

    program_id: int
    mode: Mode


@dataclass(frozen=True, slots=True)
class Presence:
    """What an interface is now, as far as that is cheap to know.

    Attributes:
        program_id: What hangs on it; None for nothing.
        is_up: An administrator wants it up; and ``has_carrier``, its other end is there.
        mac: Six bytes.
        mtu: Bytes of the largest IP packet that it sends.
        has_agent: An agent looks after it.
    """

    name: str
    program_id: int | None
    is_up: bool
    has_carrier: bool
    mac: bytes
    mtu: int
    has_agent: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A balancer that is attached here, of any version of xdplb: enough to take it down.

    Attributes:
        modes: How its program hangs on each interface, by the interface's index.
        restore: What its ``up`` changed outside, as far as this version can read that.
    """

    program_id: int
    modes: Mapping[int, Mode]
    restore: tuple[Restore, ...]

    @property
    def indexes(self) -> frozenset[int]:
        """The interfaces that it sits on."""
        return frozenset(self.modes)


@dataclass(frozen=True, slots=True)
class Running:
    """A balancer that runs in this network namespace.

    Attributes:
        records: Its ``backends`` maps, by IP version and number.
    """

    program_id: int
    tag: str
    state: State
    records: Mapping[int, tuple[BackendRecord, ...]]

    @property
    def indexes(self) -> frozenset[int]:
        """The interfaces that it sits on."""
        return frozenset(item.index for item in self.state.interfaces)


@dataclass(frozen=True, slots=True)
class Question:
    """A packet, and what is asked beside it.

    Attributes:
        frame: As it opens a flow; and ``goes_on``, as it follows others of its flow.
        ifindex: Where the packet comes in.
        keys: Where ``client_port`` would have its flow.
        service: The number of its service, and ``slot`` the place in that one's table.
    """

    frame: bytes
    goes_on: bytes
    ifindex: int
    keys: tuple[ClientKey, ...]
    service: int | None
    slot: int


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a balancer would do with a packet.

    Attributes:
        frame: What would leave, or what the kernel would get.
        backend: IP version and number of the backend that the packet would be counted for.
        chosen: Whom the table has in the slot that was asked for.
        known: The entry of ``client_port`` that there is for it, and the record it leads to.
        now: The time in ticks.
        is_same: It was asked of the very program that runs, by its tag.
    """

    verdict: str
    frame: bytes
    backend: tuple[int, int] | None
    chosen: int | None
    known: tuple[ClientKey, ClientValue, FlowRecord | None] | None
    now: int
    is_same: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """The counters of a running balancer for one IP version.

    Attributes:
        flows: Flows that have not timed out, by backend number.
        traffic: What has gone to and come from each, by backend number.
        shares: Entries of the Maglev table, by backend number.
        records: Flows that have a record, also those that have timed out.
    """

    flows: dict[int, int]
    traffic: Mapping[int, StatsRecord]
    shares: dict[int, int]
    records: int = 0


_Meant = TypeVar("_Meant")


def only(found: Sequence[_Meant], none: NotReadyError) -> _Meant:
    """The one balancer that can be meant.

    Args:
        found: Those that can.
        none: What to say where there is none.

    Raises:
        NotReadyError: There is none, or no telling which.
    """
    if not found:
        raise none
    if len(found) > 1:
        raise NotReadyError("several balancers are up", "say which one with --iface NAME")
    return found[0]
