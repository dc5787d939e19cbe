"""``save --follow`` and ``restore --follow``: flows as they change, until one end has gone."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import click

from xdplb import files, stream
from xdplb.balancer import Balancer
from xdplb.errors import InvalidValueError
from xdplb.saved import Restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdplb.saved import Saved, Skip

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MS_PER_S: Final = 1000


def refuse_file(file: str) -> None:
    """Let a stream go by the standard streams alone.

    Raises:
        InvalidValueError: A file is named.
    """
    if file != files.STREAM:
        raise InvalidValueError(
            f"--follow goes on without an end, and {file} would, too",
            "name -: 'xdplb save --follow - | ssh other xdplb restore --follow -'",
        )


def send(iface: str | None, interval: float) -> None:
    """Write all flows, and then what changes, until nobody reads it or the balancer has gone.

    Args:
        iface: One that the balancer sits on; None for the only balancer.
        interval: Seconds from one time to the next.
    """
    files.refuse_target(files.STREAM)
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    reason = "the balancer has gone, or balances other IP versions now"
    with Machine() as machine:
        try:
            _send(Balancer(machine).follow(interval, iface), interval)
        except BrokenPipeError:
            reason = "nobody reads it any more"
        except KeyboardInterrupt:
            return
    _say(f"the stream has ended: {reason}")


def _send(changes: Iterator[tuple[Saved, bool]], interval: float) -> None:
    """Write what comes; say when that was all that there was at the beginning.

    Raises:
        BrokenPipeError: Nobody reads it any more.
    """
    out = sys.stdout.fileno()
    _write(out, stream.head())
    count, is_whole = 0, False
    for found, has_more in changes:
        _write(out, stream.to_bytes(found, has_more=has_more))
        count += found.count
        if has_more:
            continue
        if not is_whole:
            _say(f"following: {count:,} flows sent; Ctrl-C ends it")
            is_whole = True
        _wait(out, interval)


def _write(out: int, data: bytes) -> None:
    """Write all of it; nothing is left in a buffer for the end of the process."""
    with memoryview(data) as left:
        at = 0
        while at < len(left):
            at += os.write(out, left[at:])


def _wait(out: int, seconds: float) -> None:
    """Wait so long.

    Raises:
        BrokenPipeError: Whoever reads has gone meanwhile.
    """
    poll = select.poll()
    poll.register(out, 0)
    if poll.poll(seconds * _MS_PER_S):
        raise BrokenPipeError


def receive(iface: str | None) -> Restored:
    """Take what another balancer tells, until it ends; returns what became of all of it.

    Args:
        iface: One that the balancer sits on; None for the only balancer.
    """
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    flows, is_whole = 0, False
    skipped: Counter[Skip] = Counter()
    with Machine() as machine, suppress(KeyboardInterrupt):
        standby = Balancer(machine).standby(iface)
        for found, has_more in stream.sets(sys.stdin.buffer, "the standard input"):
            with _undisturbed():
                done = standby.take(found)
            flows += done.flows
            skipped.update(done.skipped)
            if not has_more and not is_whole:
                _say(f"following: {flows:,} flows came; Ctrl-C ends it")
                is_whole = True
    return Restored(flows, skipped)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let signals that end the process wait, so that a set is taken as a whole."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _say(line: str) -> None:
    """Tell a person, and not whoever reads the output."""
    click.echo(line, err=True)
