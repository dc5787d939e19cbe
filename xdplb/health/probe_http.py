"""A GET request, and the status and the body of its answer (RFC 9110)."""

from __future__ import annotations

import ssl
from functools import cache
from typing import TYPE_CHECKING, Final

from xdplb.errors import NotReadyError
from xdplb.health.target import ProbeFailed, os_reason, quoted
from xdplb.model import bracketed

if TYPE_CHECKING:
    from aiohttp import ClientError, ClientResponse

    from xdplb.checks import HttpCheck
    from xdplb.health.target import Target

MAX_BODY: Final = 65536
"""Bytes of a body that are looked at."""


def require_aiohttp() -> None:
    """Find out whether requests can be sent.

    Raises:
        NotReadyError: aiohttp is not installed.
    """
    try:
        import aiohttp  # noqa: F401, PLC0415 - only who checks by HTTP needs it
    except ImportError:
        raise NotReadyError(
            "health checks by HTTP need aiohttp", "pip install 'xdplb[agent]'"
        ) from None


async def probe_http(check: HttpCheck, target: Target) -> None:
    """Ask over a connection of its own, and follow no redirect.

    Raises:
        ProbeFailed: There is no connection, or its certificate or the answer is not good.
        NotReadyError: aiohttp is not installed.
    """
    require_aiohttp()
    import aiohttp  # noqa: PLC0415 - only who checks by HTTP needs it
    from yarl import URL  # noqa: PLC0415 - aiohttp's own

    _, port = target.endpoint
    scheme = "https" if check.tls else "http"
    url = URL(f"{scheme}://{bracketed(target.address)}:{port}{check.path}", encoded=True)
    headers = {"User-Agent": "xdplb", "Accept-Encoding": "identity"}
    if check.host:
        headers["Host"] = check.host
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, ssl=tls_context(verify=check.verify)),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        auto_decompress=False,
    ) as session:
        try:
            async with session.get(
                url,
                headers=headers,
                allow_redirects=False,
                server_hostname=(check.name or None) if check.tls else None,
            ) as answer:
                await _judge(check, answer)
        except aiohttp.ClientError as error:
            raise ProbeFailed(_reason(error)) from None


@cache
def tls_context(*, verify: bool) -> ssl.SSLContext:
    """What both ends have to agree on; made once, as reading the system's authorities is slow."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _judge(check: HttpCheck, answer: ClientResponse) -> None:
    if not check.accepts(answer.status):
        raise ProbeFailed(f"status {answer.status}")
    if not check.body:
        return
    body = bytearray()
    while len(body) < MAX_BODY:
        part = await answer.content.read(MAX_BODY - len(body))
        if not part:
            break
        body += part
    if check.body.encode() not in body:
        raise ProbeFailed(f"answer does not contain {quoted(check.body)!r}")


def _reason(error: ClientError) -> str:
    """What went wrong, from the many classes of aiohttp."""
    import aiohttp  # noqa: PLC0415 - only who checks by HTTP needs it

    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        detail = getattr(cause, "verify_message", "") or f"{cause}"
        return f"certificate is not good: {quoted(detail)}"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "no TLS connection"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os_reason(error.os_error)
    if isinstance(error, OSError):
        return os_reason(error)
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "connection closed before the end of the answer"
    return "answer is not HTTP"
