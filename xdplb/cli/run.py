"""``run``: the agent, in the foreground."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import click

from xdplb.cli.files import FILE, load
from xdplb.cli.params import PLACE, iface_option
from xdplb.errors import InvalidValueError, NotReadyError
from xdplb.listen import Listen

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from socket import socket

    from xdplb.agent.agent import Agent
    from xdplb.model import Endpoint
    from xdplb.request import Request

_LEVELS = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6}
"""Those of syslog, as systemd's journal takes them at the beginning of a line."""


class _Formatter(logging.Formatter):
    """Plain lines; with their level in front where the journal reads them."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and after it where a fault of ours came from."""
        text = record.getMessage()
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        if "JOURNAL_STREAM" in os.environ:
            return f"<{_LEVELS.get(record.levelno, 5)}>{text}"
        return f"xdplb: {text}"


@click.command()
@click.option("--config", type=FILE, metavar="FILE", help="Make what this file says run, first.")
@iface_option
@click.option(
    "--listen", "place", type=PLACE,
    help="Serve metrics, the status and a page that shows it, by HTTP: to this machine alone.",
)  # fmt: skip
@click.option(
    "--allow-remote", is_flag=True,
    help="Listen on an address that others can reach, who are not asked for a password.",
)  # fmt: skip
def run(
    *, config: Path | None, iface: str | None, place: Endpoint | Path | None, allow_remote: bool
) -> None:
    """Look after a balancer: check backends, follow interfaces; SIGHUP reads the file again.

    Forwarding does not need it. It may end at any time, and goes on where it was when it is
    started again.

    \b
    Example:
        xdplb run --config /etc/xdplb/xdplb.toml
        xdplb run --listen 127.0.0.1:9170
    """
    if config is not None and iface is not None:
        raise InvalidValueError(
            "--config and --iface exclude each other", "the file names the interfaces"
        )
    read = _reader(config)
    if read is not None:
        read()  # what is wrong with it is said before anything else
    listen = _listen(config, place, allow_remote=allow_remote)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    import asyncio  # noqa: PLC0415 - not for --help

    if listen is None:
        asyncio.run(_main(read, iface, None))
        return
    _require_libraries()
    from xdplb.serving.sockets import listening  # noqa: PLC0415 - not for --help

    with listening(listen) as sock:
        asyncio.run(_main(read, iface, sock))


def _reader(config: Path | None) -> Callable[[], Request] | None:
    return None if config is None else lambda: load(config)


def _listen(
    config: Path | None, place: Endpoint | Path | None, *, allow_remote: bool
) -> Listen | None:
    """Where to listen: what the options say, or else the file."""
    if place is not None:
        return Listen(place, allow_remote)
    if allow_remote:
        raise InvalidValueError("--allow-remote is said, and not where", "say it with --listen")
    if config is None:
        return None
    from xdplb.config import load_listen  # noqa: PLC0415 - not for --help

    return load_listen(config)


def _require_libraries() -> None:
    """Find out whether there is all that serving takes.

    Raises:
        NotReadyError: Something is missing.
    """
    try:
        import aiohttp  # noqa: F401, PLC0415 - only who serves needs it
        import prometheus_client  # noqa: F401, PLC0415
    except ImportError as error:
        raise NotReadyError(
            f"--listen needs aiohttp and prometheus-client: {error}",
            "pip install 'xdplb[agent]'",
        ) from None


async def _main(read: Callable[[], Request] | None, iface: str | None, sock: socket | None) -> None:
    from xdplb.agent.agent import Agent  # noqa: PLC0415 - not for --help
    from xdplb.agent.notify import Notifier  # noqa: PLC0415 - not for --help
    from xdplb.kernel.claims import Claims  # noqa: PLC0415 - not for --help
    from xdplb.kernel.events import Events  # noqa: PLC0415 - not for --help
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Events() as events, Claims() as claims:
        agent = Agent(Machine, Notifier(), read=read, iface=iface, events=events, claim=claims.take)
        if sock is None:
            await agent.run()
        else:
            await _serve(agent, sock)


async def _serve(agent: Agent, sock: socket) -> None:
    """Let the agent run, and answer meanwhile."""
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help
    from xdplb.serving.answers import Answers  # noqa: PLC0415 - only here
    from xdplb.serving.server import serving  # noqa: PLC0415 - only here

    async with serving(sock, Answers(Machine, agent.report)):
        await agent.run()
