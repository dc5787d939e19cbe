"""From a request to the file that asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from xdplb.config.checks import health_to
from xdplb.config.tables import (
    BackendTable,
    BalancerTable,
    FileTable,
    ServiceTable,
    TimeoutsTable,
)
from xdplb.model import ALL_PORTS, DEFAULT_TIMEOUTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.config.tables import Ports
    from xdplb.model import PortRange, Timeouts
    from xdplb.request import Request, Service

_HEAD: Final = "# What xdplb balances: 'xdplb check' looks at it, 'xdplb apply' makes it so.\n\n"


def dump(request: Request) -> str:
    """The text of a file that asks for ``request``; what is as usual is left out."""
    import tomli_w  # noqa: PLC0415 - only to write

    table = FileTable(
        balancer=BalancerTable(
            interfaces=list(request.interfaces),
            mode=request.mode,
            max_flows=request.max_flows,
            max_client_flows=request.max_client_flows,
            nat_ports=[_ports(item) for item in request.nat_ports],
            vlan=request.vlan,
        ),
        service=[_service(item) for item in request.services],
    )
    return _HEAD + tomli_w.dumps(msgspec.to_builtins(table))


def services_to(services: Sequence[Service]) -> list[Any]:
    """Services as plain values."""
    return [msgspec.to_builtins(_service(item)) for item in services]


def _service(service: Service) -> ServiceTable:
    whole = service.ports == ALL_PORTS
    timeouts = service.timeouts
    return ServiceTable(
        name=service.name,
        address=None if service.address is None else f"{service.address}",
        protocol=service.protocol,
        ports="all" if whole else [_ports(item) for item in service.ports],
        hash=service.hash,
        on_down=service.on_down,
        one_way=service.one_way,
        nat_addresses=[f"{item}" for item in service.nat_addresses],
        clients=[f"{item}" for item in service.reservations],
        timeouts=None if timeouts == DEFAULT_TIMEOUTS else _timeouts(timeouts),
        backend=[
            BackendTable(
                address=f"{item.address}",
                port=item.port,
                weight=item.weight,
                state=item.state,
            )
            for item in service.backends
        ],
        health=None if service.health is None else health_to(service.health),
    )


def _timeouts(timeouts: Timeouts) -> TimeoutsTable:
    return TimeoutsTable(
        unreplied=timeouts.unreplied,
        answered=timeouts.answered,
        transitory=timeouts.transitory,
        established=timeouts.established,
    )


def _ports(ports: PortRange) -> Ports:
    return ports.first if ports.count == 1 else f"{ports}"
