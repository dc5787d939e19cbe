"""Who answers health checks in tests, and a clock that jumps."""

from __future__ import annotations

import asyncio
import selectors
import socket
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from xdplb.health.probes import probe
from xdplb.health.target import ProbeFailed, Target
from xdplb.model import Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from xdplb.checks import Check

LOCAL = {4: "127.0.0.1", 6: "::1"}


def target(port: int | None, version: int = 4) -> Target:
    """A backend on loopback."""
    return Target(ip_address(LOCAL[version]), port, Protocol.UDP, "web")


async def reason(check: Check, asked: Target, limit: float = 5.0) -> str:
    """Why the answer is bad; it has to be."""
    with pytest.raises(ProbeFailed) as caught:
        await probe(check, asked, limit)
    return caught.value.reason


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """No descriptor more than before."""
    descriptors = Path("/proc/self/fd")
    before = set(descriptors.iterdir())
    yield
    assert set(descriptors.iterdir()) == before


@contextmanager
def bound(kind: socket.SocketKind, version: int = 4) -> Iterator[tuple[socket.socket, int]]:
    """A socket that has a port, and does nothing with it."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, kind) as sock:
        sock.bind((LOCAL[version], 0))
        yield sock, sock.getsockname()[1]


def closed_udp_port(version: int = 4) -> int:
    """A port that nobody has just now."""
    with bound(socket.SOCK_DGRAM, version) as (_, port):
        return port


@asynccontextmanager
async def udp_peer(
    answers: Callable[[bytes], list[bytes]], version: int = 4
) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A UDP server; its port, and what is set when it is asked."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    with bound(socket.SOCK_DGRAM, version) as (sock, port):

        def answer() -> None:
            data, client = sock.recvfrom(65535)
            asked.set()
            for datagram in answers(data):
                sock.sendto(datagram, client)

        loop.add_reader(sock, answer)
        try:
            yield port, asked
        finally:
            loop.remove_reader(sock)


class _Jumping(selectors.SelectSelector):
    """Does not wait for a time: makes it come."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits, and for no time"
            self.now += max(timeout, 0)
        return ready


class _JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


def run_jumping(main: Coroutine[Any, Any, None]) -> None:
    """Run in a loop whose clock jumps to the next thing to do, from 1000 s on."""
    with asyncio.Runner(loop_factory=_JumpingLoop) as runner:
        runner.run(main)
