"""What is answered: the status and the figures, each found out at most about once a second."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client import ProcessCollector

from xdplb import __version__
from xdplb.balancer import Balancer
from xdplb.errors import XdplbError, surroundings
from xdplb.metrics import Status, place_of, text_of
from xdplb.render import JSON_VERSION, to_json
from xdplb.serving.figures import Figures
from xdplb.serving.recent import Recent
from xdplb.verdicts import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from xdplb.agent.reporting import Report, Watched
    from xdplb.machine import Machine
    from xdplb.model import BalancerStatus


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of the balancers.

    Attributes:
        at: When, in seconds since 1970.
        balancers: What they say; none if they could not be read.
        text: As JSON; an error, too.
        error: Why they could not be read.
    """

    at: float
    balancers: tuple[BalancerStatus, ...]
    text: str
    error: XdplbError | None = None


class Answers:
    """Finds out what is asked for. All that takes time is done in a thread, one at a time."""

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Machine]],
        report: Callable[[], Report],
    ) -> None:
        """Prepare.

        Args:
            connect: Opens the machine, for one reading.
            report: What the agent says of itself; asked in the event loop.
        """
        self._connect = connect
        self._report = report
        self.status = Recent(self._read)
        self.metrics = Recent(self._measure)

    async def close(self) -> None:
        """Return when nothing is being found out any more."""
        await self.metrics.close()
        await self.status.close()

    @property
    def is_alive(self) -> bool:
        """Whether the agent does its work."""
        return self._report().alive

    def agent(self) -> str:
        """What the agent knows and the status does not, as JSON."""
        report = self._report()
        reload = report.reload
        return _json(
            host=socket.gethostname(),
            xdplb=__version__,
            summary=report.summary,
            interfaces=list(report.interfaces),
            reload=None if reload is None else {"success": reload.success, "at": reload.at},
            watched=[_watched(item) for item in report.watched],
        )

    async def _read(self) -> Reading:
        return await asyncio.to_thread(_read, self._connect)

    async def _measure(self) -> str:
        reading = await self.status.get()
        figures = Figures(self._report(), readable=reading.error is None)
        return await asyncio.to_thread(
            text_of, figures, Status(reading.balancers), ProcessCollector(registry=None)
        )


def _read(connect: Callable[[], AbstractContextManager[Machine]]) -> Reading:
    at = time.time()
    try:
        with connect() as machine:
            balancers = Balancer(machine).status()
        return Reading(at, tuple(balancers), to_json(balancers))
    except XdplbError as caught:
        error = caught
    except OSError as caught:
        known = surroundings(caught)
        if known is None:
            raise
        error = known
    return Reading(at, (), _json(error=f"{error}", hint=error.hint), error)


def verdicts() -> str:
    """What each verdict means to a person, as JSON."""
    return _json(
        verdicts={
            name: {"meaning": verdict.meaning, "hint": verdict.hint}
            for name, verdict in VERDICTS.items()
        }
    )


def _watched(item: Watched) -> dict[str, Any]:
    service, backend = item.service, item.backend
    name, address, protocol, ports = place_of(
        service.name, service.dialled, service.protocol, service.ports
    )
    return {
        "name": name or None,
        "service": address,
        "protocol": protocol,
        "ports": ports,
        "address": f"{backend.address}",
        "port": backend.port,
        "healthy": item.healthy,
        "reason": item.reason,
        "since": item.since,
    }


def _json(**values: object) -> str:
    return json.dumps({"version": JSON_VERSION, **values}, indent=2)
