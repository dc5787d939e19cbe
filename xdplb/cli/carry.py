"""``save`` and ``restore``: flows go into a file, and come back after a reboot or elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from xdplb import files, saved
from xdplb.balancer import Balancer
from xdplb.cli import completion, following
from xdplb.cli.params import Seconds, iface_option, json_option
from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from xdplb.saved import Restored, Saved

_JSON_VERSION: Final = 1
_EVERY_S: Final = 1.0


@click.command()
@iface_option
@click.option(
    "--follow", is_flag=True,
    help="Go on with what changes, for 'restore --follow' of another balancer; FILE is -.",
)  # fmt: skip
@click.option(
    "--interval", type=Seconds(0.1, 3600), metavar="SECONDS",
    help="How often, with --follow.  [default: 1]",
)  # fmt: skip
@click.argument("file", metavar="FILE", shell_complete=completion.files)
def save(*, iface: str | None, follow: bool, interval: float | None, file: str) -> None:
    """Write the live flows to FILE; - is the standard output.

    Forwarding goes on undisturbed. Flows that begin later are not in the file. With --follow they
    are sent, too, and another balancer has them when it is needed: until that one has gone, or this
    one is taken down. Whoever starts it again sends all flows again.

    \b
    Example:
        xdplb save flows
        xdplb save - | ssh other xdplb restore -
        xdplb save --follow - | ssh other xdplb restore --follow -
    """
    if follow:
        following.refuse_file(file)
        following.send(iface, interval or _EVERY_S)
        return
    if interval is not None:
        raise InvalidValueError("--interval is for --follow", "add that, or leave it out")
    files.refuse_target(file)
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Machine() as machine:
        found = Balancer(machine).save(iface)
    size = files.write(file, found.pieces())
    click.echo(f"saved: {found.count:,} flows, {size:,} bytes", err=file == files.STREAM)


@click.command()
@iface_option
@json_option
@click.option(
    "--follow", is_flag=True,
    help="Take what 'save --follow' of another balancer sends, until it ends; FILE is -.",
)  # fmt: skip
@click.argument("file", metavar="FILE", shell_complete=completion.files)
def restore(*, iface: str | None, as_json: bool, follow: bool, file: str) -> None:
    """Let the balancer go on with the flows in FILE; - is the standard input.

    Each keeps its NAT port and its backend. Flows that the balancer has already stay as they are;
    with --follow the other balancer's word counts, and they make room for its flows.
    After a reboot, 'up --restore FILE' does this before the first packet.

    \b
    Example:
        xdplb restore flows
        xdplb restore --iface eth0 --json flows
    """
    if follow:
        following.refuse_file(file)
        told = following.receive(iface)
        click.echo(to_json(told) if as_json else to_text(told))
        return
    found = read(file)
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Machine() as machine:
        done = Balancer(machine).restore(found, iface)
    click.echo(to_json(done) if as_json else to_text(done))


def read(file: str) -> Saved:
    """The flows in a file.

    Raises:
        InvalidValueError: It is not there, or not whole.
    """
    name = "the standard input" if file == files.STREAM else file
    return saved.read(files.read(file), name)


def to_text(done: Restored) -> str:
    """What became of saved flows, for people."""
    text = f"restored: {done.restored:,} of {done.flows:,} flows"
    reasons = [f"{count:,} {reason}" for reason, count in done.skipped.most_common() if count]
    if not reasons:
        return text
    return f"{text} ({done.skipped.total():,} skipped: {', '.join(reasons)})"


def to_json(done: Restored) -> str:
    """The same for programs."""
    return json.dumps(
        {
            "version": _JSON_VERSION,
            "flows": done.flows,
            "restored": done.restored,
            "skipped": {
                reason.name.lower(): count for reason, count in done.skipped.most_common() if count
            },
        }
    )
