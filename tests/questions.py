"""Clients of a name service that never pause, and what became of each of their questions.

Half of the questions come from a socket of their own, as resolvers ask; the others are asked by
sockets that stay, as flows that last. Each name server answers with its own address.
"""

from __future__ import annotations

import itertools
import selectors
import struct
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from socket import AF_INET, SOCK_DGRAM, socket
from typing import TYPE_CHECKING, Final

from lab import wait_for

from xdplb.kernel import netns
from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RATE: Final = 200
"""Questions a second."""

LASTING: Final = 16
"""Sockets that stay."""

_PATIENCE_S: Final = 3.0
"""How long an answer may take."""

_BEHIND_S: Final = 0.1
_NAME: Final = b"\x06server\x00"
_TAIL: Final = struct.pack(">HH", 1, 1)  # an address, of the Internet (RFC 1035)
_HEADER: Final = struct.Struct(">HHHHHH")
_RECURSION: Final = 0x100
_NUMBERS: Final = 1 << 16


@dataclass(slots=True)
class Question:
    """One question.

    Attributes:
        client: The address that asked, and the socket's number if that is one that stays.
        at: When, by the monotonic clock.
        server: Who has answered; empty for nobody.
        took: Seconds until then.
    """

    client: str
    lasting: int | None
    at: float
    server: str = ""
    took: float = 0.0


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the questions of a while.

    Attributes:
        lost: How many of them nobody has answered.
        gap_s: Seconds from the first question that was lost to the last one.
    """

    asked: int
    lost: int
    gap_s: float


class Questions(Closing):
    """Clients in a network namespace that ask a service, from now on."""

    def __init__(self, where: Path, clients: Sequence[str], service: str) -> None:
        """Begin to ask ``service`` from the addresses ``clients``."""
        self._where = where
        self._clients = clients
        self._service = service
        self._cleanup = ExitStack()
        self._selector = self._cleanup.enter_context(selectors.DefaultSelector())
        self._asked: list[Question] = []
        self._open: dict[socket, dict[int, Question]] = {}
        with netns.inside(where):
            self._lasting = [self._socket(clients[n % len(clients)]) for n in range(LASTING)]
        self._ends = threading.Event()
        self._faults: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._ends.set()
        self._thread.join()
        for sock in self._open:
            sock.close()
        self._cleanup.close()
        assert not self._faults

    @property
    def ports(self) -> list[tuple[str, int]]:
        """The addresses and ports of the sockets that stay."""
        return [sock.getsockname() for sock in self._lasting]

    def account(self, since: float, until: float | None = None) -> Account:
        """What became of what was asked between two times; waits until that is known."""
        last = time.monotonic() if until is None else until
        mine = [item for item in self._asked if since <= item.at < last]
        wait_for(lambda: time.monotonic() > last + _PATIENCE_S or all(item.server for item in mine))
        lost = [item for item in mine if not item.server]
        gap_s = lost[-1].at - lost[0].at if lost else 0.0
        return Account(len(mine), len(lost), gap_s)

    def servers(self) -> dict[str, set[str]]:
        """Who has ever answered each client."""
        found: dict[str, set[str]] = {}
        for item in self._asked:
            if item.server:
                found.setdefault(item.client, set()).add(item.server)
        return found

    def go_on(self, seconds: float) -> None:
        """Return when so many seconds' worth of questions has been asked."""
        wanted = len(self._asked) + int(seconds * RATE)
        wait_for(lambda: len(self._asked) >= wanted, 60)

    def _socket(self, client: str) -> socket:
        sock = socket(AF_INET, SOCK_DGRAM)
        sock.bind((client, 0))
        sock.setblocking(False)  # noqa: FBT003 - its only argument
        self._selector.register(sock, selectors.EVENT_READ)
        self._open[sock] = {}
        return sock

    def _run(self) -> None:
        try:
            with netns.inside(self._where):
                self._ask_on()
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            self._faults.append(error)

    def _ask_on(self) -> None:
        due = time.monotonic()
        for number in itertools.count():
            due = max(due + 1 / RATE, time.monotonic() - _BEHIND_S)
            if self._ends.is_set():
                return
            self._ask(number)
            while (left := due - time.monotonic()) > 0:
                for key, _ in self._selector.select(left):
                    self._take(key.fileobj)  # type: ignore[arg-type]  # what was registered
            if number % RATE == 0:
                self._give_up()

    def _ask(self, number: int) -> None:
        lasting = number // 2 % LASTING if number % 2 else None
        client = self._clients[(number // 2 if lasting is None else lasting) % len(self._clients)]
        sock = self._socket(client) if lasting is None else self._lasting[lasting]
        identity = number % _NUMBERS
        question = Question(client, lasting, time.monotonic())
        self._asked.append(question)
        self._open[sock][identity] = question
        header = _HEADER.pack(identity, _RECURSION, 1, 0, 0, 0)
        with suppress(OSError):  # an ICMP error about an earlier one
            sock.sendto(header + _NAME + _TAIL, (self._service, 53))

    def _take(self, sock: socket) -> None:
        with suppress(OSError):  # the same
            while True:
                data = sock.recv(512)
                question = self._open[sock].pop(_HEADER.unpack_from(data)[0], None)
                if question is not None:
                    question.server = f"{ip_address(data[-4:])}"
                    question.took = time.monotonic() - question.at
                    self._done(sock)
                    if sock not in self._open:
                        return

    def _done(self, sock: socket) -> None:
        """Close a socket of one question."""
        if sock not in self._lasting:
            self._selector.unregister(sock)
            del self._open[sock]
            sock.close()

    def _give_up(self) -> None:
        """Wait no longer for answers that are long overdue."""
        latest = time.monotonic() - 2 * _PATIENCE_S
        for sock, asked in list(self._open.items()):
            for identity, question in list(asked.items()):
                if question.at < latest:
                    del asked[identity]
                    self._done(sock)
