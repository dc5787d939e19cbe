"""Services as plain lists and dictionaries, and back."""

from __future__ import annotations

from dataclasses import asdict
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from xdplb.model import (
    Backend,
    BackendState,
    Endpoint,
    Hash,
    OnDown,
    PortRange,
    Protocol,
    Reservation,
    Timeouts,
)
from xdplb.request import Service

if TYPE_CHECKING:
    from collections.abc import Sequence


def to_builtins(services: Sequence[Service]) -> list[dict[str, Any]]:
    """What ``from_builtins`` reads."""
    return [asdict(item) for item in services]


def from_builtins(values: Sequence[dict[str, Any]]) -> tuple[Service, ...]:
    """The services again."""
    return tuple(
        Service(
            backends=tuple(
                Backend(
                    ip_address(one["address"]),
                    one["port"],
                    one["weight"],
                    BackendState(one["state"]),
                )
                for one in item["backends"]
            ),
            address=ip_address(item["address"]),
            protocol=Protocol(item["protocol"]),
            ports=tuple(PortRange(**one) for one in item["ports"]),
            hash=Hash(item["hash"]),
            timeouts=Timeouts(**item["timeouts"]),
            name=item["name"],
            nat_addresses=tuple(ip_address(one) for one in item["nat_addresses"]),
            reservations=tuple(
                Reservation(
                    Endpoint(ip_address(one["client"]["address"]), one["client"]["port"]),
                    one["nat_port"],
                )
                for one in item["reservations"]
            ),
            on_down=OnDown(item["on_down"]),
            one_way=item["one_way"],
        )
        for item in values
    )
