"""The words of the product as values: what a user asks for, and what runs.

Plain data and the rules it keeps by itself; nothing here knows of the kernel, of byte
order or of the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterable

Address: TypeAlias = IPv4Address | IPv6Address

IPV4: Final = 4
IPV6: Final = 6
_IPV6_RESERVED: Final = (IPv6Network("::/96"), IPv6Network("::ffff:0:0/96"))
"""Unspecified, loopback, and IPv4 addresses in disguise (RFC 4291 2.5)."""

MAX_PORT: Final = 65535
MAX_WEIGHT: Final = 65535
MAX_BACKENDS: Final = 32768
DEFAULT_MAX_FLOWS: Final = 262_144
MAX_FLOWS_LIMIT: Final = 1 << 28
DEFAULT_UNREPLIED_S: Final = 30
DEFAULT_ANSWERED_S: Final = 120
DEFAULT_TRANSITORY_S: Final = 240
DEFAULT_ESTABLISHED_S: Final = 7440


class Protocol(StrEnum):
    """What is balanced."""

    UDP = "udp"
    TCP = "tcp"

    @property
    def number(self) -> int:
        """As it stands in an IP header (IANA)."""
        return 17 if self is Protocol.UDP else 6


class Hash(StrEnum):
    """What of a packet chooses the backend."""

    SRC_DST = "src-dst"
    FIVE_TUPLE = "5-tuple"
    SRC = "src"


class Mode(StrEnum):
    """How the program hangs on the interface; AUTO is only ever a wish."""

    AUTO = "auto"
    NATIVE = "native"
    GENERIC = "generic"


class BackendState(StrEnum):
    """UP takes new flows, DRAIN keeps old ones, DOWN has none."""

    UP = "up"
    DRAIN = "drain"
    DOWN = "down"


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Ports ``first`` to ``last``, both included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        """Refuse what is no range of ports.

        Raises:
            InvalidValueError: An end is not 1 to 65535, or they stand the wrong way round.
        """
        for port in (self.first, self.last):
            if not 1 <= port <= MAX_PORT:
                raise InvalidValueError(
                    f"port {port} is out of range", f"ports are 1 to {MAX_PORT}"
                )
        if self.first > self.last:
            raise InvalidValueError(
                f"port range {self} is empty",
                f"write the lower port first: {self.last}-{self.first}",
            )

    def __str__(self) -> str:
        """``N`` or ``N-M``, as it is written on the command line."""
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"

    def __contains__(self, port: int) -> bool:
        """Whether ``port`` is in the range."""
        return self.first <= port <= self.last

    @property
    def count(self) -> int:
        """How many ports it has."""
        return self.last - self.first + 1


ALL_PORTS: Final = (PortRange(1, MAX_PORT),)


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address and a port."""

    address: Address
    port: int

    def __post_init__(self) -> None:
        """Refuse a port that is none.

        Raises:
            InvalidValueError: The port is not 1 to 65535.
        """
        PortRange(self.port, self.port)

    def __str__(self) -> str:
        """``ADDR:PORT``, an IPv6 address in brackets (RFC 3986)."""
        return f"{bracketed(self.address)}:{self.port}"


def bracketed(address: Address) -> str:
    """An address as it stands before a colon and a port."""
    return f"[{address}]" if address.version == IPV6 else f"{address}"


@dataclass(frozen=True, slots=True)
class Backend:
    """One server.

    Attributes:
        address: Where it answers.
        port: Its port, or None to keep the port that the client dialled.
        weight: Its share of the selections, relative to the others'.
        state: Whether it gets new flows; one that is asked for with ``up`` does.
    """

    address: Address
    port: int | None = None
    weight: int = 1
    state: BackendState = BackendState.UP

    def __post_init__(self) -> None:
        """Refuse a weight that no record can hold.

        Raises:
            InvalidValueError: The weight is not 0 to 65535.
        """
        if not 0 <= self.weight <= MAX_WEIGHT:
            raise InvalidValueError(
                f"weight {self.weight} is out of range", f"weights are 0 to {MAX_WEIGHT}"
            )

    def __str__(self) -> str:
        """``ADDR`` or ``ADDR:PORT``, an IPv6 address before a port in brackets."""
        return f"{self.address}" if self.port is None else f"{bracketed(self.address)}:{self.port}"


@dataclass(frozen=True, slots=True, order=True)
class Reservation:
    """A client endpoint that is always given the same NAT port."""

    client: Endpoint
    nat_port: int

    def __post_init__(self) -> None:
        """Refuse a port that is none.

        Raises:
            InvalidValueError: The NAT port is not 1 to 65535.
        """
        PortRange(self.nat_port, self.nat_port)

    def __str__(self) -> str:
        """``ADDR:PORT=NATPORT``."""
        return f"{self.client}={self.nat_port}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Idle seconds after which a flow may lose its port.

    Attributes:
        unreplied: UDP that no backend has answered.
        answered: UDP that one has (RFC 4787 REQ-5).
        transitory: TCP not yet, or not any more, established (RFC 5382 REQ-5).
        established: TCP.
    """

    unreplied: int = DEFAULT_UNREPLIED_S
    answered: int = DEFAULT_ANSWERED_S
    transitory: int = DEFAULT_TRANSITORY_S
    established: int = DEFAULT_ESTABLISHED_S


@dataclass(frozen=True, slots=True)
class Request:
    """What ``xdplb up`` was asked for.

    Attributes:
        services: The addresses that clients dial, at most one of each IP version; empty for
            the interface's own of the backends' version.
        max_flows: Flows to make room for; None for what runs, or DEFAULT_MAX_FLOWS.
        nat_ports: Ports that flows may get; empty for what runs, or the default pool.
        timeouts: Idle seconds after which a flow may lose its port.
        vlan: Tagged frames are balanced, too.
        max_client_flows: Flows that one client may have, an IPv4 address or an IPv6 network of
            64 bits; 0 for no limit, None for half of the NAT ports of a backend.
    """

    interfaces: tuple[str, ...]
    backends: tuple[Backend, ...]
    services: tuple[Address, ...] = ()
    protocols: tuple[Protocol, ...] = (Protocol.UDP,)
    ports: tuple[PortRange, ...] = ALL_PORTS
    hash: Hash = Hash.SRC_DST
    mode: Mode = Mode.AUTO
    reservations: tuple[Reservation, ...] = ()
    max_flows: int | None = None
    nat_ports: tuple[PortRange, ...] = ()
    timeouts: Timeouts = Timeouts()
    vlan: bool = True
    max_client_flows: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is touched.

        Raises:
            InvalidValueError: With the value, the reason and what to do.
        """
        _refuse_twice("protocol", self.protocols)
        if Protocol.TCP in self.protocols and self.ports == ALL_PORTS:
            raise InvalidValueError(
                "tcp needs ports: with all of them the host could not be reached any more",
                "name them with --port",
            )
        _refuse_twice("interface", self.interfaces)
        _refuse_twice("backend", [f"{backend}" for backend in self.backends])
        _refuse_twice("reserved NAT port", [item.nat_port for item in self.reservations])
        _refuse_twice("reserved client", [item.client for item in self.reservations])
        _refuse_overlap("--port", self.ports)
        _refuse_overlap("--nat-ports", self.nat_ports)
        for backend in self.backends:
            if backend.address in self.services:
                raise InvalidValueError(
                    f"backend {backend} is the service itself",
                    "give the address of a server behind the balancer",
                )
            _refuse_no_host("backend", backend.address)
        for service in self.services:
            _refuse_no_host("service", service)
        self._refuse_mixture()
        for item in self.reservations:
            _refuse_no_host("reserved client", item.client.address)
        if self.max_flows is not None and not 1 <= self.max_flows <= MAX_FLOWS_LIMIT:
            raise InvalidValueError(
                f"--max-flows {self.max_flows} is out of range", f"it is 1 to {MAX_FLOWS_LIMIT}"
            )
        if not 0 <= (self.max_client_flows or 0) <= MAX_FLOWS_LIMIT:
            raise InvalidValueError(
                f"--max-client-flows {self.max_client_flows} is out of range",
                f"it is 0, for no limit, to {MAX_FLOWS_LIMIT}",
            )

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that are balanced."""
        return tuple(sorted({backend.address.version for backend in self.backends}))

    def _refuse_mixture(self) -> None:
        """Let each service have backends of its own IP version, and each backend a service.

        Raises:
            InvalidValueError: One has none.
        """
        _refuse_twice("IP version of --service", [f"{item.version}" for item in self.services])
        if not self.services and len(self.versions) > 1:
            raise InvalidValueError(
                "backends of both IPv4 and IPv6 belong to two services",
                "name an address of each with --service, twice; or leave the backends of one out",
            )
        of_services = {item.version: item for item in self.services}
        for backend in self.backends:
            if of_services and backend.address.version not in of_services:
                raise InvalidValueError(
                    f"backend {backend} is IPv{backend.address.version}, the service "
                    f"{self.services[0]} is not: addresses of one version are not translated "
                    "into the other",
                    f"give the service an IPv{backend.address.version} address, too, with "
                    "another --service; or leave the backend out",
                )
        for service in self.services:
            if service.version not in self.versions:
                raise InvalidValueError(
                    f"service {service} has no IPv{service.version} backend",
                    "give it one with --backend, or leave the service out",
                )
        for item in self.reservations:
            if item.client.address.version not in self.versions:
                raise InvalidValueError(
                    f"--client {item} is IPv{item.client.address.version}, no service is",
                    "a client dials an address of its own IP version",
                )


def _refuse_twice(what: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise InvalidValueError(f"{what} {value} is given twice", "give it once")
        seen.add(value)


def _refuse_overlap(option: str, ranges: tuple[PortRange, ...]) -> None:
    ordered = sorted(ranges)
    for before, after in pairwise(ordered):
        if after.first <= before.last:
            raise InvalidValueError(
                f"{option} {before} and {after} overlap", "give each port in one range only"
            )


def _refuse_no_host(what: str, address: Address) -> None:
    kind = ""
    if address.is_multicast:
        kind = "a multicast address"
    elif address.is_loopback:
        kind = "a loopback address"
    elif isinstance(address, IPv6Address):
        if address.scope_id:
            kind = "an address of one link (it has a zone)"
        elif address.is_link_local:
            kind = "a link-local address, which no router passes on"
        elif any(address in network for network in _IPV6_RESERVED):
            kind = "no host's address"
    elif address.is_reserved or address.packed[0] == 0:
        kind = "no host's address"
    if kind:
        raise InvalidValueError(f"{what} {address} is {kind}", "give the address of one host")


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One backend as it runs; counts are since the first ``up``.

    Attributes:
        mac: The next hop's MAC address, None while nobody has answered for it.
        flows: Flows that have not timed out.
        packets_in: Packets toward the backend; ``out`` is from it. Bytes are of IP packets.
    """

    number: int
    backend: Backend
    state: BackendState
    mac: str | None
    next_hop: Address
    interface: str
    share: float
    flows: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One protocol of a running balancer, and who answers it."""

    address: Address
    protocol: Protocol
    ports: tuple[PortRange, ...]
    hash: Hash
    backends: tuple[BackendStatus, ...]


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """One interface that carries the program."""

    name: str
    index: int
    mode: Mode


@dataclass(frozen=True, slots=True)
class BalancerStatus:
    """One running balancer.

    Attributes:
        program_tag: The kernel's hash of the program.
        verdicts: Packets by verdict, in the program's order.
    """

    interfaces: tuple[InterfaceStatus, ...]
    program_id: int
    program_tag: str
    version: str
    services: tuple[ServiceStatus, ...]
    flows: int
    capacity: int
    nat_ports_used: int
    nat_ports_total: int
    verdicts: dict[str, int] = field(default_factory=dict)
