"""What only the agent can tell Prometheus: checks, the file, and how it does itself."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.utils import floatToGoString

from xdplb.health.timing import BOUNDS_S
from xdplb.metrics import OF_BACKEND, OF_BALANCER, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from xdplb.agent.reporting import Report, Watched
    from xdplb.health.timing import Timings

_BOUNDS: Final = (*map(floatToGoString, BOUNDS_S), "+Inf")


class Figures:
    """Gives what an agent has reported."""

    def __init__(self, report: Report, *, readable: bool) -> None:
        """Take it.

        Args:
            report: What the agent says.
            readable: Whether the balancers could be read.
        """
        self._report = report
        self._readable = readable

    def collect(self) -> Iterator[Metric]:
        """The metrics, family by family."""
        report = self._report
        yield GaugeMetricFamily(
            "xdplb_status_success", "The balancers could be read", self._readable
        )
        up = GaugeMetricFamily(
            "xdplb_balancer_up",
            "The balancer that the agent looks after is there",
            labels=OF_BALANCER,
        )
        up.add_metric((_on(report),), report.runs)
        yield up
        if report.reload is not None:
            yield GaugeMetricFamily(
                "xdplb_config_last_reload_success",
                "The file was taken when it was read last",
                report.reload.success,
            )
            yield GaugeMetricFamily(
                "xdplb_config_last_reload_timestamp_seconds",
                "When the file was read last",
                report.reload.at,
            )
        yield from _of_checks([(_place(report, item), item) for item in report.watched])


def _of_checks(watched: Sequence[tuple[tuple[str, ...], Watched]]) -> Iterator[Metric]:
    healthy = GaugeMetricFamily(
        "xdplb_backend_healthy", "Its checks and its traffic say that it is well", labels=OF_BACKEND
    )
    seconds = HistogramMetricFamily(
        "xdplb_health_check_seconds", "How long health checks took", labels=OF_BACKEND
    )
    failures = CounterMetricFamily(
        "xdplb_health_check_failures", "Health checks with a bad answer, or none", labels=OF_BACKEND
    )
    for place, item in watched:
        healthy.add_metric(place, item.healthy)
        if item.timings is not None:
            seconds.add_metric(place, _buckets(item.timings), item.timings.total_s)
            failures.add_metric(place, item.timings.failures)
    yield from (healthy, seconds, failures)


def _buckets(timings: Timings) -> list[tuple[str, float]]:
    return list(zip(_BOUNDS, accumulate(timings.counts), strict=True))


def _place(report: Report, item: Watched) -> tuple[str, ...]:
    service = item.service
    place = place_of(service.name, service.dialled, service.protocol, service.ports)
    return (_on(report), *place, f"{item.backend}")


def _on(report: Report) -> str:
    return ",".join(report.interfaces)
