"""What a person is told when a program has been attached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from xdplb.cli import carry
from xdplb.model import IPV4

if TYPE_CHECKING:
    from xdplb.model import Address, Backend
    from xdplb.request import Service
    from xdplb.startup import Report


def say_up(report: Report) -> None:
    """Say what runs now, and what is still missing."""
    for note in report.notes:
        click.echo(f"note: {note}", err=True)
    on = ", ".join(f"{item.name} ({item.mode})" for item in report.interfaces)
    verb = "changed" if report.replaced else "up"
    together: dict[tuple[Address, tuple[Backend, ...]], list[Service]] = {}
    for service in report.services:
        together.setdefault((service.dialled, service.backends), []).append(service)
    for (address, backends), services in together.items():
        protocols = " and ".join(dict.fromkeys(item.protocol for item in services))
        click.echo(f"{verb}: {address} {protocols} on {on}")
        asked_by = "ARP" if address.version == IPV4 else "neighbour discovery"
        for backend in backends:
            late = f"  (no answer to {asked_by} yet)" if backend in report.unresolved else ""
            click.echo(f"  -> {backend}{late}")
    if report.restored is not None:
        click.echo(carry.to_text(report.restored))
