"""From the file to a request. Every error names the file, the key and the reason."""

from __future__ import annotations

import re
import tomllib
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from xdplb.config.checks import health_from
from xdplb.config.safety import read_safely
from xdplb.config.tables import FileTable, ServiceTable, TimeoutsTable
from xdplb.errors import InvalidValueError, XdplbError
from xdplb.model import ALL_PORTS, Backend, Protocol, Timeouts
from xdplb.parsing import parse_address, parse_ports, parse_reservation
from xdplb.request import Request, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from xdplb.config.tables import BackendTable
    from xdplb.model import Address, PortRange

_Value = TypeVar("_Value")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`(?: - at `\$\.?([^`]*)`)?")
_PLACE: Final = re.compile(r"(.*) - at `\$\.?([^`]*)`", re.DOTALL)


def load(path: Path) -> Request:
    """Read the configuration file.

    Raises:
        XdplbError: The first thing that is wrong with it, with file, key and reason.
    """
    request, wrong = _read(path)
    if wrong:
        raise wrong[0]
    if request is None:
        raise AssertionError(path)
    return request


def problems(path: Path) -> list[XdplbError]:
    """Everything that is wrong with a configuration file, as far as it can be seen at once."""
    return _read(path)[1]


def parse(text: str, name: str = "the text") -> Request:
    """Read a configuration from text; ``name`` is what errors call it.

    Raises:
        InvalidValueError: The first thing that is wrong.
    """
    wrong: list[XdplbError] = []
    request = _Reader(name, wrong).request(text)
    if wrong or request is None:
        raise wrong[0]
    return request


def services_from(values: Sequence[Any]) -> tuple[Service, ...]:
    """The services that ``services_to`` has made into plain values."""
    wrong: list[XdplbError] = []
    reader = _Reader("the running balancer", wrong)
    found = [
        service
        for place, table in enumerate(msgspec.convert(values, list[ServiceTable]))
        for service in reader.services(table, f"service[{place}]")
    ]
    if wrong:
        raise wrong[0]
    return tuple(found)


def _read(path: Path) -> tuple[Request | None, list[XdplbError]]:
    wrong: list[XdplbError] = []
    try:
        data = read_safely(path)
        text = data.decode()
    except UnicodeDecodeError as error:
        wrong.append(
            InvalidValueError(
                f"{path}: byte {error.start} is not UTF-8", "save the file in UTF-8, as TOML wants"
            )
        )
        return None, wrong
    except XdplbError as error:
        return None, [error]
    return _Reader(f"{path}", wrong).request(text), wrong


class _Reader:
    """Turns tables into values, and notes what is wrong where."""

    def __init__(self, name: str, wrong: list[XdplbError]) -> None:
        self._name = name
        self._wrong = wrong

    def request(self, text: str) -> Request | None:
        """The request in the text of a file; None where something is wrong."""
        try:
            table = msgspec.convert(tomllib.loads(text), FileTable)
        except tomllib.TOMLDecodeError as error:
            self._note("", f"{error}", "see toml.io for how a table is written")
            return None
        except msgspec.ValidationError as error:
            self._note_invalid(f"{error}")
            return None
        services = [
            service
            for place, item in enumerate(table.service)
            for service in self.services(item, self._place(place, item))
        ]
        if not table.service:
            self._note("service", "there is none", "write at least one [[service]] table")
        balancer = table.balancer
        nat_ports = self._ports(balancer.nat_ports, "balancer.nat-ports")
        with self._noting("balancer"):
            if self._wrong:
                return None
            return Request(
                interfaces=tuple(balancer.interfaces),
                services=tuple(services),
                mode=balancer.mode,
                max_flows=balancer.max_flows,
                nat_ports=nat_ports,
                vlan=balancer.vlan,
                max_client_flows=balancer.max_client_flows,
            )
        return None

    @staticmethod
    def _place(number: int, table: ServiceTable) -> str:
        return f"service[{number}]" + (f" ({table.name})" if table.name else "")

    def services(self, table: ServiceTable, place: str) -> list[Service]:
        """A service for each address and each protocol of a table."""
        before = len(self._wrong)
        addresses = self._addresses(table.address, f"{place}.address")
        nat_addresses = self._addresses(table.nat_addresses, f"{place}.nat-addresses")
        backends = [
            backend
            for number, item in enumerate(table.backend)
            if (backend := self._backend(item, f"{place}.backend[{number}]")) is not None
        ]
        reservations = self._each(table.clients, f"{place}.clients", parse_reservation)
        ports = self._ports(table.ports, f"{place}.ports") or ALL_PORTS
        health = None
        with self._noting(f"{place}.health"):
            health = health_from(table.health) if table.health is not None else None
        if not backends:
            self._note(f"{place}.backend", "there is none", "write a [[service.backend]] table")
        versions = self._versions(addresses, backends, place)
        if len(self._wrong) > before:
            return []
        protocols = [table.protocol] if isinstance(table.protocol, Protocol) else table.protocol
        idle = table.timeouts or TimeoutsTable()
        timeouts = Timeouts(idle.unreplied, idle.answered, idle.transitory, idle.established)
        found = []
        for version, address in versions:
            for protocol in protocols:
                with self._noting(place):
                    found.append(
                        Service(
                            backends=tuple(_of(version, backends, lambda item: item.address)),
                            address=address,
                            protocol=protocol,
                            ports=ports,
                            hash=table.hash,
                            timeouts=timeouts,
                            name=table.name,
                            nat_addresses=tuple(_of(version, nat_addresses, lambda item: item)),
                            reservations=tuple(
                                _of(version, reservations, lambda item: item.client.address)
                            ),
                            on_down=table.on_down,
                            one_way=table.one_way,
                            health=health,
                        )
                    )
        return found

    def _versions(
        self, addresses: Sequence[Address], backends: Sequence[Backend], place: str
    ) -> list[tuple[int, Address | None]]:
        """The IP versions that a table is about, and its addresses of them."""
        of_backends = sorted({item.address.version for item in backends})
        if not addresses:
            return [(version, None) for version in of_backends]
        of_addresses = {item.version for item in addresses}
        for number, backend in enumerate(backends):
            if backend.address.version not in of_addresses:
                self._note(
                    f"{place}.backend[{number}].address",
                    f"{backend.address} is IPv{backend.address.version}, and the service has no "
                    "address of that version: one is not translated into the other",
                    f"give the service an IPv{backend.address.version} address, too",
                )
        for address in addresses:
            if backends and address.version not in of_backends:
                self._note(
                    f"{place}.address",
                    f"{address} has no IPv{address.version} backend",
                    "give it one, or leave the address out",
                )
        return [(address.version, address) for address in addresses]

    def _addresses(self, value: str | list[str] | None, place: str) -> list[Address]:
        texts = [value] if isinstance(value, str) else value or []
        return self._each(texts, place, parse_address)

    def _ports(self, value: Any, place: str) -> tuple[PortRange, ...]:  # noqa: ANN401 - a union
        items = value if isinstance(value, list) else [value]
        return tuple(self._each([f"{item}" for item in items], place, parse_ports))

    def _backend(self, table: BackendTable, place: str) -> Backend | None:
        with self._noting(f"{place}.address"):
            return Backend(parse_address(table.address), table.port, table.weight, table.state)
        return None

    def _each(
        self, texts: Sequence[str], place: str, parse_one: Callable[[str], _Value]
    ) -> list[_Value]:
        found = []
        for number, text in enumerate(texts):
            with self._noting(f"{place}[{number}]" if len(texts) > 1 else place):
                found.append(parse_one(text))
        return found

    @contextmanager
    def _noting(self, place: str) -> Iterator[None]:
        """Note what is refused inside, and go on."""
        try:
            yield
        except InvalidValueError as error:
            self._note(place, f"{error}", error.hint)

    def _note(self, place: str, reason: str, hint: str) -> None:
        where = f"{self._name}: {place}" if place else self._name
        self._wrong.append(InvalidValueError(f"{where}: {reason}", hint))

    def _note_invalid(self, text: str) -> None:
        """Note what msgspec says, in the words of the file."""
        unknown = _UNKNOWN.search(text)
        if unknown:
            key, place = unknown.group(1), unknown.group(2) or ""
            near = get_close_matches(key, _keys(place), 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_keys(place))}"
            self._note(f"{place}.{key}".lstrip("."), "there is no such key", hint)
            return
        found = _PLACE.fullmatch(text)
        reason, place = found.groups() if found else (text, "")
        reason = reason.replace("`", "").replace("Object missing", "missing")
        self._note(place, f"{reason[:1].lower()}{reason[1:]}", "correct that key")


def _of(
    version: int, items: Sequence[_Value], address: Callable[[_Value], Address]
) -> list[_Value]:
    return [item for item in items if address(item).version == version]


def _keys(place: str) -> list[str]:
    """The keys that a table at ``place`` may have."""
    kind: Any = FileTable
    for part in re.findall(r"[a-z-]+", place):
        for item in msgspec.structs.fields(kind):
            if item.encode_name == part:
                kind = _struct_in(item.type)
    return [item.encode_name for item in msgspec.structs.fields(kind)]


def _struct_in(kind: Any) -> Any:  # noqa: ANN401 - types are values here
    """The table inside a list, or beside None."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    for part in getattr(kind, "__args__", ()):
        found = _struct_in(part)
        if found is not None:
            return found
    return None
