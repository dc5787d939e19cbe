"""``flows`` and ``whois``: which flows there are, and who stands behind a NAT port."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import click

from xdplb import flowlog
from xdplb.balancer import Balancer
from xdplb.cli import completion
from xdplb.cli.files import FILE
from xdplb.cli.params import BACKEND, ENDPOINT, iface_option, json_option
from xdplb.errors import InvalidValueError
from xdplb.files import STREAM
from xdplb.listing import Wanted, pick
from xdplb.parsing import parse_clients
from xdplb.render import columns
from xdplb.saving import LISTED_NAMES, STATE_NAMES
from xdplb.wire import FlowCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import TextIO

    from xdplb.listing import Flow, Listing
    from xdplb.model import Address, Backend, Endpoint, Protocol, Reservation
    from xdplb.request import Request
    from xdplb.saved import Saved

_JSON_VERSION: Final = 1
_USUAL_LIMIT: Final = 100
_COLUMNS: Final = ("client", "service", "backend", "nat", "state", "idle")
_FIRST_NUMBER: Final = 5
_RESERVED: Final = FlowCode.RESERVED.name.lower()
_TIMES: Final = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S%z")


def _choices(command: Any, states: Sequence[str]) -> Any:  # noqa: ANN401 - what click decorates
    """The options that say which flows are meant."""
    for option in (
        click.option("--state", type=click.Choice(states), help="Only flows in this state."),
        click.option(
            "--service", metavar="NAME", shell_complete=completion.services,
            help="Only flows of this service.",
        ),
        click.option(
            "--backend", type=BACKEND, shell_complete=completion.backends,
            help="Only flows toward this backend.",
        ),
        click.option(
            "--client", metavar="ADDR[:PORT]|NETWORK", help="Only flows of these clients."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _wanted(client: str | None, backend: Backend | None, state: str | None) -> Wanted:
    wanted = Wanted(state=state)
    if client is not None:
        clients, client_port = parse_clients(client)
        wanted = replace(wanted, clients=clients, client_port=client_port)
    if backend is not None:
        wanted = replace(wanted, backend=backend.address, backend_port=backend.port)
    return wanted


@click.group(invoke_without_command=True)
@partial(_choices, states=LISTED_NAMES)
@click.option(
    "--limit", type=click.IntRange(1), default=_USUAL_LIMIT, show_default=True,
    help="Print so many, those that were seen last.",
)  # fmt: skip
@iface_option
@json_option
@click.pass_context
def flows(  # noqa: PLR0913 - one argument for each option
    context: click.Context,
    *,
    client: str | None,
    backend: Backend | None,
    service: str | None,
    state: str | None,
    limit: int,
    iface: str | None,
    as_json: bool,
) -> None:
    """List live flows, those that were seen last first.

    \b
    Example:
        xdplb flows --client 192.0.2.7
        xdplb flows --backend 192.0.2.10 --limit 10 --json
        xdplb flows kill --client 192.0.2.7
    """
    if context.invoked_subcommand is not None:
        return
    listing = _listed(_wanted(client, backend, state), limit, iface, service)
    if as_json:
        click.echo(_to_json(listing))
        return
    click.echo(_to_text(listing.flows) if listing.flows else "no such flow")
    if listing.total > len(listing.flows):
        click.echo(f"and {listing.total - len(listing.flows):,} more; --limit shows them")


@flows.command()
@partial(_choices, states=STATE_NAMES)
@click.option("--all", "everything", is_flag=True, help="All flows of the balancer.")
@iface_option
def kill(  # noqa: PLR0913 - one argument for each option
    *,
    client: str | None,
    backend: Backend | None,
    service: str | None,
    state: str | None,
    everything: bool,
    iface: str | None,
) -> None:
    """End flows: the next packet of such a client opens a new one, or TCP is told to reset.

    \b
    Example:
        xdplb flows kill --client 192.0.2.7
        xdplb flows kill --backend 192.0.2.10 --state unreplied
    """
    if everything == any(item is not None for item in (client, backend, service, state)):
        raise InvalidValueError(
            "which flows are meant is not clear",
            "name a client, a backend, a service or a state; or --all, and nothing else",
        )
    wanted = _wanted(client, backend, state)

    def choose(request: Request, found: Saved) -> tuple[Flow, ...]:
        named = replace(wanted, services=_dialled(request, service)) if service else wanted
        return pick(found, named).flows

    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Machine() as machine:
        count = Balancer(machine).kill(iface, choose)
    click.echo(f"ended: {count:,} {'flow' if count == 1 else 'flows'}")


@click.command()
@click.argument("nat", metavar="ADDR:PORT", type=ENDPOINT)
@click.option(
    "--backend", type=BACKEND, shell_complete=completion.backends,
    help="The backend that saw it.  [default: any]",
)  # fmt: skip
@click.option(
    "--log", type=FILE, metavar="FILE",
    help="Ask what 'xdplb trace --reason new --json' has written; - is the standard input.",
)  # fmt: skip
@click.option(
    "--at", type=click.DateTime(_TIMES), metavar="TIME",
    help="With --log, who it was at that local time.  [default: everybody]",
)  # fmt: skip
@iface_option
@json_option
def whois(  # noqa: PLR0913 - one argument for each option
    *,
    nat: Endpoint,
    backend: Backend | None,
    log: Path | None,
    at: datetime | None,
    iface: str | None,
    as_json: bool,
) -> None:
    """Tell which client stands behind an address and port that a backend's log names.

    Each backend has all ports for itself, so one port may stand for a client at each.

    \b
    Example:
        xdplb whois 192.0.2.1:6666
        xdplb whois 192.0.2.1:6666 --backend 192.0.2.10
        xdplb whois 192.0.2.1:6666 --log flows.json --at "2026-11-25 17:02:53"
    """
    if log is not None:
        where = None if backend is None else backend.address
        with _opened(log) as lines:
            found = flowlog.find(lines, nat, where, _stamp(at))
        _show_log(found, as_json=as_json)
        return
    if at is not None:
        raise InvalidValueError("--at needs --log", "flows that are over are only in a log")
    wanted = Wanted(nat_port=nat.port, nat_address=nat.address)
    if backend is not None:
        wanted = replace(wanted, backend=backend.address, backend_port=backend.port)
    listing, reserved = _behind(wanted, iface)
    if as_json:
        click.echo(_to_json(listing))
        return
    for item in reserved:
        click.echo(f"{nat} is reserved for {item.client}, which has not used it yet")
    if not listing.flows and not reserved:
        click.echo(f"nobody stands behind {nat} now")
    for flow in listing.flows:
        click.echo(
            f"{flow.client} stands behind {flow.nat} toward {flow.backend} {flow.protocol}; "
            f"it dialled {flow.service}, {_ago(flow.idle_s)}"
            + ("; the port is reserved for it" if flow.state == _RESERVED else "")
        )


@contextmanager
def _opened(log: Path) -> Iterator[TextIO]:
    """The lines of a log; ``-`` is the standard input.

    Raises:
        InvalidValueError: It cannot be read.
    """
    if f"{log}" == STREAM:
        yield sys.stdin
        return
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            yield lines
    except OSError as error:
        raise InvalidValueError(f"cannot read {log}: {error.strerror}") from error


def _stamp(at: datetime | None) -> float | None:
    """Seconds since 1970.

    Raises:
        InvalidValueError: No clock has that time.
    """
    if at is None:
        return None
    try:
        return at.astimezone().timestamp()
    except (OverflowError, ValueError):
        raise InvalidValueError(f"{at} is no time of a log") from None


def _show_log(found: Sequence[flowlog.Opened], *, as_json: bool) -> None:
    if as_json:
        flows = [
            {
                "time": item.at,
                **{name: _endpoint(getattr(item, name)) for name in _ENDPOINTS},
                "protocol": item.protocol,
            }
            for item in found
        ]
        click.echo(json.dumps({"version": _JSON_VERSION, "flows": flows}, indent=2))
        return
    for item in found:
        at = datetime.fromtimestamp(item.at, UTC).astimezone()
        click.echo(
            f"{item.client} stood behind {item.nat} toward {item.backend} {item.protocol} "
            f"from {at:%Y-%m-%d %H:%M:%S} on; it dialled {item.service}"
        )
    if not found:
        click.echo("the log has nobody behind that port")


def _listed(wanted: Wanted, limit: int | None, iface: str | None, service: str | None) -> Listing:
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Machine() as machine:
        balancer = Balancer(machine)
        if service is not None:
            wanted = replace(wanted, services=_dialled(balancer.request(iface), service))
        return pick(balancer.flows(iface), wanted, limit)


def _behind(wanted: Wanted, iface: str | None) -> tuple[Listing, list[Reservation]]:
    """Who stands behind a NAT port; and for whom it is reserved, who has not used it yet."""
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Machine() as machine:
        balancer = Balancer(machine)
        listing = pick(balancer.flows(iface), wanted)
        reserved = [
            one
            for item in (() if listing.flows else balancer.request(iface).services)
            if wanted.backend is None and wanted.nat_address in item.own_addresses
            for one in item.reservations
            if one.nat_port == wanted.nat_port
        ]
    return listing, reserved


def _dialled(request: Request, name: str) -> Any:  # noqa: ANN401 - a predicate of Wanted
    """Whether an address, a protocol and a port are those of a service.

    Raises:
        InvalidValueError: There is none of that name.
    """
    mine = [item for item in request.services if item.is_called(name)]
    if not mine:
        raise InvalidValueError(f"there is no service {name}", "'xdplb status' shows all of them")

    def is_meant(address: Address, protocol: Protocol, port: int) -> bool:
        return any(
            (item.address, item.protocol) == (address, protocol)
            and any(port in ports for ports in item.ports)
            for item in mine
        )

    return is_meant


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s ago"


def _to_text(found: tuple[Flow, ...]) -> str:
    rows = [
        (
            f"{item.client}",
            f"{item.service} {item.protocol}",
            f"{item.backend}",
            f"{item.nat}",
            item.state,
            f"{item.idle_s:.0f} s",
        )
        for item in found
    ]
    return "\n".join(columns([_COLUMNS, *rows], _FIRST_NUMBER))


def _to_json(listing: Listing) -> str:
    return json.dumps(
        {
            "version": _JSON_VERSION,
            "total": listing.total,
            "flows": [
                {
                    **{name: _endpoint(getattr(item, name)) for name in _ENDPOINTS},
                    "protocol": item.protocol,
                    "state": item.state,
                    "idle": round(item.idle_s, 3),
                    "interface": item.interface or None,
                }
                for item in listing.flows
            ],
        },
        indent=2,
    )


_ENDPOINTS: Final = ("client", "service", "backend", "nat")


def _endpoint(value: Endpoint) -> dict[str, Any]:
    return {"address": f"{value.address}", "port": value.port}
