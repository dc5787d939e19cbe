"""Steady traffic through a balancer: numbered datagrams, counted where they come back."""

from __future__ import annotations

import selectors
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from socket import SOL_SOCKET
from typing import TYPE_CHECKING, Final

from lab import SERVICE, wait_for

from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from socket import socket

    from lab import Lab

BACKENDS: Final = ("172.11.0.20", "172.11.0.21")
PORT: Final = 53
CLIENTS: Final = 20
_RATE: Final = 1000
_BEHIND_S: Final = 0.1
_LATE_S: Final = 0.3
_RECEIVE_BUFFER_FORCE: Final = 33
_QUESTION: Final = struct.Struct(">HI")
_ANSWER: Final = struct.Struct(">HIHH")


@dataclass(frozen=True, slots=True)
class Count:
    """What became of the datagrams of a while.

    Attributes:
        moved: How often a client was answered by another backend than before.
        renumbered: How often the backend stayed, and saw the client come from another port.
    """

    sent: int
    lost: int
    duplicated: int
    moved: int
    renumbered: int

    @property
    def is_unharmed(self) -> bool:
        """Whether forwarding noticed nothing."""
        return not (self.lost or self.duplicated or self.moved or self.renumbered)


class Traffic(Closing):
    """Some clients that keep asking, about a thousand datagrams a second, and their servers.

    An answer holds the question, the server's number, and the port that it saw the client at.
    """

    def __init__(self, lab: Lab, backends: Sequence[str] = BACKENDS) -> None:
        """Start at once, whether a balancer is up or not."""
        self._servers = [lab.socket(address, PORT) for address in backends]
        self._clients = [
            lab.socket(f"172.11.0.{22 + number % 4}", 20000 + number) for number in range(CLIENTS)
        ]
        self._selector = selectors.DefaultSelector()
        for sock in (*self._servers, *self._clients):
            sock.settimeout(0)
            sock.setsockopt(SOL_SOCKET, _RECEIVE_BUFFER_FORCE, 1 << 22)
            self._selector.register(sock, selectors.EVENT_READ)
        self._number = {sock: number for number, sock in enumerate(self._servers)}
        self._sent = 0
        self._answers: dict[int, int] = {}
        self._newest = [-1] * CLIENTS
        self._seen: list[tuple[int, int] | None] = [None] * CLIENTS
        self._moved: list[int] = []
        self._renumbered: list[int] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._ends.set()
        self._thread.join()
        self._selector.close()

    def mark(self) -> int:
        """The number of the next datagram."""
        return self._sent

    def flows(self, timeout: float = 20.0) -> None:
        """Return when every client has been answered a question of after this call."""
        after = self._sent
        wait_for(lambda: min(self._newest) >= after, timeout)

    def count(self, since: int, until: int | None = None) -> Count:
        """What became of what was sent between two marks; waits for what is still under way."""
        last = self._sent if until is None else until
        with suppress(AssertionError):
            wait_for(lambda: all(number in self._answers for number in range(since, last)), _LATE_S)
        mine = range(since, last)
        counts = [self._answers.get(number, 0) for number in mine]
        return Count(
            sent=len(mine),
            lost=counts.count(0),
            duplicated=sum(count - 1 for count in counts if count > 1),
            moved=sum(number in mine for number in self._moved),
            renumbered=sum(number in mine for number in self._renumbered),
        )

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ends.is_set():
            now = time.monotonic()
            due = max(due, now - _BEHIND_S)
            while due <= now:
                self._ask()
                due += 1 / _RATE
            for key, _ in self._selector.select(due - now):
                sock = key.fileobj
                assert not isinstance(sock, int)
                self._take(sock)  # type: ignore[arg-type]  # what was registered

    def _ask(self) -> None:
        client = self._sent % CLIENTS
        with suppress(OSError):  # there may be no interface now: it is lost
            self._clients[client].sendto(_QUESTION.pack(client, self._sent), (SERVICE, PORT))
        self._sent += 1

    def _take(self, sock: socket) -> None:
        with suppress(OSError):
            while True:
                data, peer = sock.recvfrom(100)
                if sock in self._number:
                    answer = data + struct.pack(">HH", self._number[sock], peer[1])
                    sock.sendto(answer, peer)
                else:
                    self._note(*_ANSWER.unpack(data))

    def _note(self, client: int, number: int, server: int, port: int) -> None:
        self._answers[number] = self._answers.get(number, 0) + 1
        self._newest[client] = max(self._newest[client], number)
        before = self._seen[client]
        if before is not None and before[0] != server:
            self._moved.append(number)
        elif before is not None and before[1] != port:
            self._renumbered.append(number)
        self._seen[client] = (server, port)
