"""What a balancer knows of itself: the ``meta`` map, as JSON.

A command that finds another format leaves everything as it is. The text is written once,
before the program is attached, and lives and dies with the program.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Self

from xdplb import __version__, wire
from xdplb.errors import TableError
from xdplb.model import Endpoint, Hash, Mode, PortRange, Protocol, Reservation, Timeouts

if TYPE_CHECKING:
    from xdplb.model import Address

FORMAT: Final = 2
_LAYOUT: Final = {f"ipv{version}": sizes for version, sizes in wire.SIZES.items()}


@dataclass(frozen=True, slots=True)
class AttachedTo:
    """An interface of the balancer, in the order of the slots."""

    name: str
    index: int
    mode: Mode


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
class Side:
    """What one IP version has to itself.

    Attributes:
        service: The address that clients dial.
        room: How many backends there is room for.
    """

    service: Address
    room: int


@dataclass(frozen=True, slots=True)
class State:
    """Everything about a running balancer that is not a counter or a flow.

    Attributes:
        sides: One for each IP version.
        hash_keys: The two secret numbers of the selection hash.
        capacity: How many flows each IP version has room for.
    """

    netns: int
    interfaces: tuple[AttachedTo, ...]
    sides: tuple[Side, ...]
    protocols: tuple[Protocol, ...]
    ports: tuple[PortRange, ...]
    hash: Hash
    hash_keys: tuple[int, int]
    capacity: int
    nat_ports: tuple[PortRange, ...]
    timeouts: Timeouts
    reservations: tuple[Reservation, ...]
    verdicts: tuple[str, ...]
    restore: tuple[Restore, ...]
    version: str = __version__

    def side(self, version: int) -> Side | None:
        """What an IP version has, None if it is not balanced."""
        return next((item for item in self.sides if item.service.version == version), None)

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions that are balanced."""
        return tuple(item.service.version for item in self.sides)

    def to_bytes(self) -> bytes:
        """The text of the ``meta`` map."""
        values = asdict(self)
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
                f"the running balancer's records are of version {values.get('version', '?')}, "
                f"not of {__version__}",
                "use the xdplb that started it; nothing was changed",
            )
        return cls(
            netns=values["netns"],
            interfaces=tuple(
                AttachedTo(item["name"], item["index"], Mode(item["mode"]))
                for item in values["interfaces"]
            ),
            sides=tuple(
                Side(ip_address(item["service"]), item["room"]) for item in values["sides"]
            ),
            protocols=tuple(Protocol(item) for item in values["protocols"]),
            ports=_ranges(values["ports"]),
            hash=Hash(values["hash"]),
            hash_keys=(values["hash_keys"][0], values["hash_keys"][1]),
            capacity=values["capacity"],
            nat_ports=_ranges(values["nat_ports"]),
            timeouts=Timeouts(**values["timeouts"]),
            reservations=tuple(
                Reservation(
                    Endpoint(ip_address(item["client"]["address"]), item["client"]["port"]),
                    item["nat_port"],
                )
                for item in values["reservations"]
            ),
            verdicts=tuple(values["verdicts"]),
            restore=tuple(Restore(**item) for item in values["restore"]),
            version=values["version"],
        )


def interface_indexes(data: bytes) -> list[int]:
    """The interfaces in the text of a ``meta`` map of any format; none if it has none."""
    try:
        return [int(item["index"]) for item in json.loads(data.rstrip(b"\0"))["interfaces"]]
    except (ValueError, KeyError, TypeError):
        return []


def _ranges(values: list[dict[str, int]]) -> tuple[PortRange, ...]:
    return tuple(PortRange(item["first"], item["last"]) for item in values)
