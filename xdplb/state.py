"""What a balancer knows of itself: the ``meta`` map, as JSON.

A command that finds another format leaves everything as it is. The text is written once,
before the program is attached, and lives and dies with the program.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from xdplb import __version__, wire
from xdplb.config import services_from, services_to
from xdplb.errors import TableError, XdplbError
from xdplb.model import Mode, PortRange
from xdplb.request import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.model import Address
    from xdplb.request import Service

FORMAT: Final = 4
_WAY_OUT: Final = (
    "'xdplb down' ends it, and its flows with it, or use the xdplb that started it; "
    "nothing was changed"
)
_LAYOUT: Final = {f"ipv{version}": sizes for version, sizes in wire.SIZES.items()}


@dataclass(frozen=True, slots=True)
class AttachedTo:
    """An interface of the balancer, in the order of the slots.

    Attributes:
        mac: Its MAC address when the program was compiled; and ``mtu``, bytes of an IP packet.
    """

    name: str
    index: int
    mode: Mode
    mac: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Restore:
    """Something that ``up`` changed outside and ``down`` puts back.

    Attributes:
        what: ``gro`` (switched on at a veth peer), ``offload`` (switched off at an interface
            or its veth peer) or ``neighbour`` (made managed).
        netns: Inode of the network namespace.
        ifindex: The interface there.
        address: The neighbour; empty for the others.
        existed: The neighbour was known before, only not managed.
        feature: The kernel's name of the offload; empty for the others.
    """

    what: str
    netns: int
    ifindex: int
    address: str = ""
    existed: bool = False
    feature: str = ""


@dataclass(frozen=True, slots=True)
class Installed:
    """A service and the number that the program knows it by."""

    number: int
    service: Service


@dataclass(frozen=True, slots=True)
class Side:
    """What one IP version has to itself.

    Attributes:
        version: Of IP.
        room: How many backends there is room for.
        addresses: The balancer's own, by number.
        services: Each with its address.
    """

    version: int
    room: int
    addresses: tuple[Address, ...]
    services: tuple[Installed, ...]

    def service(self, number: int) -> Service | None:
        """The service with that number."""
        return next((item.service for item in self.services if item.number == number), None)


@dataclass(frozen=True, slots=True)
class State:
    """Everything about a running balancer that is not a counter or a flow.

    Attributes:
        sides: One for each IP version.
        hash_keys: The two secret numbers of the selection hash.
        capacity: How many flows each IP version has room for.
        max_client_flows: As in Request.
        secret: The file that ``hash_keys`` came of; None where they are its own.
        virtual_mac: As in Request.
        flags: What the program was compiled with, by IP version.
        draining: It is to be taken down, and forwards until its clients are elsewhere.
    """

    netns: int
    interfaces: tuple[AttachedTo, ...]
    sides: tuple[Side, ...]
    hash_keys: tuple[int, int]
    capacity: int
    nat_ports: tuple[PortRange, ...]
    vlan: bool
    max_client_flows: int | None
    verdicts: tuple[str, ...]
    restore: tuple[Restore, ...]
    flags: Mapping[int, Sequence[str]] = field(default_factory=dict)
    secret: Path | None = None
    virtual_mac: tuple[str, ...] = ()
    version: str = __version__
    draining: bool = False

    def side(self, version: int) -> Side | None:
        """What an IP version has, None if it is not balanced."""
        return next((item for item in self.sides if item.version == version), None)

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that are balanced."""
        return tuple(item.version for item in self.sides)

    @property
    def services(self) -> tuple[Service, ...]:
        """Those of all IP versions."""
        return tuple(item.service for side in self.sides for item in side.services)

    @property
    def request(self) -> Request:
        """What has to be asked for to get this balancer."""
        return Request(
            interfaces=tuple(item.name for item in self.interfaces),
            services=self.services,
            mode=self.interfaces[0].mode,
            max_flows=self.capacity,
            nat_ports=self.nat_ports,
            vlan=self.vlan,
            max_client_flows=self.max_client_flows,
            secret=self.secret,
            virtual_mac=self.virtual_mac,
        )

    def to_bytes(self) -> bytes:
        """The text of the ``meta`` map."""
        values = asdict(self)
        values["sides"] = [
            {
                "version": side.version,
                "room": side.room,
                "addresses": side.addresses,
                "numbers": [item.number for item in side.services],
            }
            for side in self.sides
        ]
        values["services"] = services_to(self.services)
        return json.dumps({"format": FORMAT, "layout": _LAYOUT, **values}, default=str).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read the text of a ``meta`` map.

        Raises:
            TableError: It was written by a version that this one does not understand.
        """
        try:
            values: dict[str, Any] = json.loads(data.rstrip(b"\0"))
        except ValueError:
            values = {}
        if not isinstance(values, dict):
            values = {}
        if values.pop("format", None) != FORMAT or values.pop("layout", None) != _LAYOUT:
            raise TableError(
                f"the running balancer was started by xdplb {values.get('version', '?')}, whose "
                f"records this one, {__version__}, does not read",
                _WAY_OUT,
            )
        try:
            return cls._from_values(values)
        except (LookupError, TypeError, ValueError, XdplbError) as error:
            raise TableError("the running balancer's records are damaged", _WAY_OUT) from error

    @classmethod
    def _from_values(cls, values: dict[str, Any]) -> Self:
        return cls(
            netns=values["netns"],
            interfaces=tuple(
                AttachedTo(
                    item["name"], item["index"], Mode(item["mode"]), item["mac"], item["mtu"]
                )
                for item in values["interfaces"]
            ),
            sides=_sides(values["sides"], services_from(values["services"])),
            hash_keys=(values["hash_keys"][0], values["hash_keys"][1]),
            capacity=values["capacity"],
            nat_ports=_ranges(values["nat_ports"]),
            vlan=values["vlan"],
            max_client_flows=values["max_client_flows"],
            verdicts=tuple(values["verdicts"]),
            restore=_restores(values),
            flags={int(number): tuple(items) for number, items in values["flags"].items()},
            secret=_path(values.get("secret")),
            virtual_mac=tuple(values.get("virtual_mac", ())),
            version=values["version"],
            draining=bool(values.get("draining", False)),
        )


def _sides(values: Sequence[dict[str, Any]], services: Sequence[Service]) -> tuple[Side, ...]:
    if sum(len(item["numbers"]) for item in values) != len(services):
        raise ValueError(values)
    left = iter(services)
    return tuple(
        Side(
            version=item["version"],
            room=item["room"],
            addresses=tuple(ip_address(address) for address in item["addresses"]),
            services=tuple(Installed(number, next(left)) for number in item["numbers"]),
        )
        for item in values
    )


def _path(value: str | None) -> Path | None:
    """A file; a balancer that was started before there was a place for it has none."""
    return None if value is None else Path(value)


def interface_indexes(data: bytes) -> list[int]:
    """The interfaces in the text of a ``meta`` map of any format; none if it has none."""
    try:
        return [int(item["index"]) for item in json.loads(data.rstrip(b"\0"))["interfaces"]]
    except (ValueError, KeyError, TypeError):
        return []


def restores(data: bytes) -> tuple[Restore, ...]:
    """What ``up`` changed, in the text of a ``meta`` map of any format, if it can be read."""
    try:
        return _restores(json.loads(data.rstrip(b"\0")))
    except (ValueError, KeyError, TypeError):
        return ()


def _restores(values: dict[str, Any]) -> tuple[Restore, ...]:
    return tuple(Restore(**item) for item in values["restore"])


def _ranges(values: list[dict[str, int]]) -> tuple[PortRange, ...]:
    return tuple(PortRange(item["first"], item["last"]) for item in values)
