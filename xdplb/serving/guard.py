"""Who is answered, and what a browser may do with the answer.

A page of somebody else must not read what is served here through a browser on this machine. It
could under a name of its own that leads to 127.0.0.1 (DNS rebinding): only addresses, and names
of this machine, are answered. In a frame it could borrow clicks: nothing may be in a frame.
"""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

METHODS: Final = ("GET", "HEAD")
HEADERS: Final = {
    "Connection": "close",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "xdplb",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::[0-9]{1,5})?")


def is_own_name(host: str) -> bool:
    """Whether a ``Host`` header names this machine in a way that nobody else can give away."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].lower()
    if name in {"localhost", socket.gethostname().lower()}:
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


@web.middleware
async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what is not asked for here; a Unix socket, which no browser opens, has any name."""
    if request.method not in METHODS:
        raise web.HTTPMethodNotAllowed(request.method, METHODS)
    if request.body_exists:
        raise web.HTTPBadRequest(text="a request has no body here\n")
    hosts = request.headers.getall("Host", [])
    if not _is_local(request) and (len(hosts) != 1 or not is_own_name(hosts[0])):
        raise web.HTTPMisdirectedRequest(
            text="this is no name of this machine: ask for it by its address, or as localhost; "
            "a proxy has to send one of them as Host\n"
        )
    return await handler(request)


def _is_local(request: web.Request) -> bool:
    sock = request.get_extra_info("socket")
    return sock is not None and sock.family == socket.AF_UNIX


async def protect(request: web.Request, response: web.StreamResponse) -> None:
    """Give an answer its headers; a connection has one."""
    del request
    response.headers.update(HEADERS)
    response.force_close()
