"""Flows in a file: what ``save`` writes and ``restore`` reads.

The file says everything in its own terms: no number of a map, of a backend or of an interface
is in it. It is laid out like this, with numbers in little-endian order::

    8 bytes    "xdplbflw"
    u16        the format, FORMAT
    u16        0
    u32        bytes of the description
    ...        the description, JSON in UTF-8
    ...        the flows of each part, in the order of the description
    16 bytes   BLAKE2b of all that stands before

The description has the wall-clock time of the saving (``at``, seconds since 1970), the names of
``interfaces`` (the last one is empty, for a client whose interface is gone) and of ``states``,
and ``parts``, one for each IP version: the number of its ``flows``, and its ``lanes``. A lane is
where flows go: the address and protocol of a service, address and port of a backend (null for the
port that the client dialled), and the address that the balancer speaks to it from.

A flow takes 32 bytes, of IPv6 44. Ports and addresses are in network order::

    4 or 16    the client's address
    2          its port
    2          the port that it dialled
    2          the NAT port
    u16        the lane, by its place in the part
    u32        how long the flow has been idle, in milliseconds
    u8         its state, by its place among the states
    u8         where the client was last seen, by the place among the interfaces
    6          the MAC address that its last packet had
    8          the VLAN tags of that packet, 0 without

A file is taken as a whole or not at all: the checksum stands for every byte, and the length of
the file follows from the description.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from xdplb.errors import InvalidValueError
from xdplb.model import IPV4, IPV6, Address, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT: Final = 1
FLOW: Final = {
    IPV4: struct.Struct("<4s2s2s2sHIBB6s8s"),
    IPV6: struct.Struct("<16s2s2s2sHIBB6s8s"),
}
"""A flow, by IP version."""

MAX_IDLE_MS: Final = (1 << 32) - 1

_MAGIC: Final = b"xdplbflw"
_HEADER: Final = struct.Struct("<8sHHI")
_DIGEST: Final = 16
_AFTER_STATE: Final = 16
_AFTER_INTERFACE: Final = 15


class Skip(StrEnum):
    """Why a flow was not restored."""

    TIMED_OUT = "timed out"
    VERSION = "IP version not balanced"
    SERVICE_GONE = "service gone"
    BACKEND_GONE = "backend gone"
    NAT_ADDRESS_GONE = "NAT address gone"
    PORT_GONE = "NAT port gone"
    INTERFACE_GONE = "interface gone"
    PORT_TAKEN = "NAT port taken"
    CLIENT_KNOWN = "flow there already"
    NO_ROOM = "no room"


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of the flows of a file.

    Attributes:
        flows: How many there are.
        skipped: How many of them were not restored, by reason.
    """

    flows: int
    skipped: Counter[Skip] = field(default_factory=Counter)

    @property
    def restored(self) -> int:
        """How many go on."""
        return self.flows - self.skipped.total()


class Lane(NamedTuple):
    """Where flows go.

    Attributes:
        service: The address that clients dial.
        port: The backend's; None for the one that the client dialled.
        nat_address: What the balancer speaks to the backend from.
    """

    service: Address
    protocol: Protocol
    backend: Address
    port: int | None
    nat_address: Address


@dataclass(frozen=True, slots=True)
class Part:
    """The flows of one IP version, packed as FLOW says."""

    version: int
    lanes: tuple[Lane, ...]
    flows: memoryview

    @property
    def count(self) -> int:
        """How many flows."""
        return len(self.flows) // FLOW[self.version].size


@dataclass(frozen=True, slots=True)
class Saved:
    """Everything that is in a file.

    Attributes:
        at: When it was saved, in seconds since 1970.
        interfaces: Names, the last one empty, for one that is no longer the balancer's.
        states: Names.
    """

    at: float
    interfaces: tuple[str, ...]
    states: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def count(self) -> int:
        """How many flows."""
        return sum(part.count for part in self.parts)

    def refuse_others(self, versions: tuple[int, ...]) -> None:
        """Make sure that some of the flows can be meant for a balancer.

        Args:
            versions: The IP versions that it balances.

        Raises:
            InvalidValueError: All flows are of another IP version.
        """
        mine = [part.version for part in self.parts if part.count]
        if mine and not set(mine) & set(versions):
            raise InvalidValueError(
                f"the saved flows are of IPv{mine[0]}, which the balancer does not balance",
                "take another file, or start the balancer with the services of the saved one",
            )

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The file, piece by piece."""
        text = self._description()
        digest = blake2b(digest_size=_DIGEST)
        head = _HEADER.pack(_MAGIC, FORMAT, 0, len(text)) + text
        pieces: list[bytes | memoryview] = [head, *(part.flows for part in self.parts)]
        for piece in pieces:
            digest.update(piece)
            yield piece
        yield digest.digest()

    def _description(self) -> bytes:
        values = {
            "at": self.at,
            "interfaces": self.interfaces,
            "states": self.states,
            "parts": [
                {"version": part.version, "flows": part.count, "lanes": part.lanes}
                for part in self.parts
            ],
        }
        return json.dumps(values, default=str).encode()


def read(data: bytes, name: str) -> Saved:
    """Read a file.

    Args:
        data: All of it. It is not copied.
        name: What a person calls it.

    Raises:
        InvalidValueError: It is not whole, or nothing that ``save`` has written.
    """
    if len(data) < _HEADER.size + _DIGEST or not data.startswith(_MAGIC):
        raise _refusal(name, "is no file of saved flows")
    _, kind, _, length = _HEADER.unpack_from(data)
    if kind != FORMAT:
        raise _refusal(name, f"has format {kind}, and this xdplb reads {FORMAT}")
    whole = memoryview(data)
    if blake2b(whole[:-_DIGEST], digest_size=_DIGEST).digest() != whole[-_DIGEST:]:
        raise _refusal(name, "is damaged or cut short: its checksum is wrong")
    try:
        values = json.loads(whole[_HEADER.size : _HEADER.size + length].tobytes())
        found = _saved(values, whole[_HEADER.size + length : -_DIGEST])
    except (LookupError, TypeError, ValueError) as error:
        raise _refusal(name, f"cannot be understood: {error}") from error
    return found


def _refusal(name: str, reason: str) -> InvalidValueError:
    return InvalidValueError(f"{name} {reason}", "nothing was changed; take a file of 'xdplb save'")


def _saved(values: dict[str, Any], flows: memoryview) -> Saved:
    """The file's contents.

    Raises:
        LookupError: Something is missing.
        TypeError: Something is of another kind.
        ValueError: Something is not what it can be.
    """
    saved = Saved(
        at=float(values["at"]),
        interfaces=tuple(f"{item}" for item in values["interfaces"]),
        states=tuple(f"{item}" for item in values["states"]),
        parts=tuple(_parts(values["parts"], flows)),
    )
    for part in saved.parts:
        size = FLOW[part.version].size
        for back, names in ((_AFTER_STATE, saved.states), (_AFTER_INTERFACE, saved.interfaces)):
            if max(part.flows[size - back :: size].tobytes(), default=-1) >= len(names):
                raise ValueError("a flow names what the description has not")
    return saved


def _parts(values: list[dict[str, Any]], flows: memoryview) -> Iterator[Part]:
    for item in values:
        size = int(item["flows"]) * FLOW[item["version"]].size
        if not 0 <= size <= len(flows):
            raise ValueError("it is too short")
        yield Part(item["version"], tuple(_lane(lane) for lane in item["lanes"]), flows[:size])
        flows = flows[size:]
    if flows:
        raise ValueError("it is too long")


def _lane(values: list[Any]) -> Lane:
    service, protocol, backend, port, nat_address = values
    return Lane(
        ip_address(service),
        Protocol(protocol),
        ip_address(backend),
        None if port is None else int(port),
        ip_address(nat_address),
    )
