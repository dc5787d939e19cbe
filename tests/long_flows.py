"""Flows that go on for as long as a test, in processes of their own.

``long_flows.py server ADDRESS...`` answers each datagram to port 7777 of its addresses with the
address that it came to, the port that it came from, and what was in it.

``long_flows.py client REPORT SERVICE FLOWS ADDRESS...`` keeps asking from so many sockets, spread
over its addresses, and tells REPORT, each half a second, what they were answered.
"""

from __future__ import annotations

import json
import os
import selectors
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from socket import AF_INET, SOCK_DGRAM, socket
from typing import Final

PORT: Final = 7777
_EVERY_S: Final = 0.2
_REPORT_EVERY_S: Final = 0.5


@dataclass(slots=True)
class Told:
    """What a flow was told.

    Attributes:
        ways: Server and NAT port, each time that they were others than before.
        answers: How many.
        last: When the last one came, by the monotonic clock.
        pauses: Those longer than two questions take: when each ended, and its length in seconds.
    """

    ways: list[tuple[str, int]] = field(default_factory=list)
    answers: int = 0
    last: float = 0.0
    pauses: list[tuple[float, float]] = field(default_factory=list)

    def note(self, now: float, server: str, port: int) -> None:
        """Note an answer."""
        if not self.ways or self.ways[-1] != (server, port):
            self.ways.append((server, port))
        if self.answers and now - self.last > 2 * _EVERY_S:
            self.pauses.append((now, now - self.last))
        self.answers += 1
        self.last = now


def _bound(address: str, port: int) -> socket:
    sock = socket(AF_INET, SOCK_DGRAM)
    sock.bind((address, port))
    sock.settimeout(0)
    return sock


def serve(addresses: list[str]) -> None:
    """Answer."""
    selector = selectors.DefaultSelector()
    for address in addresses:
        selector.register(_bound(address, PORT), selectors.EVENT_READ, address)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket)
            data, peer = key.fileobj.recvfrom(100)
            key.fileobj.sendto(f"{key.data} {peer[1]} ".encode() + data, peer)


def ask(report: Path, service: str, count: int, addresses: list[str]) -> None:
    """Ask, and tell."""
    flows = [Told() for _ in range(count)]
    socks = [_bound(addresses[number % len(addresses)], 0) for number in range(count)]
    selector = selectors.DefaultSelector()
    for told, sock in zip(flows, socks, strict=True):
        selector.register(sock, selectors.EVENT_READ, told)
    due = report_due = time.monotonic()
    at = 0
    while True:
        now = time.monotonic()
        while due <= now:
            with suppress(OSError):  # nobody is there at the moment
                socks[at % count].sendto(b"question", (service, PORT))
            at += 1
            due = max(due + _EVERY_S / count, now - _EVERY_S)
        for key, _ in selector.select(due - now):
            assert isinstance(key.fileobj, socket)
            try:
                server, port, _ = key.fileobj.recv(100).decode().split()
            except OSError:  # an ICMP error of the past
                continue
            key.data.note(time.monotonic(), server, int(port))
        if now >= report_due:
            report_due = now + _REPORT_EVERY_S
            new = report.with_suffix(".new")
            new.write_text(json.dumps([asdict(told) for told in flows]))
            os.replace(new, report)  # noqa: PTH105 - at once


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(sys.argv[2:])
    ask(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:])
