"""``trace``: packets, and what becomes of them, as they pass."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from xdplb import source
from xdplb.balancer import Balancer
from xdplb.cli import completion
from xdplb.cli.params import Seconds, iface_option
from xdplb.errors import InvalidValueError
from xdplb.files import STREAM, refuse_target
from xdplb.parsing import parse_clients
from xdplb.tracing import ALL, DEFAULT_SNAP, GROUPS, MAX_SAMPLE, MAX_SNAP, USUAL, Wanted, to_json
from xdplb.verdicts import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from xdplb.pcapng import Writer
    from xdplb.tracing import Event, Tracer

_WAIT_S: Final = 0.5
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.option(
    "--client", metavar="ADDR[:PORT]|NETWORK", help="Only packets from and to these clients."
)
@click.option(
    "--reason", "reasons", multiple=True, metavar="NAME", type=click.Choice((*GROUPS, *VERDICTS)),
    help="Only what became this: a verdict as 'status' names it, drop, pass, icmp or new (flows); "
    "or all. Repeat it.  [default: new, drop and icmp; all with --client or --pcap]",
)  # fmt: skip
@click.option(
    "--sample", type=click.IntRange(1, MAX_SAMPLE), default=1, metavar="N",
    help="Of N packets, one.",
)  # fmt: skip
@click.option(
    "--pcap", metavar="FILE", shell_complete=completion.files,
    help="Write the packets, as they came and as they left, for Wireshark; - is the standard "
    "output.",
)  # fmt: skip
@click.option(
    "--snap", type=click.IntRange(64, MAX_SNAP), default=DEFAULT_SNAP, show_default=True,
    metavar="BYTES", help="Take so much of each packet.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after N packets.")
@click.option("--seconds", type=Seconds(0.1), metavar="S", help="End after S seconds.")
@iface_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each packet.")
def trace(  # noqa: PLR0913 - one argument for each option
    *,
    client: str | None,
    reasons: tuple[str, ...],
    sample: int,
    pcap: str | None,
    snap: int,
    count: int | None,
    seconds: float | None,
    iface: str | None,
    as_json: bool,
) -> None:
    """Show packets and what becomes of them, until Ctrl-C.

    The program is exchanged for one that tells, and back; no packet is lost by that, and whoever
    does not trace pays nothing for it. What it tells is chosen in the kernel.

    \b
    Example:
        xdplb trace
        xdplb trace --client 198.51.100.7 --pcap client.pcapng
        xdplb trace --reason drop --json
    """
    usual = (ALL,) if client is not None or pcap is not None else USUAL
    clients, port = parse_clients(client) if client is not None else (None, None)
    wanted = Wanted(frozenset(reasons or usual), clients, port, sample, snap)
    with ExitStack() as held:
        file = _opened(pcap, held) if pcap is not None else None
        from xdplb.kernel.compiler import Compiler  # noqa: PLC0415 - not for --help

        compiler = Compiler(source.headers())
        from xdplb.kernel.machine import Machine  # noqa: PLC0415 - while the compiler warms up

        machine = held.enter_context(Machine(compiler))
        with Balancer(machine).trace(wanted, iface) as tracer:
            writer = _writer(file, tracer, snap) if file is not None else None
            output = _Output(writer, as_json=as_json, is_quiet=pcap == STREAM)
            try:
                _say(f"tracing {', '.join(tracer.interfaces)}; Ctrl-C ends it")
                _follow(tracer, output, count, seconds)
            except KeyboardInterrupt:
                pass
            finally:
                for number in _ENDING:  # what was exchanged is put back first
                    signal.signal(number, signal.SIG_IGN)
                _sum_up(output.told, tracer.lost)


class _Output:
    """What is done with each packet."""

    def __init__(self, writer: Writer | None, *, as_json: bool, is_quiet: bool) -> None:
        self._writer = writer
        self._as_json = as_json
        self._is_quiet = is_quiet
        self.told = 0

    def show(self, events: Sequence[Event]) -> None:
        """Print them, and write them to the file if there is one."""
        for event in events:
            if self._writer is not None:
                self._writer.write(event)
            if not self._is_quiet:
                click.echo(json.dumps(to_json(event)) if self._as_json else _line(event))
        if self._writer is not None and events:
            self._writer.flush()
        self.told += len(events)


def _line(event: Event) -> str:
    at = datetime.fromtimestamp(event.at_ns / 1e9, UTC).astimezone()
    return f"{at:%H:%M:%S.%f} {event}"


def _say(line: str) -> None:
    """Tell a person, and not whoever reads the output."""
    click.echo(line, err=True)


def _follow(tracer: Tracer, output: _Output, count: int | None, seconds: float | None) -> None:
    """Show packets until there were so many, or so long, or somebody has ended the trace."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while tracer.is_on():
        left = _WAIT_S if deadline is None else min(deadline - time.monotonic(), _WAIT_S)
        if left <= 0:
            return
        events = tracer.wait(left)
        output.show(events if count is None else events[: count - output.told])
        if count is not None and output.told >= count:
            return
    _say("the balancer was changed or taken down: the trace has ended")


def _sum_up(told: int, lost: int) -> None:
    _say(f"{told:,} packets" + (f", {lost:,} more were lost" if lost else ""))
    if lost:
        _say("  hint: ask for less, with --client, --reason or --sample")


def _opened(name: str, held: ExitStack) -> BinaryIO:
    """The file to write packets to.

    Raises:
        InvalidValueError: It cannot be written.
    """
    refuse_target(name)
    if name == STREAM:
        return sys.stdout.buffer
    try:
        return held.enter_context(Path(name).open("wb"))
    except OSError as error:
        raise InvalidValueError(f"cannot write {name}: {error.strerror}") from error


def _writer(file: BinaryIO, tracer: Tracer, snap: int) -> Writer:
    from xdplb.pcapng import Writer  # noqa: PLC0415 - only here

    return Writer(file, tracer.interfaces, snap)
