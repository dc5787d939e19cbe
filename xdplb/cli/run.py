"""``run``: the agent, in the foreground."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from xdplb.cli.files import FILE, load
from xdplb.cli.params import iface_option
from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xdplb.request import Request

_LEVELS = {logging.WARNING: 4, logging.INFO: 6}
"""Those of syslog, as systemd's journal takes them at the beginning of a line."""


class _Formatter(logging.Formatter):
    """Plain lines; with their level in front where the journal reads them."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        text = record.getMessage()
        if "JOURNAL_STREAM" in os.environ:
            return f"<{_LEVELS.get(record.levelno, 5)}>{text}"
        return f"xdplb: {text}"


@click.command()
@click.option("--config", type=FILE, metavar="FILE", help="Make what this file says run, first.")
@iface_option
def run(*, config: Path | None, iface: str | None) -> None:
    """Look after a balancer: check backends, follow interfaces; SIGHUP reads the file again.

    Forwarding does not need it. It may end at any time, and goes on where it was when it is
    started again.

    \b
    Example:
        xdplb run --config /etc/xdplb/xdplb.toml
        xdplb run
    """
    if config is not None and iface is not None:
        raise InvalidValueError(
            "--config and --iface exclude each other", "the file names the interfaces"
        )
    read = _reader(config)
    if read is not None:
        read()  # what is wrong with it is said before anything else
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    asyncio.run(_main(read, iface))


def _reader(config: Path | None) -> Callable[[], Request] | None:
    return None if config is None else lambda: load(config)


async def _main(read: Callable[[], Request] | None, iface: str | None) -> None:
    from xdplb.agent.agent import Agent  # noqa: PLC0415 - not for --help
    from xdplb.agent.notify import Notifier  # noqa: PLC0415 - not for --help
    from xdplb.kernel.claims import Claims  # noqa: PLC0415 - not for --help
    from xdplb.kernel.events import Events  # noqa: PLC0415 - not for --help
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Events() as events, Claims() as claims:
        agent = Agent(Machine, Notifier(), read=read, iface=iface, events=events, claim=claims.take)
        await agent.run()
