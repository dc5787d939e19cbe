"""The balancer for Python programs: ``from xdplb import Balancer``.

Values are written as on the command line, and come back as those of ``xdplb.model``.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from xdplb import live
from xdplb.balancer import Balancer as _Operations
from xdplb.errors import InvalidValueError
from xdplb.kernel import netns
from xdplb.kernel.machine import Machine
from xdplb.listing import Wanted, pick
from xdplb.model import ALL_PORTS, DEFAULT_TIMEOUTS, Hash, Mode, OnDown, Protocol, Timeouts
from xdplb.parsing import (
    parse_address,
    parse_backend,
    parse_clients,
    parse_mac,
    parse_ports,
    parse_reservation,
)
from xdplb.request import simple_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from xdplb.listing import Flow
    from xdplb.model import Backend, BackendStatus, BalancerStatus
    from xdplb.startup import Report

_Kind = TypeVar("_Kind", bound=StrEnum)


class Balancer:
    """The balancer on some interfaces, whether it is up or not.

    Nothing is kept between two calls: what is asked for is read from the kernel. Each call can
    raise ``XdplbError``; its ``hint`` says what to do next. Nothing else is raised but for a bug.
    A program that uses asyncio calls from a thread, with ``asyncio.to_thread``.
    """

    def __init__(self, interface: str, *more: str, netns: str | None = None) -> None:
        """Mean the balancer on an interface.

        Args:
            interface: Its name.
            more: Those of others that it sits on, too.
            netns: The network namespace that it is in: a name of ``ip netns`` or a path; None
                for that of the calling thread.
        """
        self._interfaces = (interface, *more)
        self._netns = netns

    @contextmanager
    def _operations(self) -> Iterator[_Operations]:
        """What can be done in the namespace, for as long as this thread is in it."""
        with netns.visit(self._netns), Machine() as machine:
            yield _Operations(machine)

    def up(  # noqa: PLR0913 - one argument for each option of ``xdplb up``
        self,
        backends: Iterable[str],
        *,
        services: Iterable[str] = (),
        ports: Iterable[int | str] = (),
        protocols: Iterable[str] = (Protocol.UDP,),
        hash: str = Hash.SRC_DST,  # noqa: A002 - as the option is called
        mode: str = Mode.AUTO,
        clients: Iterable[str] = (),
        max_flows: int | None = None,
        max_client_flows: int | None = None,
        nat_ports: Iterable[int | str] = (),
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        on_down: str = OnDown.REHASH,
        vlan: bool = True,
        secret: str | None = None,
        virtual_mac: Iterable[str] = (),
    ) -> Report:
        """Start it, or change it where it runs and keep its flows.

        Args:
            backends: Servers, ``ADDR`` or ``ADDR:PORT``.
            services: Addresses that clients dial; empty for the interface's own.
            ports: Those that clients dial, numbers or ``N-M``; empty for all.
            protocols: ``udp`` or ``tcp`` or both.
            hash: What of a packet chooses the backend: ``src-dst``, ``5-tuple`` or ``src``.
            mode: ``auto``, ``native`` or ``generic``.
            clients: Reservations, ``ADDR:PORT=NATPORT``.
            max_flows: Flows to make room for; None for what runs, or the default.
            max_client_flows: Flows that one client may have; 0 for no limit.
            nat_ports: Ports that flows may get; empty for what runs, or the default.
            timeouts: Idle seconds after which a flow may lose its port.
            on_down: ``rehash`` or ``drop``.
            vlan: Balance frames with VLAN tags, too.
            secret: The file that the keys of the hash come of; None for what runs, or keys of its
                own.
            virtual_mac: MAC addresses that frames may have, too, beside the interface's own.

        Returns:
            What runs now, and what is still missing.
        """
        request = simple_request(
            self._interfaces,
            tuple(map(parse_backend, backends)),
            tuple(map(parse_address, services)),
            ports=tuple(parse_ports(f"{item}") for item in ports) or ALL_PORTS,
            protocols=tuple(_kind(Protocol, item) for item in protocols),
            hash=_kind(Hash, hash),
            mode=_kind(Mode, mode),
            reservations=tuple(map(parse_reservation, clients)),
            max_flows=max_flows,
            max_client_flows=max_client_flows,
            nat_ports=tuple(parse_ports(f"{item}") for item in nat_ports),
            timeouts=timeouts,
            on_down=_kind(OnDown, on_down),
            vlan=vlan,
            secret=None if secret is None else Path(secret).absolute(),
            virtual_mac=tuple(map(parse_mac, virtual_mac)),
        )
        with self._operations() as operations:
            return operations.up(request)

    def down(self) -> bool:
        """End it, and put back what ``up`` changed; whether anything was up."""
        with self._operations() as operations:
            return bool(operations.down(self._interfaces))

    def status(self) -> BalancerStatus | None:
        """What there is to know of it; None where it is not up."""
        wanted = set(self._interfaces)
        with self._operations() as operations:
            return next(
                (
                    item
                    for item in operations.status()
                    if wanted & {interface.name for interface in item.interfaces}
                ),
                None,
            )

    def backends(self) -> list[BackendStatus]:
        """The backends of all its services; none where it is not up."""
        found = self.status()
        return [item for one in found.services for item in one.backends] if found else []

    def flows(
        self, *, client: str | None = None, backend: str | None = None, limit: int | None = None
    ) -> tuple[Flow, ...]:
        """Its live flows, those that were seen last first.

        Args:
            client: Only those of this ``ADDR``, ``ADDR:PORT`` or network.
            backend: Only those toward this backend.
            limit: The most to return.
        """
        wanted = Wanted()
        if client is not None:
            clients, port = parse_clients(client)
            wanted = replace(wanted, clients=clients, client_port=port)
        if backend is not None:
            address, port = parse_backend(backend).place
            wanted = replace(wanted, backend=address, backend_port=port)
        with self._operations() as operations:
            return pick(operations.flows(self._interfaces[0]), wanted, limit).flows

    def add_backend(self, backend: str, *, weight: int = 1, service: str | None = None) -> None:
        """Give it another backend, which gets its share of new flows at once.

        Args:
            backend: ``ADDR`` or ``ADDR:PORT``.
            weight: Its share of new flows, relative to the others'.
            service: Only for this service, by its name or address, like everywhere below.
        """
        with self._operations() as operations:
            new = replace(parse_backend(backend), weight=weight)
            operations.add_backend(new, self._interfaces[0], service)

    def remove_backend(self, backend: str, *, service: str | None = None) -> None:
        """Take a backend away; its flows go to another one with their next packet."""
        with self._operations() as operations:
            operations.remove_backend(parse_backend(backend), self._interfaces[0], service)

    def drain(self, backend: str, *, service: str | None = None) -> None:
        """Give a backend no new flows; those that it has go on."""
        self._edit(backend, live.drain, service)

    def undrain(self, backend: str, *, service: str | None = None) -> None:
        """Give a backend new flows again."""
        self._edit(backend, live.undrain, service)

    def set_weight(self, backend: str, weight: int, *, service: str | None = None) -> None:
        """Set a backend's share of new flows, relative to the others'."""
        self._edit(backend, lambda item: replace(item, weight=weight), service)

    def _edit(self, backend: str, how: Callable[[Backend], Backend], service: str | None) -> None:
        with self._operations() as operations:
            operations.edit_backend(parse_backend(backend), how, self._interfaces[0], service)


def _kind(kind: type[_Kind], value: str) -> _Kind:
    """A choice from its word.

    Raises:
        InvalidValueError: There is no such word.
    """
    try:
        return kind(value)
    except ValueError:
        raise InvalidValueError(f"{value!r} is none of {', '.join(kind)}", "name one") from None
