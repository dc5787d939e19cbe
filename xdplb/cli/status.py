"""``status``: how things are, once or again and again."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from xdplb.balancer import Balancer
from xdplb.cli import terminal
from xdplb.cli.params import Seconds, json_option
from xdplb.cli.sampling import Sampler, look, take
from xdplb.rates import History, is_worth_measuring, measure
from xdplb.render import to_json, to_text

if TYPE_CHECKING:
    from xdplb.rates import Measured

_MEASURE_S: Final = 1.0
"""Over how long it is measured how fast flows and NAT ports are used up."""

_USUAL_S: Final = 2.0
_KEPT: Final = 60


@click.command()
@click.option(
    "--watch", "every_s", type=Seconds(0.1, 3600), is_flag=False, flag_value=_USUAL_S,
    metavar="[SECONDS]",
    help=f"Look again every so many seconds ({_USUAL_S:g}), and show rates; Ctrl-C ends.",
)  # fmt: skip
@click.option(
    "--full",
    is_flag=True,
    help="Show every backend on a terminal, however many services there are.",
)
@json_option
def status(*, every_s: float | None, full: bool, as_json: bool) -> None:
    """Show the balancers of this network namespace, and what is not as it should be.

    \b
    Example:
        xdplb status
        xdplb status --watch
        xdplb status --json
    """
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    is_screen = terminal.is_terminal() and not as_json
    with Machine() as machine:
        balancer = Balancer(machine)
        if every_s is None and is_screen:
            _show_once(balancer, full=full)
        elif every_s is None:
            found = balancer.status()
            click.echo(to_json(found) if as_json else to_text(found))
        elif is_screen:
            _watch_screen(balancer, every_s, full=full)
        else:
            _watch_lines(balancer, every_s, as_json=as_json)


def _show_once(balancer: Balancer, *, full: bool) -> None:
    """Show the status; where it fills up, look twice to tell when it will be full."""
    from xdplb.screen.status import StatusScreen  # noqa: PLC0415 - only on a terminal

    now = look(balancer)
    found: Measured = {}
    if is_worth_measuring(now.balancers):
        time.sleep(_MEASURE_S)
        before, now = now, look(balancer)
        found = measure(before, now)
    terminal.console().print(StatusScreen(now.balancers, found, full=full))


def _watch_screen(balancer: Balancer, every_s: float, *, full: bool) -> None:
    """Replace what is shown again and again; the last of it stays."""
    from xdplb.screen.status import StatusScreen, watched  # noqa: PLC0415 - only on a terminal

    console, history = terminal.console(), History(_KEPT)
    shown, above = None, ""
    with (
        terminal.Screen(console) as screen,
        Sampler(balancer, every_s, ready=screen.wake) as sampler,
    ):
        keys: list[str] = []
        while "q" not in keys:
            sample = sampler.collect()
            if sample is not None:
                above = sample.trouble or f"{time.strftime('%X')}, every {every_s:g} s, q ends"
            if sample is not None and sample.look is not None:
                found = history.add(sample.look)
                shown = StatusScreen(sample.look.balancers, found, has_rates=True, full=full)
            if above:
                screen.show(watched(above, shown))
            keys = screen.wait(sampler.left_s)
    if shown is not None:
        console.print(shown)


def _watch_lines(balancer: Balancer, every_s: float, *, as_json: bool) -> None:
    """Print again and again, until Ctrl-C."""
    history, due = History(_KEPT), time.monotonic()
    with suppress(KeyboardInterrupt):
        while True:
            sample = take(balancer)
            if sample.look is None:
                click.echo(f"xdplb: {sample.trouble}", err=True)
            else:
                found = history.add(sample.look)
                if as_json:
                    click.echo(to_json(sample.look.balancers, found, indent=None))
                else:
                    click.echo(to_text(sample.look.balancers, found) + "\n")
            due = max(due + every_s, time.monotonic())
            time.sleep(max(due - time.monotonic(), 0))
