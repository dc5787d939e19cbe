"""A balancer's status as JSON for programs, and as text for people."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from xdplb.model import ALL_PORTS
from xdplb.quantities import about, percent, short
from xdplb.rates import HALF_FULL, key_of
from xdplb.verdicts import DROPPED, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xdplb.model import BackendStatus, BalancerStatus, Clients, ServiceStatus
    from xdplb.rates import Rates, Traffic

JSON_VERSION = 1

NOTHING: Final = "no balancer is up in this network namespace"
HOW_TO_START: Final = "'xdplb up --iface NAME --backend ADDR' starts one"


def to_json(
    balancers: Sequence[BalancerStatus],
    rates: Mapping[int, Rates] | None = None,
    clients: Sequence[Clients] = (),
    *,
    indent: int | None = 2,
) -> str:
    """The status as one JSON object. Keys may be added to it, but never renamed.

    Args:
        balancers: What is up.
        rates: What was measured, where something was.
        clients: Those of each balancer, where they were counted.
        indent: None for a single line.
    """
    found = [_balancer(item, (rates or {}).get(key_of(item))) for item in balancers]
    for item, of_it in zip(found, clients, strict=False):
        item["clients"] = _clients(of_it)
    return json.dumps({"version": JSON_VERSION, "balancers": found}, indent=indent)


def _balancer(item: BalancerStatus, rates: Rates | None) -> dict[str, Any]:
    fullest = item.fullest
    found: dict[str, Any] = {
        "interfaces": [
            {"name": interface.name, "index": interface.index, "mode": interface.mode}
            for interface in item.interfaces
        ],
        "program": {"id": item.program_id, "tag": item.program_tag, "version": item.version},
        "secret": None if item.secret is None else f"{item.secret}",
        "draining": item.draining,
        "services": [_service(service, rates) for service in item.services],
        "flows": {
            "active": item.flows,
            "capacity": item.capacity,
            "fill": _rounded(item.flows_fill),
            "full_in": rates and _rounded(rates.flows_full_s),
        },
        "nat_ports": {
            "used": item.nat_ports_used,
            "total": item.nat_ports_total,
            "fill": _rounded(item.nat_ports_fill),
            "fullest": fullest
            and {"backend": f"{fullest.backend}", "fill": _rounded(fullest.nat_ports_fill)},
            "full_in": rates and _rounded(rates.nat_ports_full_s),
        },
        "verdicts": item.verdicts,
        "drops": [
            {"reason": name, "packets": count, **VERDICTS[name]._asdict()}
            for name, count in drops(item)
        ],
        "warnings": [{"what": one.what, "hint": one.hint} for one in item.warnings],
    }
    if rates is not None:
        found["rates"] = {
            "over": _rounded(rates.over_s),
            "verdicts": {name: _rounded(value) for name, value in rates.verdicts.items()},
        }
    return found


def _service(service: ServiceStatus, rates: Rates | None) -> dict[str, Any]:
    return {
        "name": service.name or None,
        "address": f"{service.address}",
        "protocol": service.protocol,
        "ports": service.port_list,
        "hash": service.hash,
        "backends": [
            {
                **_backend(backend),
                **({"rates": _traffic(rates.of_backend(service, backend))} if rates else {}),
            }
            for backend in service.backends
        ],
    }


def _traffic(traffic: Traffic) -> dict[str, float]:
    return {name: round(value, 3) for name, value in traffic._asdict().items()}


def _clients(item: Clients) -> dict[str, Any]:
    return {
        "total": item.total,
        "first": [{"client": f"{one}", "flows": one.flows} for one in item.first],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def drops(item: BalancerStatus) -> Iterator[tuple[str, int]]:
    """The reasons for which packets were dropped, and how many, in the program's order."""
    for name, count in item.verdicts.items():
        if name.startswith(DROPPED) and count:
            yield name, count


def _backend(item: BackendStatus) -> dict[str, Any]:
    return {
        "address": f"{item.backend.address}",
        "port": item.backend.port,
        "weight": item.backend.weight,
        "state": item.state,
        "mac": item.mac,
        "next_hop": f"{item.next_hop}",
        "interface": item.interface,
        "share": round(item.share, 6),
        "expected_share": round(item.expected_share, 6),
        "flows": item.flows,
        "packets_in": item.packets_in,
        "bytes_in": item.bytes_in,
        "packets_out": item.packets_out,
        "bytes_out": item.bytes_out,
        "refused": item.refused,
        "nat_ports": {"used": item.nat_ports_used, "total": item.nat_ports_total},
    }


def backends_to_json(balancers: Sequence[BalancerStatus]) -> str:
    """The backends alone, each with its service."""
    return json.dumps(
        {
            "version": JSON_VERSION,
            "backends": [
                {
                    "name": service.name or None,
                    "service": f"{service.address}",
                    "protocol": service.protocol,
                    **_backend(backend),
                }
                for item in balancers
                for service in item.services
                for backend in service.backends
            ],
        },
        indent=2,
    )


def backends_to_text(balancers: Sequence[BalancerStatus]) -> str:
    """The backends alone as a table."""
    if not balancers:
        return NOTHING
    rows = [
        (
            f"{service.name or service.address} {service.protocol}",
            *_row(backend),
            f"{backend.backend.weight}",
        )
        for item in balancers
        for service in item.services
        for backend in service.backends
    ]
    return "\n".join(columns([("service", *_COLUMNS, "weight"), *rows], 4))


_COLUMNS = ("backend", "state", "mac", "share", "flows", "packets in", "packets out")
_MORE_COLUMNS = ("bytes in", "bytes out", "weight", "expected")
_RATE_COLUMNS = ("packets/s in", "packets/s out", "bit/s in", "bit/s out")
_FIRST_NUMBER = 3


def to_text(
    balancers: Sequence[BalancerStatus],
    rates: Mapping[int, Rates] | None = None,
    clients: Sequence[Clients] = (),
) -> str:
    """The status as plain text, the same whatever it is written to.

    Args:
        balancers: What is up.
        rates: What was measured, where something was.
        clients: Those of each balancer, where they were counted.
    """
    if not balancers:
        return f"{NOTHING}\n  hint: {HOW_TO_START}"
    every = rates or {}
    return "\n\n".join(
        "\n".join(_balancer_lines(item, every.get(key_of(item)), of_it))
        for item, of_it in zip_longest(balancers, clients[: len(balancers)])
    )


def _balancer_lines(
    item: BalancerStatus, rates: Rates | None, clients: Clients | None
) -> Iterator[str]:
    on = ", ".join(f"{interface.name} ({interface.mode})" for interface in item.interfaces)
    verdicts = [f"{name} {count}" for name, count in item.verdicts.items() if count]
    for service in item.services:
        yield from _service_lines(service, on, rates)
    yield f"  {room(item, rates)}"
    if clients is not None:
        first = ", ".join(f"{one} {one.flows}" for one in clients.first)
        yield f"  clients {clients.total}, most flows: {first or 'none yet'}"
    yield f"  packets: {', '.join(verdicts) or 'none yet'}"
    for name, count in drops(item):
        yield f"  {name} {count}: {VERDICTS[name].meaning}"
        yield f"    hint: {VERDICTS[name].hint}"
    yield f"  program {item.program_id}, tag {item.program_tag}, xdplb {item.version}"
    for one in item.warnings:
        yield f"  warning: {one.what}"
        yield f"    hint: {one.hint}"


def room(item: BalancerStatus, rates: Rates | None = None) -> str:
    """How much of the flow table and of the NAT ports is used; from half on, when all will be."""
    flows, ports = forecasts(item, rates)
    return (
        f"flows {item.flows} of {item.capacity}{flows and f' ({flows})'}, "
        f"NAT ports {item.nat_ports_used} of {item.nat_ports_total}{ports and f' ({ports})'}"
    )


def forecasts(item: BalancerStatus, rates: Rates | None = None) -> tuple[str, str]:
    """How full the flow table and the NAT ports are, where that is half or more."""
    fullest = item.fullest
    fill, toward = item.nat_ports_fill, ""
    if fullest is not None and fullest.nat_ports_fill - fill > _UNEVEN:
        fill, toward = fullest.nat_ports_fill, f" toward {fullest.backend}"
    return (
        _forecast(item.flows_fill, "", rates.flows_full_s if rates else None),
        _forecast(fill, toward, rates.nat_ports_full_s if rates else None),
    )


_UNEVEN: Final = 0.05
"""How much fuller the NAT ports toward one backend have to be, to be worth a word."""


def _forecast(fill: float, toward: str, full_s: float | None) -> str:
    if fill < HALF_FULL:
        return ""
    when = f", full in {about(full_s)} at this rate" if full_s is not None else ""
    return f"{percent(fill)} used{toward}{when}"


def _service_lines(item: ServiceStatus, on: str, rates: Rates | None) -> list[str]:
    names = (*_COLUMNS, *_MORE_COLUMNS, *(_RATE_COLUMNS if rates else ()))
    rows = [(*_row(backend), *_more(item, backend, rates)) for backend in item.backends]
    return [f"{title(item)}, on {on}", *_table([names, *rows])]


def title(item: ServiceStatus) -> str:
    """What clients dial, and how backends are chosen."""
    ports = "all ports" if item.ports == ALL_PORTS else f"port {item.port_list}"
    name = f"{item.name}: " if item.name else ""
    return f"{name}{item.address} {item.protocol}, {ports}, by {item.hash}"


def _row(backend: BackendStatus) -> tuple[str, ...]:
    return (
        f"{backend.backend}",
        f"{backend.state}",
        backend.mac or "unresolved",
        f"{backend.share:.1%}",
        f"{backend.flows}",
        f"{backend.packets_in}",
        f"{backend.packets_out}",
    )


def _more(service: ServiceStatus, backend: BackendStatus, rates: Rates | None) -> tuple[str, ...]:
    cells = (
        f"{backend.bytes_in}",
        f"{backend.bytes_out}",
        f"{backend.backend.weight}",
        f"{backend.expected_share:.1%}",
    )
    if rates is None:
        return cells
    found = rates.of_backend(service, backend)
    values = (found.packets_in, found.packets_out, found.bits_in, found.bits_out)
    return (*cells, *(short(value) for value in values))


def columns(rows: Sequence[Sequence[str]], first_number: int) -> list[str]:
    """Lines of a table whose columns from ``first_number`` on have numbers."""
    return [line[2:] for line in _table(rows, first_number)]


def _table(rows: Sequence[Sequence[str]], first_number: int = _FIRST_NUMBER) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column >= first_number else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines
