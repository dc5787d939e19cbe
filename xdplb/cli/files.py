"""``check``, ``apply`` and ``export``: the balancer in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xdplb import applying, source
from xdplb.balancer import Balancer
from xdplb.cli.params import iface_option, json_option
from xdplb.cli.starting import say_up
from xdplb.difference import difference
from xdplb.errors import InvalidValueError
from xdplb.secret import hash_keys

if TYPE_CHECKING:
    from xdplb.applying import Preview
    from xdplb.request import Request

FILE = click.Path(path_type=Path)


def load(path: Path) -> Request:
    """Read a configuration file.

    Raises:
        XdplbError: What is wrong with it.
    """
    from xdplb.config import load as read  # noqa: PLC0415 - not for --help

    return read(path)


@click.command()
@click.argument("file", metavar="FILE", type=FILE)
def check(*, file: Path) -> None:
    """Look whether a file is right, and a secret that it names; nothing is touched.

    \b
    Example:
        xdplb check /etc/xdplb/xdplb.toml
    """
    from xdplb.config import problems  # noqa: PLC0415 - not for --help

    wrong = problems(file)
    for error in wrong[:-1]:
        click.echo(f"xdplb: {error}", err=True)
        click.echo(f"  hint: {error.hint}", err=True)
    if wrong:
        raise wrong[-1]
    request = load(file)
    if request.secret is not None:
        hash_keys(request.secret)
    click.echo(
        f"{file} is right: {_count(len(request.services), 'service')} with "
        f"{_count(len(request.backends), 'backend')} on {', '.join(request.interfaces)}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@click.command()
@click.argument("file", metavar="FILE", type=FILE)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@json_option
def apply(*, file: Path, dry_run: bool, as_json: bool) -> None:
    """Make what runs what stands in a file: only what differs is touched, and flows stay.

    Whatever is different, a packet meets the old balancer or the new one, nothing between.

    \b
    Example:
        xdplb apply /etc/xdplb/xdplb.toml --dry-run
        xdplb apply /etc/xdplb/xdplb.toml
    """
    request = load(file)
    from xdplb.kernel.compiler import Compiler  # noqa: PLC0415 - not for --help

    compiler = None if dry_run else Compiler(source.headers())
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - while the compiler warms up

    with Machine(compiler) as machine:
        found = applying.preview(machine, request)
        if not as_json:
            _say(found)
        if dry_run:
            if as_json:
                click.echo(json.dumps(_as_json(found, applied=False), indent=2))
            return
        done = applying.apply(machine, request, found)
    if as_json:
        click.echo(json.dumps(_as_json(done.preview, applied=True), indent=2))
        return
    if done.report is not None:
        say_up(done.report)
    elif found.way is applying.Way.WRITE:
        late = ", ".join(f"{item}" for item in done.unresolved)
        click.echo("applied" + (f"; nobody has answered for {late} yet" if late else ""))


def _say(found: Preview) -> None:
    if found.draining:
        click.echo("it is not to be taken down any more: clients may come back")
    if found.way is applying.Way.NOTHING:
        click.echo("nothing to change")
        return
    if found.before is None:
        click.echo("nothing is up yet: all of it is new")
        return
    for line in difference(found.before, found.after):
        click.echo(f"{line}")
    for count, what in (
        (found.moving, "to another backend"),
        (found.ending, "to an end, with their service"),
    ):
        if count:
            click.echo(f"{_count(count, 'live flow')} {'comes' if count == 1 else 'come'} {what}")


def _as_json(found: Preview, *, applied: bool) -> dict[str, Any]:
    lines = [] if found.before is None else difference(found.before, found.after)
    return {
        "version": 1,
        "way": found.way,
        "applied": applied,
        "changes": [{"kind": line.kind, "text": line.text} for line in lines],
        "flows": {"moving": found.moving, "ending": found.ending},
    }


@click.command()
@iface_option
def export(*, iface: str | None) -> None:
    """Print what runs as a file that 'apply' takes.

    \b
    Example:
        xdplb export > /etc/xdplb/xdplb.toml
    """
    from xdplb.config import dump  # noqa: PLC0415 - not for --help
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Machine() as machine:
        request = Balancer(machine).request(iface)
    click.echo(dump(request), nl=False)


def interfaces_of(file: Path | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """The interfaces that a command is about: those of a file, or those that it was given.

    Raises:
        InvalidValueError: It was given both.
    """
    if file is None:
        return names
    if names:
        raise InvalidValueError(
            "--config and --iface exclude each other", "the file names the interfaces"
        )
    return load(file).interfaces
