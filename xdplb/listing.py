"""Which flows there are: picked out of all of them, as they are saved, for a person to read."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nsmallest
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

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
    found = [
        (packed, part) for part in saved.parts for packed in _matching(part, saved.states, wanted)
    ]
    order = nsmallest(len(found) if limit is None else limit, found, key=lambda it: it[0].idle_ms)
    return Listing(tuple(_flow(packed, part, saved) for packed, part in order), len(found))


def _matching(part: Part, states: Sequence[str], wanted: Wanted) -> Iterator[_Packed]:
    """The flows of one IP version that are meant; most are refused by their bytes."""
    lanes = {number for number, lane in enumerate(part.lanes) if _lane_is_meant(lane, wanted)}
    network = wanted.clients
    if not lanes or (network is not None and network.version != part.version):
        return
    shift = network.max_prefixlen - network.prefixlen if network is not None else 0
    prefix = int(network.network_address) >> shift if network is not None else 0
    client_port = _port_bytes(wanted.client_port)
    nat_port = _port_bytes(wanted.nat_port)
    for values in FLOW[part.version].iter_unpack(part.flows):
        packed = _Packed._make(values)
        if (
            packed.lane in lanes
            and client_port in {None, packed.client_port}
            and nat_port in {None, packed.nat_port}
            and (network is None or int.from_bytes(packed.client, "big") >> shift == prefix)
            and wanted.state in {None, states[packed.state]}
            and _port_is_meant(part.lanes[packed.lane], packed, wanted)
        ):
            yield packed


def _port_bytes(port: int | None) -> bytes | None:
    return None if port is None else port.to_bytes(2, "big")


def _lane_is_meant(lane: Lane, wanted: Wanted) -> bool:
    return wanted.backend in {None, lane.backend} and wanted.nat_address in {
        None,
        lane.nat_address,
    }


def _port_is_meant(lane: Lane, packed: _Packed, wanted: Wanted) -> bool:
    """Whether the port that was dialled, and the backend's, are meant."""
    dialled = int.from_bytes(packed.service_port, "big")
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
