"""``doctor``: what keeps a balancer from working here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from xdplb import source
from xdplb.balancer import Balancer
from xdplb.cli import completion
from xdplb.cli.params import json_option

if TYPE_CHECKING:
    from xdplb.doctor import Done, Result

_NOT_READY = 3
_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option(
    "--iface", "ifaces", metavar="NAME", multiple=True, shell_complete=completion.interfaces,
    help="Look at this interface, used or not. Repeat it.  [default: those of all balancers]",
)  # fmt: skip
@click.option(
    "--fix", is_flag=True,
    help="Mend what can be mended without harm to traffic, and say how to undo that.",
)  # fmt: skip
@json_option
@click.pass_context
def doctor(context: click.Context, *, ifaces: tuple[str, ...], fix: bool, as_json: bool) -> None:
    """Look for what keeps a balancer from working, and say what mends it.

    Before the first 'up' it tells whether that would work, and in which mode. Nothing is changed
    without --fix; the program is compiled and loaded for a moment, and other hosts are asked
    by ARP for the balancer's addresses. Exit code 3: something fails.

    \b
    Example:
        xdplb doctor --iface eth0
        xdplb doctor
        xdplb doctor --fix
    """
    from xdplb.kernel.compiler import Compiler  # noqa: PLC0415 - not for --help

    compiler = Compiler(source.headers())
    from xdplb.doctor import examine, has_failed, mend, to_json, to_text  # noqa: PLC0415
    from xdplb.kernel.examiner import Examiner  # noqa: PLC0415 - while the compiler warms up
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - the same

    netns = (context.parent.params.get("netns") if context.parent else None) or ""
    done: list[Done] = []
    with Machine(compiler) as machine, Examiner(machine, Balancer(machine).status) as examiner:
        findings = examine(examiner, ifaces)
        if fix:
            with machine.lock():
                done = mend(examiner, findings)
        if done:
            findings = examine(examiner, ifaces)
    if as_json:
        click.echo(to_json(findings, done, netns))
    else:
        click.echo(to_text(findings, done, netns, _paint), color=_has_colours())
    if has_failed(findings):
        raise click.exceptions.Exit(_NOT_READY)


def _paint(word: str, result: Result) -> str:
    return click.style(word, fg=_COLOURS[result])


def _has_colours() -> bool | None:
    """False for no colours at all (no-color.org); None where click looks for a terminal."""
    return False if os.environ.get("NO_COLOR") else None
