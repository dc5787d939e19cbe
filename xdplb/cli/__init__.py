"""The command line: options in, text and exit codes out. Nothing is decided here."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from xdplb import __version__
from xdplb.cli import completion
from xdplb.cli.backend import backend
from xdplb.cli.capacity import capacity
from xdplb.cli.carry import restore, save
from xdplb.cli.commands import metrics, up
from xdplb.cli.doctor import doctor
from xdplb.cli.down import down
from xdplb.cli.explain import explain
from xdplb.cli.files import apply, check, export
from xdplb.cli.flows import flows, whois
from xdplb.cli.health import health
from xdplb.cli.run import run
from xdplb.cli.status import status
from xdplb.cli.top import top
from xdplb.cli.trace import trace
from xdplb.errors import XdplbError, surroundings

if TYPE_CHECKING:
    from typing import TextIO

_MORE = f"Tutorial, recipes, reference: {Path(__file__).parents[1] / 'share' / 'README.md'}"


class _Group(click.Group):
    """The one place where an error becomes a message and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - whatever the command returns
        try:
            return super().invoke(ctx)
        except XdplbError as error:
            refused = error
        except OSError as error:
            known = surroundings(error)
            if known is None:
                raise
            refused = known
        _refuse(refused, is_verbose=bool(ctx.params.get("verbose")))
        raise click.exceptions.Exit(refused.exit_code)


def _refuse(error: XdplbError, *, is_verbose: bool) -> None:
    """Print why a command did not do what it was asked for, if anything can be printed."""
    lines = [f"xdplb: {error}"]
    if is_verbose and error.__cause__ is not None:
        lines.insert(0, f"cause: {error.__cause__!r}")
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    try:
        click.echo("\n".join(lines), err=True)
    except OSError:
        _let_go(sys.stderr)
    try:
        click.echo("", nl=False)
    except OSError:
        _let_go(sys.stdout)


def _let_go(stream: TextIO) -> None:
    """Forget what a stream could not write: Python would try again, and fail, at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"\b\n{_MORE}"
)
@click.option(
    "--netns",
    metavar="NAME|PATH",
    shell_complete=completion.namespaces,
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


_COMMANDS = (
    *(up, status, top, health, down, backend),
    *(check, apply, export, run),
    *(save, restore, flows, whois, explain, trace, doctor, metrics, capacity),
)
for command in _COMMANDS:
    commands.add_command(command)


def _end(number: int, frame: object) -> NoReturn:
    """Let a signal end the process like an error does: what was begun is undone."""
    del frame
    sys.exit(128 + number)


def main() -> None:
    """Run the command line and exit."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) wants it
            signal.signal(number, _end)
    try:
        sys.exit(commands())
    except OSError as error:  # what click prints by itself, such as the help
        known = surroundings(error)
        if known is None:
            raise
        _refuse(known, is_verbose=False)
        sys.exit(known.exit_code)
