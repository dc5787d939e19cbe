"""Send UDP datagrams and print who answered, and whom the server took for the client.

Exits with 1 if an answer is missing or came from anybody but the service.

usage: echo_client.py [--count N] [--timeout SECONDS] SERVICE:PORT CLIENT[:PORT] ...
"""

from __future__ import annotations

import argparse
import socket
import sys


def endpoint(text: str) -> tuple[str, int]:
    """``ADDR[:PORT]``; port 0 lets the kernel choose."""
    address, _, port = text.partition(":")
    return address, int(port or 0)


def ask(client: tuple[str, int], service: tuple[str, int], count: int, timeout: float) -> bool:
    """Send ``count`` datagrams from one socket; returns whether all were answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(client)
        sender.settimeout(timeout)
        own = f"{client[0]}:{sender.getsockname()[1]}"
        for number in range(count):
            sender.sendto(f"hello {number}".encode(), service)
            try:
                answer, source = sender.recvfrom(65535)
            except TimeoutError:
                print(f"{own} no answer")
                return False
            server, seen, _ = answer.decode().split(" ", 2)
            print(f"{own} answered by {server}, which saw {seen}")
            if source != service:
                print(f"{own} got an answer from {source[0]}:{source[1]}")
                return False
    return True


def main() -> int:
    """Parse, ask for each client, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=2.0)
    parser.add_argument("service", type=endpoint)
    parser.add_argument("clients", type=endpoint, nargs="+")
    options = parser.parse_args()
    answered = [
        ask(client, options.service, options.count, options.timeout) for client in options.clients
    ]
    return 0 if all(answered) else 1


if __name__ == "__main__":
    sys.exit(main())
