"""The HTTP server: what is where, and how much anybody may take of it."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from xdplb.config.files import SHARE
from xdplb.metrics import CONTENT_TYPE
from xdplb.serving.answers import verdicts
from xdplb.serving.guard import guarded, protect

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from aiohttp.typedefs import Handler

    from xdplb.serving.answers import Answers

PAGE: Final = SHARE / "web"
FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
READ_AT: Final = "Xdplb-Read-At"
"""The header that says when the status was read, in seconds since 1970."""
MOST_CONNECTIONS: Final = 32
LONGEST_S: Final = 10.0
"""How long a connection may live: one request, and its answer."""
SWEEP_S: Final = 1.0
LONGEST_LINE: Final = 4096
"""Bytes of the request line, and of each header."""


log: Final = logging.getLogger("xdplb.http")
log.addFilter(lambda record: not _is_of_client(record))


def _is_of_client(record: logging.LogRecord) -> bool:
    """Whether only a client did something wrong, which is told to it and nobody else."""
    return record.exc_info is not None and isinstance(record.exc_info[1], HttpProcessingError)


@asynccontextmanager
async def serving(sock: socket.socket, answers: Answers) -> AsyncIterator[None]:
    """Answer whoever comes to ``sock``."""
    runner = web.AppRunner(
        _application(answers),
        access_log=None,
        keepalive_timeout=0,
        lingering_time=0,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
        logger=log,
    )
    await runner.setup()
    door = _Door(cast("web.Server", runner.server))
    listener = await asyncio.get_running_loop().create_server(door.open, sock=sock)
    sweeper = asyncio.create_task(door.sweep())
    try:
        yield
    finally:
        listener.close()
        sweeper.cancel()
        door.end_all()
        await asyncio.gather(sweeper, return_exceptions=True)
        await runner.cleanup()
        await answers.close()


class _Door:
    """Lets in so many connections at a time, each for so long.

    They take descriptors of the agent, which it needs for its checks.
    """

    def __init__(self, server: web.Server) -> None:
        """Lead to ``server``."""
        self._server = server
        self._seen: dict[web.RequestHandler, float] = {}

    def open(self) -> asyncio.Protocol:
        """Who speaks with a connection that has just come."""
        return self._server() if len(self._server.connections) < MOST_CONNECTIONS else _Refusal()

    async def sweep(self) -> None:
        """End the connections that have lived too long, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_S)
            now = loop.time()
            self._seen = {it: self._seen.get(it, now) for it in self._server.connections}
            for handler, since in self._seen.items():
                if now - since >= LONGEST_S:
                    _end(handler)

    def end_all(self) -> None:
        """End all connections."""
        for handler in self._server.connections:
            _end(handler)


class _Refusal(asyncio.Protocol):
    """Ends a connection as it comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """End it."""
        cast("asyncio.Transport", transport).abort()


def _end(handler: web.RequestHandler) -> None:
    """End a connection, whatever it waits for."""
    if handler.transport is not None:
        handler.transport.abort()


def _application(answers: Answers) -> web.Application:
    app = web.Application(middlewares=[guarded])
    app.on_response_prepare.append(protect)
    for path, (name, kind) in FILES.items():
        app.router.add_get(path, _constant((PAGE / name).read_text(), kind))
    app.router.add_get("/verdicts.json", _constant(verdicts(), "application/json"))

    async def status(_: web.Request) -> web.Response:
        reading = await answers.status.get()
        return web.Response(
            text=f"{reading.text}\n",
            content_type="application/json",
            status=200 if reading.error is None else 503,
            headers={READ_AT: f"{reading.at:.3f}"},
        )

    async def agent(_: web.Request) -> web.Response:
        return web.Response(text=f"{answers.agent()}\n", content_type="application/json")

    async def metrics(_: web.Request) -> web.Response:
        text = await answers.metrics.get()
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def health(_: web.Request) -> web.Response:
        if answers.is_alive:
            return web.Response(text="ok\n")
        return web.Response(text="a step of the agent takes too long\n", status=503)

    app.router.add_get("/status.json", status)
    app.router.add_get("/agent.json", agent)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", health)
    return app


def _constant(text: str, kind: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return answer
