"""``health``: whether clients may be sent here, for whatever moves addresses and routes."""

from __future__ import annotations

import json
import select
import sys
import time
from contextlib import suppress
from errno import EPIPE
from typing import TYPE_CHECKING, Any, Final

import click

from xdplb.cli import completion
from xdplb.cli.params import Seconds, json_option
from xdplb.model import port_list

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdplb.fitness import Fitness
    from xdplb.kernel.events import Events

_NOT_HEALTHY: Final = 3
_REST_S: Final = 0.2
"""How long nothing is looked at after a look: changes of interfaces come in groups."""


@click.command()
@click.option(
    "--iface", metavar="NAME", shell_complete=completion.balanced,
    help="The balancer on this interface.  [default: the only one]",
)  # fmt: skip
@click.option(
    "--service", metavar="NAME", shell_complete=completion.services,
    help="Only this service matters, by its name or address.  [default: any of them]",
)  # fmt: skip
@click.option(
    "--watch", is_flag=True,
    help="Go on, and print a line at each change; Ctrl-C or the end of the reader ends it.",
)  # fmt: skip
@click.option(
    "--interval", "every_s", type=Seconds(0.1, 3600), default=1.0, show_default=True,
    metavar="SECONDS",
    help="With --watch, how often to look; what becomes of an interface is seen at once.",
)  # fmt: skip
@json_option
def health(
    *, iface: str | None, service: str | None, watch: bool, every_s: float, as_json: bool
) -> None:
    """Say whether clients may be sent here, for keepalived, BIRD and others; 0 is yes, 3 is no.

    The balancer has to be up, with its program on all its interfaces, and not draining; and a
    service has to have a backend that takes new flows and whose next hop has answered. Of several
    services one is enough; which ones have none is said.

    \b
    Example:
        xdplb health
        xdplb health --iface eth0 --service dns
        xdplb health --watch
    """
    from xdplb.fitness import judge  # noqa: PLC0415 - not for --help
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    show = _show_json if as_json else _show
    with Machine() as machine:
        machine.require_privileges()
        if watch:
            _watch(lambda known: judge(machine, iface, service, known), show, every_s)
            return
        found = judge(machine, iface, service)
    show(found, indent=2)
    if not found.is_healthy:
        raise click.exceptions.Exit(_NOT_HEALTHY)


def _watch(
    look: Callable[[Fitness | None], Fitness], show: Callable[[Fitness], None], every_s: float
) -> None:
    """Look again and again, and show what is new, until a signal comes or nobody reads it."""
    from xdplb.kernel.events import OF_INTERFACES, Events  # noqa: PLC0415 - not for --help

    known: Fitness | None = None
    with Events(OF_INTERFACES) as events, suppress(KeyboardInterrupt):
        while True:
            events.clear()
            found = look(known)
            if known is None or to_text(found) != to_text(known):
                show(found)
            known = found
            _wait(events, every_s)


def _wait(events: Events, seconds: float) -> None:
    """Return after so long, or a while after a change of an interface.

    Raises:
        BrokenPipeError: Nobody reads what is written.
    """
    began = time.monotonic()
    poll = select.poll()
    poll.register(sys.stdout, 0)  # an end of the reader is told without being asked for
    _poll(poll, min(_REST_S, seconds))
    poll.register(events, select.POLLIN)
    _poll(poll, began + seconds - time.monotonic())


def _poll(poll: select.poll, seconds: float) -> None:
    for _, event in poll.poll(max(seconds, 0) * 1000):
        if event & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError(EPIPE, "nobody reads")


def _show(found: Fitness, *, indent: int | None = None) -> None:
    del indent
    click.echo(to_text(found))


def _show_json(found: Fitness, *, indent: int | None = None) -> None:
    click.echo(json.dumps(to_json(found), indent=indent))


def to_text(found: Fitness) -> str:
    """One line: ``healthy`` or ``unhealthy``, where, and why not."""
    clauses = [*found.reasons]
    if found.interfaces:
        fit = sum(not item.reason for item in found.services)
        clauses.insert(0, f"{', '.join(found.interfaces)}: {fit} of {_services(found)}")
    word = "healthy" if found.is_healthy else "unhealthy"
    return f"{word}  {'; '.join(clauses)}"


def _services(found: Fitness) -> str:
    return "1 service" if len(found.services) == 1 else f"{len(found.services)} services"


def to_json(found: Fitness) -> dict[str, Any]:
    """The same for programs."""
    return {
        "version": 1,
        "time": time.time(),
        "healthy": found.is_healthy,
        "draining": found.draining,
        "reasons": list(found.reasons),
        "interfaces": list(found.interfaces),
        "services": [
            {
                "name": item.service.name or None,
                "address": f"{item.service.dialled}",
                "protocol": item.service.protocol,
                "ports": port_list(item.service.ports),
                "healthy": not item.reason,
                "reason": item.reason or None,
            }
            for item in found.services
        ],
    }
