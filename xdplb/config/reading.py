"""From the tables of a file to a request, with all that is wrong on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import convert

from xdplb.checks import DnsCheck, ExecCheck, Health, HttpCheck, IcmpCheck, TcpCheck, UdpCheck
from xdplb.config import tables
from xdplb.config.checking import NO_CHECK, check_table
from xdplb.config.expanding import Parts, expand
from xdplb.config.joining import join
from xdplb.config.payload import parse_payload
from xdplb.config.problems import item
from xdplb.errors import InvalidValueError
from xdplb.listen import Listen, parse_place
from xdplb.model import ALL_PORTS, Backend, BackendState, PortRange, Protocol, Timeouts
from xdplb.parsing import (
    parse_address,
    parse_mac,
    parse_path,
    parse_ports,
    parse_reservation,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xdplb.checks import Check
    from xdplb.config.problems import Problems
    from xdplb.request import Request, Service

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file says.

    Attributes:
        request: What is to run.
        listen: Where the agent is spoken to; None for nowhere.
    """

    request: Request
    listen: Listen | None


def read(raw: dict[str, Any], problems: Problems) -> Contents | None:
    """What a file says; None if something is wrong with it.

    Args:
        raw: The file as TOML has it.
        problems: Where to note what is wrong.
    """
    check_table([tables.File], raw, "", problems)
    listed = raw.get("service")
    services: list[tuple[int, Service]] = []
    for number, table in enumerate(listed if isinstance(listed, list) else []):
        key = item("service", number)
        if problems.clean(key):
            services += [(number, one) for one in read_services(table, key, problems)]
    balancer = None
    if problems.clean("balancer"):
        balancer = convert(raw["balancer"], tables.BalancerTable)
    request = join(_balancer(balancer), services, problems)
    listen = _listen(raw.get("agent", {}), problems) if problems.clean("agent") else None
    return None if problems.found or request is None else Contents(request, listen)


def _listen(raw: dict[str, Any], problems: Problems) -> Listen | None:
    """Where the agent is spoken to."""
    table = convert(raw, tables.AgentTable)
    if table.listen is None:
        if table.allow_remote:
            problems.add("agent.allow-remote", "is said, and not where", "say it with listen")
        return None
    try:
        return Listen(parse_place(table.listen), table.allow_remote)
    except InvalidValueError as error:
        problems.add_error("agent.listen", error)
        return None


def _balancer(table: tables.BalancerTable | None) -> dict[str, Any]:
    """What Request takes beside the services; for a table that is wrong what does no harm."""
    if table is None:
        return {"interfaces": ("any",)}
    return {
        "interfaces": tuple(table.interfaces),
        "mode": table.mode,
        "max_flows": table.max_flows,
        "max_client_flows": table.max_client_flows,
        "nat_ports": _ports(table.nat_ports),
        "vlan": table.vlan,
        "secret": None if table.secret is None else parse_path(table.secret),
        "virtual_mac": tuple(parse_mac(text) for text in _several(table.virtual_mac)),
    }


def read_services(raw: dict[str, Any], key: str, problems: Problems) -> tuple[Service, ...]:
    """The services of a table whose every key is good by itself.

    Args:
        raw: The table as TOML, or JSON, has it.
        key: What it is called.
        problems: Where to note what does not fit together.
    """
    if "health" in raw:
        raw = {**raw, "health": {"check": NO_CHECK, **raw["health"]}}
    table = convert(raw, tables.ServiceTable)
    try:
        health = None if table.health is None else _health(table.health)
    except InvalidValueError as error:
        problems.add_error(f"{key}.health", error)
        return ()
    return expand(
        Parts(
            addresses=tuple(parse_address(text) for text in _several(table.address)),
            protocols=tuple(
                [table.protocol] if isinstance(table.protocol, Protocol) else table.protocol
            ),
            backends=tuple(_backend(one) for one in table.backend),
            nat_addresses=tuple(parse_address(text) for text in table.nat_addresses),
            reservations=tuple(parse_reservation(text) for text in table.clients),
            common={
                "name": table.name,
                "ports": ALL_PORTS if table.ports is None else _ports(_several(table.ports)),
                "hash": table.hash,
                "timeouts": Timeouts(
                    unreplied=table.timeouts.unreplied,
                    answered=table.timeouts.answered,
                    transitory=table.timeouts.transitory,
                    established=table.timeouts.established,
                ),
                "on_down": table.on_down,
                "one_way": table.one_way,
                "health": health,
            },
        ),
        key,
        problems,
    )


def _several(value: _Value | list[_Value] | None) -> list[_Value]:
    """What a key has that may stand alone, in a list, or not at all."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _ports(values: Iterable[int | str]) -> tuple[PortRange, ...]:
    return tuple(parse_ports(f"{value}") for value in values)


def _backend(table: tables.BackendTable) -> Backend:
    return Backend(
        parse_address(table.address), table.port, table.weight, BackendState(table.state)
    )


def _health(table: tables.AnyHealth) -> Health:
    return Health(
        check=_check(table),
        port=table.port,
        interval=table.interval,
        timeout=table.timeout,
        rise=table.rise,
        fall=table.fall,
        jitter=table.jitter,
        passive=table.passive,
        min_healthy=table.min_healthy,
        below=table.below_min,
    )


def _check(table: tables.AnyHealth) -> Check | None:  # noqa: PLR0911 - one for each kind
    match table:
        case tables.NoCheckTable():
            return None
        case tables.IcmpTable():
            return IcmpCheck()
        case tables.TcpTable():
            return TcpCheck()
        case tables.HttpTable() | tables.HttpsTable():
            return HttpCheck(
                tls=isinstance(table, tables.HttpsTable),
                path=table.path,
                host=table.host,
                status=f"{table.status}",
                body=table.body,
                verify=table.verify,
            )
        case tables.UdpTable():
            return UdpCheck(parse_payload(table.send), parse_payload(table.expect))
        case tables.DnsTable():
            return DnsCheck(table.query, table.type)
        case tables.ExecTable():
            return ExecCheck(tuple(table.command))
