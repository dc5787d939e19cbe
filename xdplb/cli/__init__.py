"""The command line: options in, text and exit codes out. Nothing is decided here."""

from __future__ import annotations

import signal
import sys
from typing import Any, NoReturn

import click

from xdplb import __version__
from xdplb.cli.backend import backend
from xdplb.cli.commands import down, status, up
from xdplb.cli.files import apply, check, export
from xdplb.errors import XdplbError


class _Group(click.Group):
    """The one place where an error becomes a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        try:
            return super().invoke(ctx)
        except XdplbError as error:
            if ctx.params.get("verbose") and error.__cause__ is not None:
                click.echo(f"cause: {error.__cause__!r}", err=True)
            click.echo(f"xdplb: {error}", err=True)
            if error.hint:
                click.echo(f"  hint: {error.hint}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--netns",
    metavar="NAME|PATH",
    help="Work in this network namespace: a name of 'ip netns', or a path.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say more about errors.")
@click.version_option(__version__, "-V", "--version", prog_name="xdplb")
@click.pass_context
def commands(ctx: click.Context, *, netns: str | None, verbose: bool) -> None:
    """Balance UDP and TCP over several servers, at the speed of XDP.

    \b
    Example:
        xdplb up --iface eth0 --backend 192.0.2.10 --backend 192.0.2.11
        xdplb status
        xdplb down
    """
    del verbose  # read where errors are printed
    if netns is not None and ctx.invoked_subcommand is not None:
        from xdplb.kernel.netns import enter  # noqa: PLC0415 - not for --help

        enter(netns)


for command in (up, status, down, backend, check, apply, export):
    commands.add_command(command)


def _end(number: int, frame: object) -> NoReturn:
    """Let a signal end the process like an error does: what was begun is undone."""
    del frame
    sys.exit(128 + number)


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _end)
    sys.exit(commands())
