"""What is asked for: services, the interfaces they are on, and the rules that both keep.

Whatever is refused here is refused before the machine is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from xdplb.errors import InvalidValueError
from xdplb.model import (
    ALL_PORTS,
    DEFAULT_TIMEOUTS,
    MAX_FLOWS_LIMIT,
    Hash,
    Mode,
    OnDown,
    Protocol,
    names,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from xdplb.checks import Health
    from xdplb.model import Address, Backend, BackendState, PortRange, Reservation, Timeouts

_IPV6_RESERVED: Final = (IPv6Network("::/96"), IPv6Network("::ffff:0:0/96"))
"""Unspecified, loopback, and IPv4 addresses in disguise (RFC 4291 2.5)."""


@dataclass(frozen=True, slots=True)
class Service:
    """What clients dial, and who answers.

    Attributes:
        backends: All of one IP version, which is the service's.
        address: What clients dial; None for the interface's own.
        name: What people call it; several may have one name, and differ in address or protocol.
        nat_addresses: Those that the balancer speaks from toward the backends; empty for
            ``address``. A client always gets the same one.
        reservations: Client endpoints that always get the same NAT port.
        on_down: What becomes of the flows of a backend that is down.
        one_way: Nobody answers, and nothing follows from that (syslog, NetFlow).
        health: How the backends are watched; None for not at all.
    """

    backends: tuple[Backend, ...]
    address: Address | None = None
    protocol: Protocol = Protocol.UDP
    ports: tuple[PortRange, ...] = ALL_PORTS
    hash: Hash = Hash.SRC_DST
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    name: str = ""
    nat_addresses: tuple[Address, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    on_down: OnDown = OnDown.REHASH
    one_way: bool = False
    health: Health | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is touched.

        Raises:
            InvalidValueError: With the value, the reason and what to do.
        """
        if not self.backends:
            raise InvalidValueError(f"{self} has no backend", "give it one")
        if self.protocol is Protocol.TCP and self.ports == ALL_PORTS:
            raise InvalidValueError(
                "tcp needs ports: with all of them the host could not be reached any more",
                "name them with --port",
            )
        _refuse_twice("backend", [f"{backend}" for backend in self.backends])
        _refuse_twice("reserved NAT port", [item.nat_port for item in self.reservations])
        _refuse_twice("reserved client", [item.client for item in self.reservations])
        _refuse_twice("NAT address", self.nat_addresses)
        refuse_overlap("--port", self.ports)
        if self.address is not None:
            refuse_no_host("service", self.address)
        for backend in self.backends:
            refuse_no_host("backend", backend.address)
            if backend.address == self.address:
                raise _is_the_service(backend)
        for address in self.nat_addresses:
            refuse_no_host("NAT address", address)
        for item in self.reservations:
            refuse_no_host("reserved client", item.client.address)
        self._refuse_mixture()

    def __str__(self) -> str:
        """Its name, or what clients dial."""
        dialled = "service" if self.address is None else f"{self.address}"
        if self.ports != ALL_PORTS:
            dialled += " port " + ",".join(f"{item}" for item in self.ports)
        return f"{self.name or dialled} {self.protocol}"

    @property
    def version(self) -> int:
        """The IP version."""
        return self.backends[0].address.version

    @property
    def dialled(self) -> Address:
        """The address that clients dial, which is known by now.

        Raises:
            ValueError: It is not.
        """
        if self.address is None:
            raise ValueError(self)
        return self.address

    @property
    def own_addresses(self) -> tuple[Address, ...]:
        """Those that the balancer speaks from toward the backends."""
        return self.nat_addresses or (self.dialled,)

    def is_called(self, text: str) -> bool:
        """Whether a person means this service: by its name, or by its address however written."""
        return names(text, self.name, self.address)

    def has_port_of(self, other: Service) -> bool:
        """Whether a port is both this service's and the ``other``'s."""
        return any(
            one.first <= two.last and two.first <= one.last
            for one in self.ports
            for two in other.ports
        )

    def _refuse_mixture(self) -> None:
        """Let everything be of one IP version.

        Raises:
            InvalidValueError: Something is of another one.
        """
        others: list[tuple[str, Address]] = [
            *(("backend", item.address) for item in self.backends),
            *(("NAT address", item) for item in self.nat_addresses),
            *(("reserved client", item.client.address) for item in self.reservations),
        ]
        version = self.version if self.address is None else self.address.version
        for what, address in others:
            if address.version != version:
                raise InvalidValueError(
                    f"{what} {address} is IPv{address.version}, the service is IPv{version}: "
                    "addresses of one version are not translated into the other",
                    "give each IP version a service of its own",
                )


def _is_the_service(backend: Backend) -> InvalidValueError:
    return InvalidValueError(
        f"backend {backend} is the service itself",
        "give the address of a server behind the balancer",
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What is to run.

    Attributes:
        services: All of them; several may share an address, with other ports or another protocol.
        max_flows: Flows to make room for, for each IP version; None for what runs, or
            DEFAULT_MAX_FLOWS.
        nat_ports: Ports that flows may get; empty for what runs, or the default pool.
        vlan: Tagged frames are balanced, too.
        max_client_flows: Flows that one client may have, an IPv4 address or an IPv6 network of
            64 bits; 0 for no limit, None for half of the NAT ports of a backend.
        secret: The file that the keys of the hash come of, an absolute path; None for what runs, or
            keys of its own.
        virtual_mac: MAC addresses that frames may have, too, beside the interface's own.
    """

    interfaces: tuple[str, ...]
    services: tuple[Service, ...]
    mode: Mode = Mode.AUTO
    max_flows: int | None = None
    nat_ports: tuple[PortRange, ...] = ()
    vlan: bool = True
    max_client_flows: int | None = None
    secret: Path | None = None
    virtual_mac: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is touched.

        Raises:
            InvalidValueError: With the value, the reason and what to do.
        """
        if not self.interfaces or not self.services:
            raise InvalidValueError(
                "nothing is to be balanced", "name an interface and a service with a backend"
            )
        _refuse_twice("interface", self.interfaces)
        _refuse_twice("--virtual-mac", self.virtual_mac)
        refuse_overlap("--nat-ports", self.nat_ports)
        self._refuse_conflicts()
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
        return tuple(sorted({service.version for service in self.services}))

    def of(self, version: int) -> tuple[Service, ...]:
        """The services of one IP version."""
        return tuple(item for item in self.services if item.version == version)

    @property
    def backends(self) -> tuple[Backend, ...]:
        """All backends, each once."""
        every = (backend for service in self.services for backend in service.backends)
        return tuple({item.place: item for item in every}.values())

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses that the balancer has: those that clients dial, and those it speaks from.

        Where a service has none yet, what ``with_addresses`` would give it is missing.
        """
        return tuple(
            dict.fromkeys(
                address
                for service in self.services
                for address in (service.address, *service.nat_addresses)
                if address is not None
            )
        )

    def with_addresses(self, own: Mapping[int, Address]) -> Request:
        """The request again, with the interface's ``own`` addresses where a service has none.

        Raises:
            InvalidValueError: That makes two services one, or a backend the service.
        """
        return replace(
            self,
            services=tuple(
                item if item.address is not None else replace(item, address=own[item.version])
                for item in self.services
            ),
        )

    def with_states(self, state_of: Callable[[Service, Backend], BackendState]) -> Request:
        """The request again, with other states of backends.

        Args:
            state_of: The state of a backend of a service.
        """
        return replace(
            self,
            services=tuple(
                replace(
                    service,
                    backends=tuple(
                        replace(item, state=state_of(service, item)) for item in service.backends
                    ),
                )
                for service in self.services
            ),
        )

    def _refuse_conflicts(self) -> None:
        """Let every packet be for one service, and no backend be an address of the balancer.

        Raises:
            InvalidValueError: Two services have a port in common, or a backend is the balancer.
        """
        addresses = frozenset(self.addresses)
        for number, one in enumerate(self.services):
            for other in self.services[:number]:
                self._refuse_pair(other, one)
            for backend in one.backends:
                if backend.address in addresses:
                    raise _is_the_service(backend)

    @staticmethod
    def _refuse_pair(one: Service, other: Service) -> None:
        if one.version != other.version:
            return
        same = (one.address, one.protocol) == (other.address, other.protocol)
        if same and one.has_port_of(other):
            raise InvalidValueError(
                f"{one} and {other} have a port in common", "give each port to one service only"
            )


def simple_request(  # noqa: PLR0913 - one argument for each option of ``xdplb up``
    interfaces: tuple[str, ...],
    backends: tuple[Backend, ...],
    services: tuple[Address, ...] = (),
    *,
    protocols: tuple[Protocol, ...] = (Protocol.UDP,),
    ports: tuple[PortRange, ...] = ALL_PORTS,
    hash: Hash = Hash.SRC_DST,  # noqa: A002 - as the option is called
    timeouts: Timeouts = DEFAULT_TIMEOUTS,
    reservations: tuple[Reservation, ...] = (),
    on_down: OnDown = OnDown.REHASH,
    **more: Any,  # noqa: ANN401 - the rest of Request
) -> Request:
    """One set of backends for one address of each IP version, as ``xdplb up`` names them.

    Args:
        interfaces: As in Request, like everything in ``more``.
        backends: Of both IP versions.
        services: What clients dial, at most one address of each IP version; empty for the
            interface's own of the backends' version.
        protocols: Each makes a service of each address.
        ports: As in Service, like everything that follows.
        hash: What of a packet chooses the backend.
        timeouts: Idle seconds after which a flow may lose its port.
        reservations: Client endpoints that always get the same NAT port.
        on_down: What becomes of the flows of a backend that is down.
        more: See Request.

    Raises:
        InvalidValueError: With the value, the reason and what to do.
    """
    _refuse_twice("protocol", protocols)
    _refuse_twice("backend", [f"{backend}" for backend in backends])
    _refuse_twice("IP version of --service", [f"{item.version}" for item in services])
    versions = sorted({backend.address.version for backend in backends})
    _refuse_mixture(backends, services, versions)
    for item in reservations:
        if item.client.address.version not in versions:
            raise InvalidValueError(
                f"--client {item} is IPv{item.client.address.version}, no service is",
                "a client dials an address of its own IP version",
            )
    dialled = {item.version: item for item in services}
    return Request(
        interfaces=interfaces,
        services=tuple(
            Service(
                backends=tuple(item for item in backends if item.address.version == version),
                address=dialled.get(version),
                protocol=protocol,
                ports=ports,
                hash=hash,
                timeouts=timeouts,
                reservations=tuple(
                    item for item in reservations if item.client.address.version == version
                ),
                on_down=on_down,
            )
            for version in versions
            for protocol in protocols
        ),
        **more,
    )


def _refuse_mixture(
    backends: tuple[Backend, ...], services: tuple[Address, ...], versions: Sequence[int]
) -> None:
    """Let each service have backends of its own IP version, and each backend a service.

    Raises:
        InvalidValueError: One has none.
    """
    if not services and len(versions) > 1:
        raise InvalidValueError(
            "backends of both IPv4 and IPv6 belong to two services",
            "name an address of each with --service, twice; or leave the backends of one out",
        )
    dialled = {item.version for item in services}
    for backend in backends:
        if services and backend.address.version not in dialled:
            raise InvalidValueError(
                f"backend {backend} is IPv{backend.address.version}, the service "
                f"{services[0]} is not: addresses of one version are not translated "
                "into the other",
                f"give the service an IPv{backend.address.version} address, too, with "
                "another --service; or leave the backend out",
            )
    for service in services:
        if service.version not in versions:
            raise InvalidValueError(
                f"service {service} has no IPv{service.version} backend",
                "give it one with --backend, or leave the service out",
            )


def _refuse_twice(what: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise InvalidValueError(f"{what} {value} is given twice", "give it once")
        seen.add(value)


def refuse_overlap(option: str, ranges: tuple[PortRange, ...]) -> None:
    """Let each port be in one of an option's ranges only.

    Raises:
        InvalidValueError: Two ranges have one in common.
    """
    ordered = sorted(ranges)
    for before, after in pairwise(ordered):
        if after.first <= before.last:
            raise InvalidValueError(
                f"{option} {before} and {after} overlap", "give each port in one range only"
            )


def refuse_no_host(what: str, address: Address) -> None:
    """Let ``address`` be one that a single host can have.

    Raises:
        InvalidValueError: It is one of many hosts, of one link, or of nobody.
    """
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
