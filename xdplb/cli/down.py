"""``down``: at once, or when clients are elsewhere."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from xdplb.balancer import Balancer
from xdplb.cli import completion
from xdplb.cli.files import FILE, interfaces_of
from xdplb.cli.params import Seconds, json_option
from xdplb.draining import Patience
from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from xdplb.balancer import Stopped
    from xdplb.draining import Drain

_LONGEST_S: Final = 86400.0
_IDLE_S: Final = 10.0
"""Longer than keepalived and routing daemons take to send clients elsewhere, so that a pause of the
clients is not taken for that."""

_TIMEOUT_S: Final = 60.0


@click.command()
@click.option(
    "--iface", "ifaces", metavar="NAME", multiple=True, shell_complete=completion.balanced,
    help="Only the balancer on this interface.  [default: all]",
)  # fmt: skip
@click.option(
    "--config", type=FILE, metavar="FILE",
    help="Only the balancer on the interfaces that this file names.",
)  # fmt: skip
@click.option(
    "--drain", is_flag=True,
    help="Before that, let 'xdplb health' send clients elsewhere, and go on forwarding until no "
    "request comes any more; Ctrl-C leaves it up.",
)  # fmt: skip
@click.option(
    "--idle", "idle_s", type=Seconds(0.1, _LONGEST_S), metavar="SECONDS",
    help=f"With --drain, how long no request has to have come.  [default: {_IDLE_S:g}]",
)  # fmt: skip
@click.option(
    "--timeout", "timeout_s", type=Seconds(0.1, _LONGEST_S), metavar="SECONDS",
    help="With --drain, after how long it is taken down although requests come.  "
    f"[default: {_TIMEOUT_S:g}]",
)  # fmt: skip
@json_option
def down(  # noqa: PLR0913 - one argument for each option
    *,
    ifaces: tuple[str, ...],
    config: Path | None,
    drain: bool,
    idle_s: float | None,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Stop balancing, and put back what 'up' changed.

    \b
    Example:
        xdplb down
        xdplb down --drain
        xdplb down --drain --timeout 300
    """
    names = interfaces_of(config, ifaces)
    patience = _patience(idle_s, timeout_s, drain=drain)
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    def begins(item: Drain) -> None:
        if not as_json:
            click.echo(f"drains: {', '.join(item.names)}")

    with Machine() as machine:
        balancer = Balancer(machine)
        if patience is None:
            _show(balancer.down(names), as_json=as_json)
        else:
            with closing(balancer.drain(names, patience, begins)) as stopped:
                _show(stopped, as_json=as_json)


def _patience(idle_s: float | None, timeout_s: float | None, *, drain: bool) -> Patience | None:
    """How long to wait for clients to be elsewhere; None for not at all.

    Raises:
        InvalidValueError: It is said how long, but not that.
    """
    if drain:
        return Patience(idle_s or _IDLE_S, timeout_s or _TIMEOUT_S)
    for option, value in (("--idle", idle_s), ("--timeout", timeout_s)):
        if value is not None:
            raise InvalidValueError(f"{option} is for --drain", "say --drain, too, or leave it out")
    return None


def _show(stopped: Iterable[Stopped], *, as_json: bool) -> None:
    """Show what is down, each when it is; for programs all at the end."""
    found = []
    for item in stopped:
        found.append(item)
        if not as_json:
            _say(item)
    if as_json:
        click.echo(json.dumps({"version": 1, "down": [_as_json(item) for item in found]}, indent=2))
    elif not found:
        click.echo("nothing is up")


def _say(item: Stopped) -> None:
    on = ", ".join(item.interfaces)
    if item.drained is not None and item.drained.requests:
        click.echo(
            f"note: requests still came to {on}, {item.drained.requests:,} in the end; nothing "
            "has sent their clients elsewhere",
            err=True,
        )
    click.echo(f"down: {on} (program {item.program_id})")


def _as_json(item: Stopped) -> dict[str, Any]:
    drained = item.drained
    return {
        "interfaces": list(item.interfaces),
        "program": item.program_id,
        "drained": drained
        and {
            "waited": round(drained.waited_s, 3),
            "idle": not drained.requests,
            "requests": drained.requests,
        },
    }
