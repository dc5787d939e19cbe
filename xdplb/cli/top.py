"""``top``: what is going on, second by second, for somebody at a terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import click

from xdplb.balancer import Balancer
from xdplb.cli import terminal
from xdplb.cli.params import Seconds, json_option
from xdplb.cli.sampling import Sampler, look
from xdplb.errors import NotReadyError
from xdplb.rates import History, measure
from xdplb.render import to_json, to_text
from xdplb.screen.view import View, press, rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.cli.sampling import Sample
    from xdplb.model import BalancerStatus, Clients
    from xdplb.rates import Measured
    from xdplb.screen.top import TopScreen
    from xdplb.screen.view import Row

_CLIENTS: Final = 10
_KEPT: Final = 60


@click.command()
@click.option(
    "--interval", "every_s", type=Seconds(0.1, 60), metavar="SECONDS",
    default=1.0, show_default=True,
    help="How often, and over how long, it is measured.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Measure once, and print that as text.")
@json_option
def top(*, every_s: float, once: bool, as_json: bool) -> None:
    """Show what is going on: rates of services and backends, who has most flows, and drops.

    The terminal is taken over until 'q' is pressed; 'h' says what other keys do.

    \b
    Example:
        xdplb top
        xdplb top --interval 5
        xdplb top --once
        xdplb top --json
    """
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    is_once = once or as_json
    if not is_once and not (terminal.is_terminal() and terminal.has_keys()):
        raise NotReadyError(
            "top needs a terminal, for its keys and to show things in place",
            "'xdplb top --once' or '--json' measures once, 'xdplb status --watch' again and again",
        )
    with Machine() as machine:
        balancer = Balancer(machine)
        if is_once:
            click.echo(_measured(balancer, every_s, as_json=as_json))
        else:
            _show(balancer, every_s)


def _measured(balancer: Balancer, seconds: float, *, as_json: bool) -> str:
    """One measurement.

    Raises:
        XdplbError: The balancers cannot be read.
    """
    first = look(balancer)
    time.sleep(seconds)
    second, clients = look(balancer), balancer.clients(_CLIENTS)
    found = measure(first, second)
    to = to_json if as_json else to_text
    return to(second.balancers, found, clients)


def _show(balancer: Balancer, every_s: float) -> None:
    """Take the terminal over until somebody quits."""
    console, shown = terminal.console(), Top(every_s)
    with (
        terminal.Screen(console) as screen,
        Sampler(balancer, every_s, screen.wake, _CLIENTS) as sampler,
    ):
        keys: list[str] = []
        while "q" not in keys:
            for key in keys:
                shown.press(key, screen.height)
            sample = sampler.collect()
            if sample is not None:
                shown.take(sample)
            if shown.is_ready:
                screen.show(shown.screen())
            keys = screen.wait(sampler.left_s)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is shown: while it is paused, that of a moment ago."""

    at: str
    balancers: tuple[BalancerStatus, ...] = ()
    measured: Measured = field(default_factory=dict)
    clients: Sequence[Clients] = ()
    history: History = field(default_factory=lambda: History(_KEPT))
    trouble: str = ""


class Top:
    """What was measured, and what somebody wants to see of it."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._history = History(_KEPT)
        self._view = View()
        self._now = self._shown = _Known("")

    @property
    def is_ready(self) -> bool:
        """Whether there is anything to show."""
        return bool(self._shown.at)

    def take(self, sample: Sample) -> None:
        """Take in what was found."""
        now = replace(self._now, at=time.strftime("%X"), trouble=sample.trouble)
        if sample.clients is not None:
            now = replace(now, clients=sample.clients)
        if sample.look is not None:
            measured = self._history.add(sample.look)
            now = replace(now, balancers=sample.look.balancers, measured=measured)
        self._now = replace(now, history=self._history.copy())
        self._follow()

    def press(self, key: str, height: int) -> None:
        """Do what a key stands for, on a screen of so many lines."""
        from xdplb.screen.top import page_of  # noqa: PLC0415 - only on a terminal

        self._view = press(self._view, key, page_of(height), len(self._rows()))
        self._follow()

    def _follow(self) -> None:
        if not self._view.is_paused:
            self._shown = self._now

    def _rows(self) -> list[Row]:
        shown = self._shown
        return rows(shown.balancers, shown.measured, shown.history, self._view)

    def screen(self) -> TopScreen:
        """What is to be seen."""
        from xdplb.screen.top import TopScreen  # noqa: PLC0415 - only on a terminal

        shown = self._shown
        return TopScreen(
            balancers=shown.balancers,
            measured=shown.measured,
            rows=self._rows(),
            history=shown.history,
            clients=shown.clients,
            view=self._view,
            said=f"{shown.at}, every {self._every_s:g} s",
            trouble=shown.trouble,
        )
