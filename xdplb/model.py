"""The words of the product as values.

Plain data and the rules it keeps by itself; nothing here knows of the kernel, of byte
order or of the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, TypeAlias

from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Address: TypeAlias = IPv4Address | IPv6Address

IPV4: Final = 4
IPV6: Final = 6

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


class OnDown(StrEnum):
    """What becomes of the flows of a backend that is DOWN: another one takes them, or nobody."""

    REHASH = "rehash"
    DROP = "drop"


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
    """An address and a port; port 0 stands in packets alone, nobody can ask for it."""

    address: Address
    port: int

    def __post_init__(self) -> None:
        """Refuse a port that is none.

        Raises:
            InvalidValueError: The port is not 0 to 65535.
        """
        if self.port:
            PortRange(self.port, self.port)

    def __str__(self) -> str:
        """``ADDR:PORT``, an IPv6 address in brackets (RFC 3986)."""
        return f"{bracketed(self.address)}:{self.port}"


def bracketed(address: Address) -> str:
    """An address as it stands before a colon and a port."""
    return f"[{address}]" if address.version == IPV6 else f"{address}"


def names(text: str, name: str, address: Address | None) -> bool:
    """Whether ``text`` is the ``name`` of a service, or its ``address`` however it is written."""
    try:
        return text == name or ip_address(text) == address
    except ValueError:
        return False


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

    @property
    def place(self) -> tuple[Address, int | None]:
        """Its address and port: what tells it from the other backends of its service."""
        return self.address, self.port


@dataclass(frozen=True, slots=True, order=True)
class Reservation:
    """A client endpoint that is always given the same NAT port."""

    client: Endpoint
    nat_port: int

    def __post_init__(self) -> None:
        """Refuse a port that is none.

        Raises:
            InvalidValueError: A port is not 1 to 65535.
        """
        for port in (self.client.port, self.nat_port):
            PortRange(port, port)

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


DEFAULT_TIMEOUTS: Final = Timeouts()


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that is not as it should be, for a person to know.

    Attributes:
        what: What is so, one clause without a full stop.
        hint: What to do about it.
    """

    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """One backend as it runs; counts are since the first ``up``.

    Attributes:
        mac: The next hop's MAC address, None while nobody has answered for it.
        share: The part of new flows that it gets.
        flows: Flows that have not timed out.
        packets_in: Packets toward the backend; ``out`` is from it. Bytes are of IP packets.
        refused: ICMP errors that say that nobody is at its port.
        expected_share: The part that its weight has among those of the backends that are up.
        nat_ports_used: NAT ports in use of those toward it, which others may share with it.
        nat_ports_total: How many of them there are.
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
    refused: int = 0
    expected_share: float = 0.0
    nat_ports_used: int = 0
    nat_ports_total: int = 0

    @property
    def takes_traffic(self) -> bool:
        """Whether new flows can reach it."""
        able = self.state is BackendState.UP and self.mac is not None
        return able and self.backend.weight > 0

    @property
    def nat_ports_fill(self) -> float:
        """The part of the NAT ports toward it that is in use."""
        return _part(self.nat_ports_used, self.nat_ports_total)


def port_list(ports: Sequence[PortRange]) -> str:
    """Ports as they are asked for."""
    return "all" if tuple(ports) == ALL_PORTS else ",".join(f"{item}" for item in ports)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service of a running balancer, and who answers it; most have no name."""

    name: str
    address: Address
    protocol: Protocol
    ports: tuple[PortRange, ...]
    hash: Hash
    backends: tuple[BackendStatus, ...]

    def __str__(self) -> str:
        """Its name, or what clients dial."""
        ports = "" if self.ports == ALL_PORTS else f" port {self.port_list}"
        return f"{self.name or f'{self.address}{ports}'} {self.protocol}"

    @property
    def port_list(self) -> str:
        """The ports as they are asked for."""
        return port_list(self.ports)


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """One interface of a running balancer.

    Attributes:
        attached: It carries the program; else it has gone, or carries another one.
    """

    name: str
    index: int
    mode: Mode
    attached: bool = True


@dataclass(frozen=True, slots=True)
class MapStatus:
    """How full one of the program's maps is.

    Attributes:
        version: The IP version that it is for.
        name: Its name in the kernel.
    """

    version: int
    name: str
    entries: int
    capacity: int


@dataclass(frozen=True, slots=True)
class BalancerStatus:
    """One running balancer.

    Attributes:
        program_tag: The kernel's hash of the program.
        verdicts: Packets by verdict, in the program's order.
        warnings: What a person should know of.
        maps: Those that can become full.
        secret: The file that the keys of the hash came of; None where they are its own.
        draining: It is to be taken down when its clients are elsewhere.
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
    warnings: tuple[Advice, ...] = ()
    maps: tuple[MapStatus, ...] = ()
    secret: Path | None = None
    draining: bool = False

    @property
    def backends(self) -> tuple[BackendStatus, ...]:
        """Those of all services."""
        return tuple(backend for service in self.services for backend in service.backends)

    @property
    def flows_fill(self) -> float:
        """The part of the flow table that is in use."""
        return _part(self.flows, self.capacity)

    @property
    def nat_ports_fill(self) -> float:
        """The part of the NAT ports that is in use."""
        return _part(self.nat_ports_used, self.nat_ports_total)

    @property
    def fullest(self) -> BackendStatus | None:
        """The backend with the fewest NAT ports left, relative to all that there are toward it."""
        return max(self.backends, key=lambda item: item.nat_ports_fill, default=None)


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """A client, or the first address of an IPv6 /64, and how many flows it has."""

    address: Address
    flows: int

    def __str__(self) -> str:
        """Its address, or the network."""
        return f"{self.address}/64" if self.address.version == IPV6 else f"{self.address}"


@dataclass(frozen=True, slots=True)
class Clients:
    """How many clients a balancer has, and those with the most flows."""

    total: int
    first: tuple[ClientStatus, ...]


def _part(used: int, total: int) -> float:
    return used / total if total else 0.0
