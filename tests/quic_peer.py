"""An end of a QUIC connection: a server that sends back what it hears, or a client that asks.

usage: quic_peer.py serve ADDRESS PORT CERTIFICATE KEY
       quic_peer.py ask ADDRESS PORT BYTES
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration

ALPN = ["echo"]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read())
    writer.write_eof()


async def answer(address: str, port: int, certificate: str, key: str) -> None:
    """Serve until the process is ended."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=ALPN)
    configuration.load_cert_chain(certificate, key)
    running = set()

    def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.ensure_future(_echo(reader, writer)))

    await serve(address, port, configuration=configuration, stream_handler=handle)
    await asyncio.Event().wait()


async def ask(address: str, port: int, size: int) -> None:
    """Send so many bytes, and get the same ones back."""
    configuration = QuicConfiguration(alpn_protocols=ALPN, verify_mode=ssl.CERT_NONE)
    content = os.urandom(size)
    async with connect(address, port, configuration=configuration) as connection:
        reader, writer = await connection.create_stream()
        writer.write(content)
        writer.write_eof()
        heard = await reader.read()
        assert heard == content, f"{len(heard)} bytes of {size}, or others"


def main(role: str, address: str, port: str, *more: str) -> None:
    """Play a role to its end."""
    if role == "serve":
        asyncio.run(answer(address, int(port), *more))
    else:
        asyncio.run(ask(address, int(port), int(more[0])))


if __name__ == "__main__":
    main(*sys.argv[1:])
