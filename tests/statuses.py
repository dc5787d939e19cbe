"""Balancers as ``status`` finds them, made of a few words."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from xdplb.model import (
    ALL_PORTS,
    Backend,
    BackendState,
    BackendStatus,
    BalancerStatus,
    Hash,
    InterfaceStatus,
    Mode,
    PortRange,
    Protocol,
    ServiceStatus,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

MAC = "02:00:00:00:00:14"
VERDICTS = ("forward", "return", "pass_not_ours", "drop_no_port", "drop_ttl")


def backend(address: str, port: int | None = None, **more: Any) -> BackendStatus:
    """A backend that is up, resolved, and the only one of its service."""
    weight = more.pop("weight", 1)
    found: dict[str, Any] = {
        "number": 0,
        "backend": Backend(ip_address(address), port, weight),
        "state": BackendState.UP,
        "mac": MAC,
        "next_hop": ip_address(address),
        "interface": "eth0",
        "share": 1.0,
        "expected_share": more.get("share", 1.0),
        "nat_ports_total": 1000,
    }
    return BackendStatus(**{**found, **more})


def service(
    *backends: BackendStatus, address: str = "192.0.2.1", port: int | None = None, **more: Any
) -> ServiceStatus:
    """A service of UDP, of all ports where none is named."""
    found: dict[str, Any] = {
        "name": "",
        "address": ip_address(address),
        "protocol": Protocol.UDP,
        "ports": ALL_PORTS if port is None else (PortRange(port, port),),
        "hash": Hash.SRC_DST,
        "backends": backends,
    }
    return ServiceStatus(**{**found, **more})


def balancer(
    *services: ServiceStatus, interfaces: Sequence[str] = ("eth0",), **more: Any
) -> BalancerStatus:
    """A balancer; its interfaces have the indexes from 2 on."""
    flows = sum(item.flows for one in services for item in one.backends)
    found: dict[str, Any] = {
        "interfaces": tuple(
            InterfaceStatus(name, index, Mode.NATIVE) for index, name in enumerate(interfaces, 2)
        ),
        "program_id": 31,
        "program_tag": "abcd",
        "version": "0.1.0",
        "services": services,
        "flows": flows,
        "capacity": 10_000,
        "nat_ports_used": flows,
        "nat_ports_total": 5_000,
        "verdicts": dict.fromkeys(VERDICTS, 0),
    }
    return BalancerStatus(**{**found, **more})
