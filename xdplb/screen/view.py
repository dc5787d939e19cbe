"""What ``top`` shows of all that is known: which rows, in which order, from where on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from xdplb.rates import NO_TRAFFIC, key_of, place_of, total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.model import BackendStatus, BalancerStatus, ServiceStatus
    from xdplb.rates import History, Place, Rates, Traffic

_SMOOTH: Final = 5
"""Over how many steps the rate is taken that rows are sorted by, so that they stand still."""


class Order(StrEnum):
    """What rows are sorted by."""

    RATE = "rate"
    FLOWS = "flows"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class View:
    """What was asked for with keys.

    Attributes:
        has_backends: Backends are shown under their services.
        first: The row that stands on top.
    """

    order: Order = Order.RATE
    is_reversed: bool = False
    is_paused: bool = False
    has_backends: bool = True
    has_help: bool = False
    first: int = 0


KEYS: Final = {
    "q": "quit",
    "p": "pause",
    "s": "sort",
    "r": "reverse",
    "b": "backends",
    "h": "help",
}
"""What a key does, in a word."""

HELP: Final = {
    "q": "quit",
    "p, space": "pause: what is shown stays, and what happens meanwhile is still measured",
    "s": "sort by another thing: rate (packets in both directions), flows, name",
    "r": "sort the other way round",
    "b": "show backends, or services alone",
    "arrows": "go through the rows; also page up, page down, home, end, j and k",
    "h, ?": "this help; any key leaves it",
}


def press(view: View, key: str, page: int, rows: int) -> View:
    """What a key makes of a view.

    Args:
        view: As it was.
        key: Which.
        page: How many rows there is room for.
        rows: How many there are.
    """
    if view.has_help:
        return replace(view, has_help=False)
    if key in _TOGGLES:
        return _TOGGLES[key](view)
    last = max(rows - page, 0)
    moved = {
        **dict.fromkeys(("up", "k"), view.first - 1),
        **dict.fromkeys(("down", "j"), view.first + 1),
        "page up": view.first - page,
        "page down": view.first + page,
        "home": 0,
        "end": last,
    }
    return replace(view, first=min(max(moved.get(key, view.first), 0), last))


def _next_order(view: View) -> View:
    orders = list(Order)
    return replace(view, order=orders[(orders.index(view.order) + 1) % len(orders)])


def _pause(view: View) -> View:
    return replace(view, is_paused=not view.is_paused)


def _reverse(view: View) -> View:
    return replace(view, is_reversed=not view.is_reversed)


def _backends(view: View) -> View:
    return replace(view, has_backends=not view.has_backends)


def _help(view: View) -> View:
    return replace(view, has_help=True)


_TOGGLES: Final = {
    "p": _pause,
    "space": _pause,
    "s": _next_order,
    "r": _reverse,
    "b": _backends,
    "h": _help,
    "?": _help,
}


@dataclass(frozen=True, slots=True)
class Row:
    """A service, or one of its backends.

    Attributes:
        backend: None for the service itself.
        key: Of the balancer, in the history; and ``places``, of the backend or of all of them.
        recent: Packets in a second, over the last few steps.
    """

    service: ServiceStatus
    backend: BackendStatus | None
    key: int
    places: tuple[Place, ...]
    flows: int
    traffic: Traffic
    recent: float


def rows(
    balancers: Sequence[BalancerStatus],
    measured: Mapping[int, Rates],
    history: History,
    view: View,
) -> list[Row]:
    """The services of all balancers with their backends, in the order that was asked for."""
    groups = [
        _group(item, service, measured.get(key_of(item)), history)
        for item in balancers
        for service in item.services
    ]
    groups.sort(key=lambda group: _rank(group[0], view.order), reverse=view.is_reversed)
    found = []
    for head, *backends in groups:
        found.append(head)
        if view.has_backends:
            backends.sort(key=lambda row: _rank(row, view.order), reverse=view.is_reversed)
            found += backends
    return found


def _group(
    balancer: BalancerStatus, service: ServiceStatus, rates: Rates | None, history: History
) -> list[Row]:
    """A service, and then its backends."""
    key = key_of(balancer)
    backends = []
    for item in service.backends:
        place = place_of(service, item)
        backends.append(
            Row(
                service=service,
                backend=item,
                key=key,
                places=(place,),
                flows=item.flows,
                traffic=rates.traffic.get(place, NO_TRAFFIC) if rates else NO_TRAFFIC,
                recent=_mean(history.packets(key, [place], _SMOOTH)),
            )
        )
    head = Row(
        service=service,
        backend=None,
        key=key,
        places=tuple(place for row in backends for place in row.places),
        flows=sum(row.flows for row in backends),
        traffic=total(row.traffic for row in backends),
        recent=sum(row.recent for row in backends),
    )
    return [head, *backends]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _rank(row: Row, order: Order) -> tuple[float, str]:
    """What a row is sorted by: most first, and by name where that is the same."""
    by = {Order.RATE: -row.recent, Order.FLOWS: -float(row.flows), Order.NAME: 0.0}
    return by[order], f"{row.service} {row.backend.backend if row.backend else ''}"
