"""The lock of a network namespace."""

from __future__ import annotations

import os
import threading
import time

import pytest

from xdplb.errors import BusyError
from xdplb.kernel import netns


@pytest.fixture(autouse=True)
def _of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "_LOCK", f"\0xdplb-test-{os.getpid()}")


def test_who_comes_second_waits_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    monkeypatch.setattr(time, "sleep", lambda _: free.set())
    order = []

    def first(entered: threading.Event) -> None:
        with netns.lock():
            entered.set()
            assert free.wait(5)
            order.append("first")

    entered = threading.Event()
    other = threading.Thread(target=first, args=(entered,))
    other.start()
    assert entered.wait(5)
    with netns.lock():
        order.append("second")
    other.join()
    assert order == ["first", "second"]


def test_who_waits_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "_LOCKED_WITHIN_S", 0.05)
    with netns.lock(), pytest.raises(BusyError, match="another xdplb"), netns.lock():
        raise AssertionError
