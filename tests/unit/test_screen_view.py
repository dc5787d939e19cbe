"""What keys make of the view of ``top``, and the order of its rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from statuses import backend, balancer, service

from xdplb.rates import History, Look, Measured
from xdplb.screen.view import HELP, KEYS, Order, Row, View, press, rows

PAGE, ROWS = 10, 35
VIEW = View()


@pytest.mark.parametrize(
    ("key", "view"),
    [
        ("p", View(is_paused=True)),
        ("space", View(is_paused=True)),
        ("s", View(order=Order.FLOWS)),
        ("r", View(is_reversed=True)),
        ("b", View(has_backends=False)),
        ("h", View(has_help=True)),
        ("?", View(has_help=True)),
        ("x", VIEW),
        ("up", VIEW),
        ("down", View(first=1)),
        ("j", View(first=1)),
        ("page down", View(first=PAGE)),
        ("end", View(first=ROWS - PAGE)),
    ],
)
def test_a_key_does_what_the_help_says(key: str, view: View) -> None:
    assert press(VIEW, key, PAGE, ROWS) == view


@pytest.mark.parametrize("key", ["p", "r", "b"])
def test_a_key_pressed_twice_has_done_nothing(key: str) -> None:
    assert press(press(VIEW, key, PAGE, ROWS), key, PAGE, ROWS) == VIEW


def test_the_orders_come_round() -> None:
    view, seen = VIEW, []
    for _ in Order:
        seen.append(view.order)
        view = press(view, "s", PAGE, ROWS)
    assert (seen, view) == (list(Order), VIEW)


def test_any_key_leaves_the_help_and_does_nothing_else() -> None:
    for key in (*KEYS, "down", "x"):
        assert press(View(has_help=True), key, PAGE, ROWS) == VIEW


@pytest.mark.parametrize(
    ("first", "key", "then"),
    [
        (0, "page up", 0),
        (3, "k", 2),
        (3, "page up", 0),
        (20, "page down", 25),
        (25, "down", 25),
        (20, "home", 0),
    ],
)
def test_one_cannot_scroll_out_of_the_rows(first: int, key: str, then: int) -> None:
    assert press(View(first=first), key, PAGE, ROWS).first == then


def test_few_rows_do_not_scroll() -> None:
    assert press(VIEW, "down", PAGE, 3) == VIEW


def test_the_help_has_every_key_of_the_last_line() -> None:
    assert all(any(key in item.replace(",", "").split() for item in HELP) for key in KEYS)


# Rows

A, B, C = (backend(f"192.0.2.{last}", share=0.5) for last in (10, 11, 12))
DNS = service(replace(A, flows=5), replace(B, flows=9), name="dns")
WEB = service(replace(C, flows=2), name="web")
STATUS = balancer(WEB, DNS)


def measured() -> tuple[Measured, History]:
    """Two looks: web has most packets, and of dns the first backend has."""
    history = History(10)
    history.add(Look(0.0, (STATUS,)))
    busy = balancer(
        replace(WEB, backends=(replace(C, packets_in=100),)),
        replace(DNS, backends=(replace(A, packets_in=20), replace(B, packets_out=10))),
    )
    return history.add(Look(1.0, (busy,))), history


def names(found: list[Row]) -> list[str]:
    return [f"{row.backend.backend}" if row.backend else row.service.name for row in found]


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(), ["web", "192.0.2.12", "dns", "192.0.2.10", "192.0.2.11"]),
        (View(order=Order.FLOWS), ["dns", "192.0.2.11", "192.0.2.10", "web", "192.0.2.12"]),
        (View(order=Order.NAME), ["dns", "192.0.2.10", "192.0.2.11", "web", "192.0.2.12"]),
        (View(is_reversed=True), ["dns", "192.0.2.11", "192.0.2.10", "web", "192.0.2.12"]),
        (View(has_backends=False), ["web", "dns"]),
    ],
)
def test_backends_stand_under_their_services(view: View, expected: list[str]) -> None:
    found, history = measured()
    assert names(rows([STATUS], found, history, view)) == expected


def test_a_service_has_what_its_backends_have_together() -> None:
    found, history = measured()
    head = rows([STATUS], found, history, View(order=Order.NAME))[0]
    assert (head.flows, head.traffic.packets_in, head.traffic.packets_out) == (14, 20.0, 10.0)
    assert (head.recent, history.packets(head.key, head.places)) == (30.0, [30.0])


def test_before_anything_is_measured_there_are_rows_all_the_same() -> None:
    history = History(10)
    history.add(Look(0.0, (STATUS,)))
    found = rows([STATUS], {}, history, View())
    assert names(found)[0] == "dns"
    assert [row.traffic.packets for row in found] == [0.0] * 5
