"""One table of a file as services: one for each address and protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xdplb.config.problems import item
from xdplb.errors import InvalidValueError
from xdplb.request import Service

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xdplb.config.problems import Problems
    from xdplb.model import Address, Backend, Protocol, Reservation


@dataclass(frozen=True, slots=True)
class Parts:
    """What services are made of.

    Attributes:
        addresses: What clients dial; empty for the interface's own of each version that the
            backends have.
        backends: Of all IP versions, like ``nat_addresses`` and ``reservations``.
        common: The rest of Service, the same for each.
    """

    addresses: tuple[Address, ...]
    protocols: tuple[Protocol, ...]
    backends: tuple[Backend, ...]
    nat_addresses: tuple[Address, ...]
    reservations: tuple[Reservation, ...]
    common: Mapping[str, Any]

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions, in the order in which they are named."""
        dialled = self.addresses or [backend.address for backend in self.backends]
        return tuple(dict.fromkeys(address.version for address in dialled))


def expand(parts: Parts, key: str, problems: Problems) -> tuple[Service, ...]:
    """The services, address by address.

    Args:
        parts: What they are made of.
        key: The table.
        problems: Where to note what does not fit together.
    """
    _refuse_twice(parts.addresses, f"{key}.address", problems)
    _refuse_twice(parts.protocols, f"{key}.protocol", problems)
    _refuse_mixture(parts, key, problems)
    if not problems.clean(key):
        return ()
    dialled: list[tuple[int, Address | None]] = [(one.version, one) for one in parts.addresses]
    services = []
    for version, address in dialled or [(version, None) for version in parts.versions]:
        for protocol in parts.protocols:
            try:
                services.append(_service(parts, version, address, protocol))
            except InvalidValueError as error:
                problems.add_error(key, error)
    return tuple(services)


def _service(parts: Parts, version: int, address: Address | None, protocol: Protocol) -> Service:
    return Service(
        backends=tuple(one for one in parts.backends if one.address.version == version),
        address=address,
        protocol=protocol,
        nat_addresses=tuple(one for one in parts.nat_addresses if one.version == version),
        reservations=tuple(
            one for one in parts.reservations if one.client.address.version == version
        ),
        **parts.common,
    )


def _refuse_twice(values: Sequence[object], key: str, problems: Problems) -> None:
    for number, value in enumerate(values):
        if value in values[:number]:
            problems.add(item(key, number), f"{value} is given twice", "give it once")


def _refuse_mixture(parts: Parts, key: str, problems: Problems) -> None:
    """Let each address have backends of its IP version, and everything else an address."""
    answered = {one.address.version for one in parts.backends}
    for number, one in enumerate(parts.addresses):
        if one.version not in answered:
            problems.add(
                f"{key}.address" if len(parts.addresses) == 1 else item(f"{key}.address", number),
                f"{one} has no IPv{one.version} backend",
                "give it one, or leave the address out",
            )
    for where, address in _dependent(parts, key):
        if address.version not in parts.versions:
            problems.add(
                where,
                f"{address} is IPv{address.version}, the service has no such address: "
                "addresses of one version are not translated into the other",
                f"give the service an IPv{address.version} address, too, or leave this out",
            )


def _dependent(parts: Parts, key: str) -> Iterator[tuple[str, Address]]:
    """All addresses that need one of their version that clients dial."""
    for number, backend in enumerate(parts.backends):
        yield f"{item(f'{key}.backend', number)}.address", backend.address
    for number, address in enumerate(parts.nat_addresses):
        yield item(f"{key}.nat-addresses", number), address
    for number, one in enumerate(parts.reservations):
        yield item(f"{key}.clients", number), one.client.address
