"""Which flows there are: picked out of all of them, as they are saved, for a person to read."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nsmallest
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from xdplb.model import Endpoint
from xdplb.saved import FLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from xdplb.model import Address, Protocol
    from xdplb.saved import Lane, Part, Saved


class _Packed(NamedTuple):
    """A flow as it is saved; addresses and ports lie in network order."""

    client: bytes
    client_port: bytes
    service_port: bytes
    nat_port: bytes
    lane: int
    idle_ms: int
    state: int
    interface: int
    mac: bytes
    tags: bytes


_Values: TypeAlias = "tuple[Any, ...]"
"""The fields of ``_Packed``, without the cost of one for each of a million flows."""
_IDLE: Final = _Packed._fields.index("idle_ms")


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow.

    Attributes:
        service: What the client dialled.
        nat: The address and port that the backend sees.
        idle_s: Seconds since its last packet, to about one.
    """

    client: Endpoint
    service: Endpoint
    protocol: Protocol
    backend: Endpoint
    nat: Endpoint
    state: str
    idle_s: float
    interface: str

    @property
    def name(self) -> FlowName:
        """What no other flow has."""
        return FlowName(self.client, self.service, self.protocol)


class FlowName(NamedTuple):
    """What a client calls its flow."""

    client: Endpoint
    service: Endpoint
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which flows are meant; what is None or empty means all.

    Attributes:
        clients: The network of the client, one address long or more; and ``client_port``.
        backend: The backend's address; and ``backend_port``.
        services: What it dialled: address, protocol and a port of it.
        nat_port: What the backend sees; and ``nat_address``.
    """

    clients: IPv4Network | IPv6Network | None = None
    client_port: int | None = None
    backend: Address | None = None
    backend_port: int | None = None
    services: Callable[[Address, Protocol, int], bool] | None = None
    state: str | None = None
    nat_port: int | None = None
    nat_address: Address | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Some flows, those that were seen last first, and how many there are."""

    flows: tuple[Flow, ...]
    total: int


def pick(saved: Saved, wanted: Wanted, limit: int | None = None) -> Listing:
    """Pick flows out of all that there are.

    Args:
        saved: All of them.
        wanted: Which are meant.
        limit: The most to return, those that were seen last; None for all.
    """
    total = 0

    def found() -> Iterator[tuple[_Values, Part]]:
        nonlocal total
        for part in saved.parts:
            for values in _matching(part, saved.states, wanted):
                total += 1
                yield values, part

    def by_idle(item: tuple[_Values, Part]) -> int:
        return int(item[0][_IDLE])

    order = (
        sorted(found(), key=by_idle) if limit is None else nsmallest(limit, found(), key=by_idle)
    )
    return Listing(
        tuple(_flow(_Packed._make(values), part, saved) for values, part in order), total
    )


def _matching(part: Part, states: Sequence[str], wanted: Wanted) -> Iterator[_Values]:
    """The flows of one IP version that are meant; most are refused by their bytes."""
    lanes = {number for number, lane in enumerate(part.lanes) if _lane_is_meant(lane, wanted)}
    network = wanted.clients
    if not lanes or (network is not None and network.version != part.version):
        return
    shift = network.max_prefixlen - network.prefixlen if network is not None else 0
    prefix = int(network.network_address) >> shift if network is not None else 0
    client_port = _port_bytes(wanted.client_port)
    nat_port = _port_bytes(wanted.nat_port)
    codes = {code for code, name in enumerate(states) if wanted.state in {None, name}}
    has_port = wanted.backend_port is not None or wanted.services is not None
    for values in FLOW[part.version].iter_unpack(part.flows):
        client, port, dialled, nat, lane, _, state, *_ = values
        if (
            (nat_port is None or nat == nat_port)
            and (client_port is None or port == client_port)
            and lane in lanes
            and state in codes
            and (network is None or int.from_bytes(client, "big") >> shift == prefix)
            and (not has_port or _port_is_meant(part.lanes[lane], dialled, wanted))
        ):
            yield values


def _port_bytes(port: int | None) -> bytes | None:
    return None if port is None else port.to_bytes(2, "big")


def _lane_is_meant(lane: Lane, wanted: Wanted) -> bool:
    return wanted.backend in {None, lane.backend} and wanted.nat_address in {
        None,
        lane.nat_address,
    }


def _port_is_meant(lane: Lane, port: bytes, wanted: Wanted) -> bool:
    """Whether the port that was dialled, and the backend's, are meant."""
    dialled = int.from_bytes(port, "big")
    if wanted.backend_port is not None and wanted.backend_port != (lane.port or dialled):
        return False
    return wanted.services is None or wanted.services(lane.service, lane.protocol, dialled)


def _flow(packed: _Packed, part: Part, saved: Saved) -> Flow:
    lane = part.lanes[packed.lane]
    dialled = int.from_bytes(packed.service_port, "big")
    return Flow(
        client=Endpoint(ip_address(packed.client), int.from_bytes(packed.client_port, "big")),
        service=Endpoint(lane.service, dialled),
        protocol=lane.protocol,
        backend=Endpoint(lane.backend, lane.port or dialled),
        nat=Endpoint(lane.nat_address, int.from_bytes(packed.nat_port, "big")),
        state=saved.states[packed.state],
        idle_s=packed.idle_ms / 1000,
        interface=saved.interfaces[packed.interface],
    )
