"""Checks by HTTP and HTTPS, against servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import subprocess
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from health_peers import LOCAL, bound, nothing_left_open, reason, target

from xdplb.checks import HttpCheck
from xdplb.health import probe_http
from xdplb.health.probes import probe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    Answer = Callable[[web.Request], web.StreamResponse]

NAME = "health.example"


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with nothing_left_open():
        yield


@asynccontextmanager
async def server(
    answer: Answer, tls: ssl.SSLContext | None = None, version: int = 4
) -> AsyncIterator[int]:
    async def handler(request: web.Request) -> web.StreamResponse:
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    with bound(socket.SOCK_STREAM, version) as (sock, port):
        await web.SockSite(runner, sock, ssl_context=tls).start()
        try:
            yield port
        finally:
            await runner.cleanup()


@asynccontextmanager
async def raw_server(answer: bytes, *, reset: bool = False) -> AsyncIterator[int]:
    """One that writes the same to everybody, and closes."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    made = await asyncio.start_server(handler, LOCAL[4], 0)
    async with made:
        yield made.sockets[0].getsockname()[1]


def fine(_: web.Request) -> web.Response:
    return web.Response(text="all is well")


def good(check: HttpCheck, answer: Answer = fine, tls: ssl.SSLContext | None = None) -> None:
    async def main() -> None:
        async with server(answer, tls) as port:
            await probe(check, target(port), 5)

    asyncio.run(main())


def bad(check: HttpCheck, answer: Answer = fine, tls: ssl.SSLContext | None = None) -> str:
    async def main() -> str:
        async with server(answer, tls) as port:
            return await reason(check, target(port))

    return asyncio.run(main())


def bad_raw(answer: bytes, check: HttpCheck, *, reset: bool = False) -> str:
    async def main() -> str:
        async with raw_server(answer, reset=reset) as port:
            return await reason(check, target(port))

    return asyncio.run(main())


def test_a_good_status_is_good() -> None:
    good(HttpCheck())


def test_ipv6_is_asked_like_ipv4() -> None:
    async def main() -> None:
        async with server(fine, version=6) as port:
            await probe(HttpCheck(body="well"), target(port, 6), 5)

    asyncio.run(main())


def test_the_path_and_the_host_are_asked_for_as_they_are_written() -> None:
    seen: list[tuple[str, str, str]] = []

    def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.raw_path, request.host))
        return web.Response()

    good(HttpCheck(path="/a%2Fb/../c?d=e%20f", host=f"{NAME}:80"), answer)
    assert seen == [("GET", "/a%2Fb/../c?d=e%20f", f"{NAME}:80")]


def test_without_a_host_the_address_is_the_host() -> None:
    seen: list[str] = []

    def answer(request: web.Request) -> web.Response:
        seen.append(request.host.partition(":")[0])
        return web.Response()

    good(HttpCheck(), answer)
    assert seen == ["127.0.0.1"]


def test_another_status_is_bad() -> None:
    assert bad(HttpCheck(), lambda _: web.Response(status=503)) == "status 503"
    good(HttpCheck(status="200,503"), lambda _: web.Response(status=503))


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    def answer(request: web.Request) -> web.Response:
        assert request.path == "/"
        return web.Response(status=302, headers={"Location": "/elsewhere"})

    good(HttpCheck(), answer)
    assert bad(HttpCheck(status="200"), answer) == "status 302"


def test_the_body_has_to_contain_what_is_expected() -> None:
    good(HttpCheck(body="is well"))
    assert bad(HttpCheck(body="is bad")) == "answer does not contain 'is bad'"
    good(HttpCheck(body="\N{SNOWMAN}"), lambda _: web.Response(text="a \N{SNOWMAN} b"))


def test_only_the_first_64_kb_of_a_body_are_looked_at() -> None:
    good(HttpCheck(body="here"), lambda _: web.Response(text="x" * (65536 - 4) + "here"))
    found = bad(HttpCheck(body="here"), lambda _: web.Response(text="x" * 65533 + "here"))
    assert found == "answer does not contain 'here'"


def test_what_is_no_http_is_bad() -> None:
    assert bad_raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", HttpCheck()) == "answer is not HTTP"


def test_a_connection_that_ends_too_early_is_bad() -> None:
    early = "connection closed before the end of the answer"
    assert bad_raw(b"", HttpCheck()) == early
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nwell"
    assert bad_raw(cut, HttpCheck(body="x")) == early


def test_a_connection_that_is_reset_is_bad() -> None:
    found = bad_raw(b"", HttpCheck(), reset=True)
    assert found == "connection reset by peer"


def test_nobody_listening_is_bad() -> None:
    with bound(socket.SOCK_STREAM) as (_, port):
        assert asyncio.run(reason(HttpCheck(), target(port))) == "connection refused"
        assert asyncio.run(reason(HttpCheck(tls=True), target(port))) == "connection refused"


def test_a_server_that_says_nothing_is_waited_for_as_long_as_the_limit() -> None:
    with bound(socket.SOCK_STREAM) as (sock, port):
        sock.listen()
        for check in (HttpCheck(), HttpCheck(tls=True)):
            found = asyncio.run(reason(check, target(port), 0.02))
            assert found == "no answer within 0.02 s"


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for NAME and 127.0.0.1, with its key."""
    made = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", f"/CN={NAME}"),
            *("-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1"),
            *("-keyout", f"{made}.key", "-out", f"{made}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    made.write_text(
        "".join(made.with_name(f"both.pem.{part}").read_text() for part in ("key", "crt"))
    )
    return made


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def _trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The certificate is one of the system's authorities."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}")
    probe_http.tls_context.cache_clear()
    yield
    probe_http.tls_context.cache_clear()


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize("host", [NAME, f"{NAME}:443", ""])
def test_https_is_good_with_a_certificate_for_the_host_or_the_address(
    tls: ssl.SSLContext, host: str
) -> None:
    named: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: named.append(name)
    good(HttpCheck(tls=True, host=host, body="well"), tls=tls)
    assert named == [NAME if host else None]  # an address is no name (RFC 6066 3)


@pytest.mark.usefixtures("_trusted")
def test_https_is_bad_with_a_certificate_for_somebody_else(tls: ssl.SSLContext) -> None:
    found = bad(HttpCheck(tls=True, host="other.example"), tls=tls)
    assert found.startswith("certificate is not good: Hostname mismatch")


def test_https_is_bad_with_a_certificate_of_nobody_known(tls: ssl.SSLContext) -> None:
    found = bad(HttpCheck(tls=True, host=NAME), tls=tls)
    assert found == "certificate is not good: self-signed certificate"


def test_https_without_verification_takes_any_certificate(tls: ssl.SSLContext) -> None:
    good(HttpCheck(tls=True, host="other.example", verify=False), tls=tls)


def test_https_with_a_server_of_http_is_bad() -> None:
    assert bad(HttpCheck(tls=True)) == "no TLS connection"
