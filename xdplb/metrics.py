"""What ``status`` knows, for Prometheus: its text format, base units, counters as counters.

No label has a client in it: there is one series for each backend of a service, whatever goes on.
There is no sum over the backends of a service, as it would go back when one is removed: sum what
``rate()`` says of each.
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Final
from typing import Protocol as _Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from xdplb.model import BackendState, port_list
from xdplb.verdicts import DROPPED, PASSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from xdplb.model import (
        Address,
        BackendStatus,
        BalancerStatus,
        PortRange,
        Protocol,
        ServiceStatus,
    )

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OF_BALANCER: Final = ("interfaces",)
OF_BACKEND: Final = (*OF_BALANCER, "service", "address", "protocol", "ports", "backend")
_DIRECTIONS: Final = ("to_backend", "from_backend")


class Collector(_Protocol):
    """What gives metrics when it is asked."""

    def collect(self) -> Iterable[Metric]:
        """Give them, family by family."""


def text(balancers: Sequence[BalancerStatus]) -> str:
    """All metrics of all balancers of a network namespace."""
    return text_of(Status(balancers))


def text_of(*collectors: Collector) -> str:
    """Metrics as Prometheus reads them.

    Source: prometheus.io, "Exposition formats", text format 0.0.4.
    """
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry).decode()


class Status:
    """Gives what was read once."""

    def __init__(self, balancers: Sequence[BalancerStatus]) -> None:
        """Take what was read."""
        self._balancers = balancers

    def collect(self) -> Iterator[Metric]:
        """The metrics, family by family."""
        yield from _of_balancers(self._balancers)
        yield from _of_maps(self._balancers)
        yield from _of_verdicts(self._balancers)
        yield from _of_traffic(self._balancers)
        yield from _of_backends(self._balancers)


def _of_balancers(balancers: Sequence[BalancerStatus]) -> Iterator[Metric]:
    build = InfoMetricFamily(
        "xdplb_build", "What runs, and the BCC that is installed", labels=OF_BALANCER
    )
    up = GaugeMetricFamily(
        "xdplb_interface_up",
        "The interface carries the program",
        labels=(*OF_BALANCER, "interface", "mode"),
    )
    gauges = {
        "xdplb_flows": ("Flows that have not timed out", "flows"),
        "xdplb_flows_capacity": ("Flows that there is room for", "capacity"),
        "xdplb_nat_ports_used": ("NAT ports that flows have", "nat_ports_used"),
        "xdplb_nat_ports_capacity": ("NAT ports that there are", "nat_ports_total"),
    }
    found = {
        name: GaugeMetricFamily(name, what, labels=OF_BALANCER)
        for name, (what, _) in gauges.items()
    }
    bcc = _bcc() if balancers else ""
    for item in balancers:
        labels = (_on(item),)
        runs = {"version": item.version, "program_tag": item.program_tag, "bcc": bcc}
        build.add_metric(labels, runs)
        for interface in item.interfaces:
            up.add_metric((*labels, interface.name, interface.mode), interface.attached)
        for name, (_, attribute) in gauges.items():
            found[name].add_metric(labels, getattr(item, attribute))
    yield from (build, up, *found.values())


def _bcc() -> str:
    """The version of the installed BCC, which takes too long to load for that; empty for none."""
    try:
        return metadata.version("bcc")
    except metadata.PackageNotFoundError:
        return ""


def _of_maps(balancers: Sequence[BalancerStatus]) -> Iterator[Metric]:
    labels = (*OF_BALANCER, "ip_version", "map")
    entries = GaugeMetricFamily(
        "xdplb_map_entries",
        "Entries of a map of the program; of flows also those that have timed out",
        labels=labels,
    )
    capacity = GaugeMetricFamily(
        "xdplb_map_capacity", "Entries that there is room for", labels=labels
    )
    for item in balancers:
        for one in item.maps:
            place = (_on(item), f"{one.version}", one.name)
            entries.add_metric(place, one.entries)
            capacity.add_metric(place, one.capacity)
    yield from (entries, capacity)


def _on(item: BalancerStatus) -> str:
    return ",".join(interface.name for interface in item.interfaces)


def _of_verdicts(balancers: Sequence[BalancerStatus]) -> Iterator[Metric]:
    """What became of packets, by the names that ``status`` has for it."""
    families = {
        DROPPED: CounterMetricFamily(
            "xdplb_drops", "Packets that were dropped", labels=(*OF_BALANCER, "reason")
        ),
        PASSED: CounterMetricFamily(
            "xdplb_passed", "Packets that were left to the kernel", labels=(*OF_BALANCER, "reason")
        ),
        "": CounterMetricFamily(
            "xdplb_sent", "Packets that were sent on", labels=(*OF_BALANCER, "verdict")
        ),
    }
    for item in balancers:
        for verdict, count in item.verdicts.items():
            prefix = next(it for it in families if verdict.startswith(it))
            families[prefix].add_metric((_on(item), verdict.removeprefix(prefix)), count)
    yield from families.values()


def _of_traffic(balancers: Sequence[BalancerStatus]) -> Iterator[Metric]:
    labels = (*OF_BACKEND, "direction")
    packets = CounterMetricFamily("xdplb_backend_packets", "Packets, by direction", labels=labels)
    octets = CounterMetricFamily(
        "xdplb_backend_bytes", "Bytes of IP packets, by direction", labels=labels
    )
    refused = CounterMetricFamily(
        "xdplb_backend_refused",
        "ICMP errors that say that nobody is at the backend's port",
        labels=OF_BACKEND,
    )
    for item in balancers:
        for place, backend in _backends(item):
            for direction, count, size in zip(
                _DIRECTIONS,
                (backend.packets_in, backend.packets_out),
                (backend.bytes_in, backend.bytes_out),
                strict=True,
            ):
                packets.add_metric((*place, direction), count)
                octets.add_metric((*place, direction), size)
            refused.add_metric(place, backend.refused)
    yield from (packets, octets, refused)


def _of_backends(balancers: Sequence[BalancerStatus]) -> Iterator[Metric]:
    def gauge(name: str, what: str, *more: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"xdplb_{name}", what, labels=(*OF_BACKEND, *more))

    up = gauge("backend_up", "The backend takes new flows")
    state = gauge("backend_state", "1 for the state that the backend is in", "state")
    resolved = gauge("backend_resolved", "The MAC address of its next hop is known")
    weight = gauge("backend_weight", "Its share, relative to the others' weights")
    share = gauge("backend_share_ratio", "The part of the table that it has")
    flows = gauge("backend_flows", "Flows that have not timed out")
    for item in balancers:
        for place, backend in _backends(item):
            up.add_metric(place, backend.state is BackendState.UP)
            for one in BackendState:
                state.add_metric((*place, one), backend.state is one)
            resolved.add_metric(place, backend.mac is not None)
            weight.add_metric(place, backend.backend.weight)
            share.add_metric(place, backend.share)
            flows.add_metric(place, backend.flows)
    yield from (up, state, resolved, weight, share, flows)


def _backends(item: BalancerStatus) -> Iterator[tuple[tuple[str, ...], BackendStatus]]:
    """Each backend with the values of its labels."""
    for service in item.services:
        for backend in service.backends:
            yield (_on(item), *_place(service), f"{backend.backend}"), backend


def _place(item: ServiceStatus) -> tuple[str, ...]:
    return place_of(item.name, item.address, item.protocol, item.ports)


def place_of(
    name: str, address: Address, protocol: Protocol, ports: Sequence[PortRange]
) -> tuple[str, ...]:
    """The labels of a service."""
    return name, f"{address}", protocol, port_list(ports)
