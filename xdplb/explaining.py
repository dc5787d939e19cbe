"""``explain``: what would become of a client's packet, and why.

The program that runs is asked, not a copy of its rules: a packet is made and given to a second
program of the same instructions, whose flows and counters are copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xdplb import frames, wire
from xdplb.errors import InvalidValueError, NotReadyError, XdplbError
from xdplb.facts import Question
from xdplb.model import ALL_PORTS, Backend, BackendState, Endpoint, OnDown, Protocol, port_list
from xdplb.parsing import parse_address, parse_port
from xdplb.plan import backend_state
from xdplb.selection import MAGLEV_SIZE, select_slot
from xdplb.verdicts import DROPPED, PASSED, VERDICTS, Verdict
from xdplb.wire import NO_INDEX, ClientKey, FlowCode

if TYPE_CHECKING:
    from xdplb.facts import Rehearsal, Running
    from xdplb.machine import Machine
    from xdplb.model import Address
    from xdplb.state import Installed

JSON_VERSION: Final = 1
_TO_BACKEND: Final = "forward"
_NO_BACKEND: Final = "drop_no_backend"


@dataclass(frozen=True, slots=True)
class Target:
    """A backend as the program knows it.

    Attributes:
        mac: Of its next hop; None while nobody has answered for it.
    """

    backend: Backend
    state: BackendState
    mac: str | None
    next_hop: Address


@dataclass(frozen=True, slots=True)
class KnownFlow:
    """A flow that the client's endpoint has already.

    Attributes:
        nat_port: The port that it left from.
        state: As ``flows`` names it.
        idle_s: Since its last packet; None for a reservation that has had none.
        is_kept: The packet goes on with it.
        is_down: Its backend is down.
    """

    backend: Backend
    nat_port: int
    state: str
    idle_s: float | None
    is_kept: bool
    is_down: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would become of a packet.

    Attributes:
        interface: Where it would come in.
        service: Whose it is; None for no service's.
        slot: Of the service's Maglev table; None without a service.
        chosen: Whom the table has there.
        target: Whom the packet goes to, or what it would have been dropped on the way to.
        leaves: What would leave; None where nothing does.
        is_same: The program that was asked is the one that runs, by its tag.
    """

    client: Endpoint
    dialled: Endpoint
    protocol: Protocol
    interface: str
    service: Installed | None
    slot: int | None
    chosen: Target | None
    flow: KnownFlow | None
    target: Target | None
    verdict: str
    leaves: frames.Frame | None
    is_same: bool

    @property
    def meaning(self) -> Verdict:
        """What the verdict means, and what to do about it."""
        return VERDICTS.get(self.verdict, Verdict("a verdict that this xdplb does not know"))


def _address(text: str) -> Address:
    """The address that a person means, who names no service.

    Raises:
        InvalidValueError: It is none.
    """
    try:
        return parse_address(text)
    except InvalidValueError:
        raise InvalidValueError(
            f"{text!r} is neither a service nor an address", "'xdplb status' shows all services"
        ) from None


def dialled(
    running: Running, client: Endpoint, text: str | None, protocol: Protocol | None
) -> tuple[Endpoint, Protocol]:
    """What a person means by a service: ``ADDR``, ``ADDR:PORT``, its name, its name and a port.

    Args:
        running: The balancer.
        client: Who dials it.
        text: What the person wrote; None for the only service.
        protocol: What the person wants; None for that of the service.

    Raises:
        InvalidValueError: It is no address and no service's name, or no telling which is meant.
    """
    mine = [
        item
        for item in running.state.services
        if item.version == client.address.version and protocol in {None, item.protocol}
    ]
    name, port = _parted(text) if text is not None else (None, None)
    if name is not None:
        mine = [item for item in mine if item.is_called(name)]
    if port is not None:
        mine = [item for item in mine if any(port in ports for ports in item.ports)] or mine
    addresses = {item.dialled for item in mine}
    if not addresses and name is not None and all(name != it.name for it in running.state.services):
        address = _address(name)
        _refuse_mixture(client, address)
        addresses = {address}
    if len(addresses) != 1:
        raise InvalidValueError(
            "which service is meant is not clear" if mine else "no service is meant by that",
            "write it as ADDR:PORT; 'xdplb status' shows all of them",
        )
    ports = {ports for item in mine for ports in item.ports}
    if port is None:
        if len(ports) != 1 or next(iter(ports)).count != 1:
            raise InvalidValueError(
                "which port of the service is meant is not clear", "write it as ADDR:PORT"
            )
        port = next(iter(ports)).first
    found = [item.protocol for item in mine if any(port in ports for ports in item.ports)]
    return Endpoint(addresses.pop(), port), protocol or (found[0] if found else Protocol.UDP)


def _refuse_mixture(client: Endpoint, address: Address) -> None:
    if address.version != client.address.version:
        raise InvalidValueError(
            f"{client.address} and {address} are of different IP versions",
            "addresses of one are not translated into the other",
        )


def _parted(text: str) -> tuple[str, int | None]:
    """A name or an address, and a port if there is one behind it."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        return address, parse_port(port[1:]) if port else None
    name, colon, port = text.rpartition(":")
    if not colon or ":" in name:
        return text, None
    return name, parse_port(port)


def explain(  # noqa: PLR0913 - all that a packet says of itself
    machine: Machine,
    running: Running,
    client: Endpoint,
    service: Endpoint,
    protocol: Protocol,
    interface: str | None,
) -> Explanation:
    """Find out what would become of a packet; nothing changes.

    Args:
        machine: Where.
        running: The balancer.
        client: Who sends it.
        service: What it is sent to.
        protocol: A TCP packet is a SYN, or goes on with the connection that there is.
        interface: Where it comes in; None for that by which the client is reached.

    Raises:
        NotReadyError: The balancer does not sit on the interface.
        InvalidValueError: Client and service are of different IP versions.
    """
    _refuse_mixture(client, service.address)
    version = client.address.version
    place = _interface(machine, running, client.address, interface)
    on = running.state.interfaces[place]
    installed = _installed(running, service, protocol)
    mac = bytes.fromhex(on.mac.replace(":", ""))
    question = Question(
        frame=frames.make(client, service, protocol, mac),
        goes_on=frames.make(client, service, protocol, mac, opens=False),
        ifindex=on.index,
        keys=_keys(client, service, installed),
        service=installed.number if installed else None,
        slot=_slot(running, installed, client, service),
    )
    found = machine.rehearse(running, question)
    leaves = frames.read(found.frame)
    is_sent = not found.verdict.startswith((DROPPED, PASSED))
    return Explanation(
        client=client,
        dialled=service,
        protocol=protocol,
        interface=machine.interface_name(on.index) or on.name,
        service=installed,
        slot=question.slot if installed else None,
        chosen=_target(running, version, found.chosen),
        flow=_flow(running, version, found, leaves),
        target=_target(running, *found.backend) if found.backend else None,
        verdict=found.verdict,
        leaves=leaves if is_sent else None,
        is_same=found.is_same,
    )


def _interface(machine: Machine, running: Running, client: Address, name: str | None) -> int:
    """The place of the interface that a client's packet comes in by."""
    indexes = [item.index for item in running.state.interfaces]
    if name is not None:
        index = machine.link(name).index
        if index not in indexes:
            raise NotReadyError(
                f"the balancer does not sit on {name}", "'xdplb status' shows where it does"
            )
        return indexes.index(index)
    try:
        index = machine.way(client).ifindex
    except XdplbError:  # an address of this host, or one that nobody knows the way to
        return 0
    return indexes.index(index) if index in indexes else 0


def _installed(running: Running, service: Endpoint, protocol: Protocol) -> Installed | None:
    side = running.state.side(service.address.version)
    return next(
        (
            item
            for item in (side.services if side else ())
            if (item.service.dialled, item.service.protocol) == (service.address, protocol)
            and any(service.port in ports for ports in item.service.ports)
        ),
        None,
    )


def _keys(
    client: Endpoint, service: Endpoint, installed: Installed | None
) -> tuple[ClientKey, ...]:
    """Where the flow would be found: as a flow, or as a reservation."""
    if installed is None:
        return ()
    key = ClientKey(client.address, client.port, service.address, service.port, installed.number)
    return key, key._replace(service_port=0)


def _slot(
    running: Running, installed: Installed | None, client: Endpoint, service: Endpoint
) -> int:
    if installed is None:
        return 0
    return select_slot(
        installed.service.hash,
        running.state.hash_keys,
        (client.address, client.port),
        (service.address, service.port),
        installed.service.protocol,
    )


def _target(running: Running, version: int, number: int | None) -> Target | None:
    records = running.records.get(version, ())
    if number is None or number == NO_INDEX or number >= len(records):
        return None
    record = records[number]
    return Target(
        Backend(record.address, record.port, record.weight),
        backend_state(record.state),
        record.mac.hex(":") if record.mac else None,
        record.next_hop,
    )


def _flow(
    running: Running, version: int, found: Rehearsal, leaves: frames.Frame
) -> KnownFlow | None:
    """The flow that there is already, unless nothing is left of it."""
    if found.known is None:
        return None
    key, value, record = found.known
    if record is None or record.owner.state in {FlowCode.FREE, FlowCode.CLAIMED}:
        return None
    if (record.client, record.client_port) != (key.client, key.client_port):
        return None
    backend = _target(running, version, value.backend)
    if backend is None:
        return None
    idle = found.now - record.owner.seen & 0xFFFFFFFF
    idle_s = 0.0 if idle >> 31 else idle / wire.TICKS_PER_S  # another CPU may be a tick ahead
    return KnownFlow(
        backend=backend.backend,
        nat_port=value.nat_port,
        state=record.owner.state.name.lower(),
        idle_s=idle_s if record.client_mac else None,
        is_kept=found.verdict == _TO_BACKEND
        and leaves.source_port == value.nat_port
        and found.backend == (version, value.backend),
        is_down=backend.state is BackendState.DOWN,
    )


def sentences(item: Explanation) -> list[tuple[str, str]]:
    """The explanation for a person: a word on what each line is about, and the line."""
    lines = [
        ("packet", f"{item.client} > {item.dialled} {item.protocol}, in by {item.interface}"),
        ("service", _of_service(item)),
    ]
    if item.service is not None:
        lines.append(("table", _of_table(item)))
        lines.append(("flow", _of_flow(item)))
    if item.leaves is not None:
        lines.append(("leaves", _of_leaving(item)))
    lines.append(("verdict", f"{item.verdict}: {item.meaning.meaning}"))
    if item.meaning.hint:
        lines.append(("hint", item.meaning.hint))
    if not item.is_same:
        lines.append(
            (
                "note",
                "the program that runs was made by another xdplb than this one; "
                "'xdplb up' again exchanges it, and keeps the flows",
            )
        )
    return lines


def _of_service(item: Explanation) -> str:
    if item.service is None:
        return "none; no service has this address, protocol and port"
    service = item.service.service
    ports = "all ports" if service.ports == ALL_PORTS else f"port {port_list(service.ports)}"
    name = f"{service.name}: " if service.name else ""
    return f"{name}{service.dialled} {service.protocol}, {ports}, by {service.hash}"


def _of_table(item: Explanation) -> str:
    where = f"slot {item.slot} of {MAGLEV_SIZE}"
    if item.chosen is None:
        return f"{where} has no backend: none of the service takes new flows"
    mac = "" if item.chosen.mac else f", and nobody answers for {item.chosen.next_hop}"
    return f"{where} has {item.chosen.backend}, which is {item.chosen.state}{mac}"


def _of_flow(item: Explanation) -> str:
    flow = item.flow
    if flow is None:
        return "none yet" + (", a new one would be opened" if item.leaves is not None else "")
    idle = "not used yet" if flow.idle_s is None else f"{flow.idle_s:.0f} s idle"
    about = f"to {flow.backend} from port {flow.nat_port}, {flow.state}, {idle}"
    if flow.is_down and item.verdict == _NO_BACKEND and _holds(item.service):
        return f"{about}; that is down, and the flow waits for it (on-down drop)"
    if not flow.is_kept:
        return f"{about}; the packet does not go on with it"
    if item.chosen is not None and item.chosen.backend.place != flow.backend.place:
        return f"{about}; it stays there, whatever the table has"
    return f"{about}; the packet goes on with it"


def _holds(item: Installed | None) -> bool:
    """Whether flows of a service wait for a backend that is down."""
    return item is not None and item.service.on_down is OnDown.DROP


def _of_leaving(item: Explanation) -> str:
    by = f", to MAC {item.target.mac}" if item.target is not None and item.target.mac else ""
    return f"{item.leaves}{by if item.verdict == _TO_BACKEND else ''}"


def to_json(item: Explanation) -> dict[str, Any]:
    """The explanation for a program."""
    flow, leaves = item.flow, item.leaves
    return {
        "version": JSON_VERSION,
        "client": _endpoint(item.client),
        "dialled": _endpoint(item.dialled),
        "protocol": item.protocol,
        "interface": item.interface,
        "service": None if item.service is None else f"{item.service.service}",
        "slot": item.slot,
        "slots": MAGLEV_SIZE,
        "chosen": _target_json(item.chosen),
        "flow": None
        if flow is None
        else {
            "backend": f"{flow.backend}",
            "nat_port": flow.nat_port,
            "state": flow.state,
            "idle": None if flow.idle_s is None else round(flow.idle_s, 3),
            "kept": flow.is_kept,
        },
        "backend": _target_json(item.target),
        "leaves": None
        if leaves is None
        else {
            "source": f"{leaves.source}",
            "source_port": leaves.source_port,
            "destination": f"{leaves.destination}",
            "destination_port": leaves.destination_port,
        },
        "verdict": item.verdict,
        "meaning": item.meaning.meaning,
        "hint": item.meaning.hint or None,
        "same_program": item.is_same,
    }


def _endpoint(item: Endpoint) -> dict[str, Any]:
    return {"address": f"{item.address}", "port": item.port}


def _target_json(item: Target | None) -> dict[str, Any] | None:
    if item is None:
        return None
    return {
        "address": f"{item.backend.address}",
        "port": item.backend.port,
        "state": item.state,
        "mac": item.mac,
        "next_hop": f"{item.next_hop}",
    }
