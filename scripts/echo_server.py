"""A UDP server that answers with its own address, the peer it saw, and the payload.

usage: echo_server.py ADDR:PORT
"""

from __future__ import annotations

import socket
import sys

MAX_DATAGRAM = 65535


def serve(address: str, port: int) -> None:
    """Answer for ever, from the address that was asked."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        while True:
            payload, peer = server.recvfrom(MAX_DATAGRAM)
            head = f"{address}:{port} {peer[0]}:{peer[1]} ".encode()
            server.sendto((head + payload)[:MAX_DATAGRAM], peer)


if __name__ == "__main__":
    host, _, number = sys.argv[1].partition(":")
    serve(host, int(number))
