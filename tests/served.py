"""What ``xdplb run --listen`` serves, over a machine in memory."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import aiohttp
from agent_machine import LiveMachine
from fake_machine import service

from xdplb.agent.reporting import Reload, Report, Watched
from xdplb.balancer import Balancer
from xdplb.checks import Health, TcpCheck
from xdplb.health.timing import Timings
from xdplb.request import Request
from xdplb.serving.answers import Answers
from xdplb.serving.server import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from typing import Self

DNS = replace(
    service("192.0.2.1", "192.0.2.10", "192.0.2.11"), name="dns", health=Health(TcpCheck())
)


def report() -> Report:
    """What an agent says that looks after DNS; one of its backends is down."""
    timings = Timings()
    for seconds, good in ((0.001, True), (0.3, False), (9.0, False)):
        timings.count(seconds, good=good)
    first, second = DNS.backends
    return Report(
        alive=True,
        interfaces=("eth0",),
        runs=True,
        summary="1 service, 1 of 2 backends up",
        reload=Reload(success=True, at=1_700_000_000.5),
        watched=(
            Watched(DNS, first, healthy=False, reason="refused", since=1_700.0, timings=timings),
            Watched(DNS, second, healthy=True),
        ),
    )


class SlowMachine(LiveMachine):
    """Counts who reads it, and may take its time; in a thread, it hinders nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.readings = 0

    def __enter__(self) -> Self:
        self.readings += 1
        return self


@dataclass
class Site:
    """A server on loopback."""

    port: int
    machine: SlowMachine
    report: Report = field(default_factory=report)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    async def get(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], str]:
        """Ask; the status, the headers and the body."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, headers=headers) as answer,
        ):
            return answer.status, answer.headers, await answer.text()

    async def raw(self, sent: bytes) -> bytes:
        """All that is answered to some bytes, until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        try:
            return await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """A server, with a balancer that is up on its machine."""
    machine = SlowMachine()
    Balancer(machine).up(Request(("eth0",), (DNS,)))
    machine.count({0: (10, 9, 0)})
    with socket.create_server(("127.0.0.1", 0)) as sock:
        made = Site(sock.getsockname()[1], machine)
        async with serving(sock, Answers(lambda: machine, lambda: made.report)):
            yield made


def visit(course: Callable[[Site], Awaitable[None]]) -> None:
    """Run a course of events with a server."""

    async def main() -> None:
        async with site() as made:
            await course(made)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
