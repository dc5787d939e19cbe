"""A balancer's status as JSON for programs, and as text for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xdplb.model import ALL_PORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.model import BackendStatus, BalancerStatus, ServiceStatus

JSON_VERSION = 1


def to_json(balancers: Sequence[BalancerStatus]) -> str:
    """The status as one JSON object. Keys may be added to it, but never renamed."""
    return json.dumps(
        {"version": JSON_VERSION, "balancers": [_balancer(item) for item in balancers]}, indent=2
    )


def _balancer(item: BalancerStatus) -> dict[str, Any]:
    return {
        "interfaces": [
            {"name": interface.name, "index": interface.index, "mode": interface.mode}
            for interface in item.interfaces
        ],
        "program": {"id": item.program_id, "tag": item.program_tag, "version": item.version},
        "services": [
            {
                "name": service.name or None,
                "address": f"{service.address}",
                "protocol": service.protocol,
                "ports": _ports(service),
                "hash": service.hash,
                "backends": [_backend(backend) for backend in service.backends],
            }
            for service in item.services
        ],
        "flows": {"active": item.flows, "capacity": item.capacity},
        "nat_ports": {"used": item.nat_ports_used, "total": item.nat_ports_total},
        "verdicts": item.verdicts,
    }


def _ports(item: ServiceStatus) -> str:
    return "all" if item.ports == ALL_PORTS else ",".join(f"{ports}" for ports in item.ports)


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
        "flows": item.flows,
        "packets_in": item.packets_in,
        "bytes_in": item.bytes_in,
        "packets_out": item.packets_out,
        "bytes_out": item.bytes_out,
        "refused": item.refused,
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
        return "no balancer is up in this network namespace"
    rows = [
        (f"{service.address} {service.protocol}", *_row(backend), f"{backend.backend.weight}")
        for item in balancers
        for service in item.services
        for backend in service.backends
    ]
    return "\n".join(columns([("service", *_COLUMNS, "weight"), *rows], 4))


_COLUMNS = ("backend", "state", "mac", "share", "flows", "packets in", "packets out")
_FIRST_NUMBER = 3


def to_text(balancers: Sequence[BalancerStatus]) -> str:
    """The status as plain text, the same on a terminal and in a pipe."""
    if not balancers:
        return "no balancer is up in this network namespace"
    return "\n\n".join("\n".join(_balancer_lines(item)) for item in balancers)


def _balancer_lines(item: BalancerStatus) -> list[str]:
    on = ", ".join(f"{interface.name} ({interface.mode})" for interface in item.interfaces)
    verdicts = [f"{name} {count}" for name, count in item.verdicts.items() if count]
    return [
        *(line for service in item.services for line in _service_lines(service, on)),
        f"  flows {item.flows} of {item.capacity}, "
        f"NAT ports {item.nat_ports_used} of {item.nat_ports_total}",
        f"  packets: {', '.join(verdicts) or 'none yet'}",
        f"  program {item.program_id}, tag {item.program_tag}, xdplb {item.version}",
    ]


def _service_lines(item: ServiceStatus, on: str) -> list[str]:
    ports = "all ports" if item.ports == ALL_PORTS else f"port {_ports(item)}"
    rows = [_row(backend) for backend in item.backends]
    name = f"{item.name}: " if item.name else ""
    return [
        f"{name}{item.address} {item.protocol}, {ports}, by {item.hash}, on {on}",
        *_table([_COLUMNS, *rows]),
    ]


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
