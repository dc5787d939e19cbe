"""Who is asked when, by a clock that jumps."""

from __future__ import annotations

import asyncio
import socket
from bisect import bisect_left
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeAlias

import pytest
from health_peers import bound, nothing_left_open, run_jumping, target

from xdplb.checks import Check, ExecCheck, Health, IcmpCheck, TcpCheck, UdpCheck
from xdplb.errors import InvalidValueError, PrivilegeError
from xdplb.health import monitor as module
from xdplb.health.monitor import Event, Monitor, Watched
from xdplb.health.target import ProbeFailed, Target
from xdplb.health.timing import BOUNDS_S
from xdplb.model import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

START = 1000.0
HEALTH = Health(check=TcpCheck(), interval=10, timeout=1, rise=2, fall=3, jitter=0)

Course: TypeAlias = "Callable[[Peers], Coroutine[None, None, None]]"


def watched(
    key: str, health: Health = HEALTH, address: str = "192.0.2.1", port: int = 80
) -> Watched[str]:
    return Watched(key, Target(ip_address(address), port, Protocol.TCP, key), health)


class Peers:
    """Answers in place of backends, and keeps the times; a monitor that asks them."""

    def __init__(self, *, concurrency: int = 64, uniform: float = 0.0) -> None:
        self.asked: list[tuple[str, float]] = []
        self.failing: dict[str, str] = {}
        self.hanging: dict[str, asyncio.Event] = {}
        self.open = 0
        self.most = 0
        self.monitor: Monitor[str] = Monitor(
            concurrency=concurrency, probe=self.probe, uniform=lambda: uniform
        )

    async def probe(self, check: Check, target: Target, limit: float) -> None:
        assert check is not None
        assert limit > 0
        now = asyncio.get_running_loop().time() - START
        self.asked.append((target.service, round(now, 6)))
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if target.service in self.hanging:
                await self.hanging[target.service].wait()
        finally:
            self.open -= 1
        if target.service in self.failing:
            raise ProbeFailed(self.failing[target.service])

    def times(self, key: str) -> list[float]:
        return [when for who, when in self.asked if who == key]

    def events(self) -> list[tuple[str, bool, str, float]]:
        queue = self.monitor.events
        found = [queue.get_nowait() for _ in range(queue.qsize())]
        return [(item.key, item.healthy, item.reason, item.at - START) for item in found]


def run(main: Course, *, concurrency: int = 64, uniform: float = 0.0) -> Peers:
    """Run a course of events, and close the monitor at its end."""
    kept: list[Peers] = []

    async def whole() -> None:
        peers = Peers(concurrency=concurrency, uniform=uniform)
        kept.append(peers)
        try:
            await main(peers)
        finally:
            await peers.monitor.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert peers.open == 0

    run_jumping(whole())
    return kept[0]


def test_each_is_asked_once_an_interval_and_the_first_questions_are_spread() -> None:
    async def main(peers: Peers) -> None:
        peers.monitor.update(watched(key) for key in "ABCD")
        await asyncio.sleep(30)

    peers = run(main, uniform=0.5)
    assert peers.times("A") == [1.25, 11.25, 21.25]
    assert peers.times("B") == [3.75, 13.75, 23.75]
    assert peers.times("D") == [8.75, 18.75, 28.75]


@pytest.mark.parametrize(("uniform", "times"), [(0.0, [0, 8, 16]), (0.75, [7.5, 18.5])])
def test_an_interval_is_shorter_or_longer_by_the_jitter(uniform: float, times: list[float]) -> None:
    async def main(peers: Peers) -> None:
        health = Health(check=TcpCheck(), interval=10, jitter=0.2)
        peers.monitor.update([watched("A", health)])
        await asyncio.sleep(23)

    assert run(main, uniform=uniform).times("A") == times


def test_changes_are_told_once_with_the_reason_and_the_time() -> None:
    async def main(peers: Peers) -> None:
        peers.monitor.update([watched("A"), watched("B")])
        peers.failing["A"] = "connection refused"
        await asyncio.sleep(44)
        assert peers.events() == [("A", False, "connection refused", 20)]
        tally = peers.monitor.tally("A")
        assert tally is not None
        assert (tally.healthy, tally.bad, tally.since - START) == (False, 5, 20)
        peers.failing.clear()
        await asyncio.sleep(30)
        assert peers.events() == [("A", True, "2 good answers in a row", 60)]

    run(main)


def test_one_good_answer_may_be_enough() -> None:
    async def main(peers: Peers) -> None:
        peers.monitor.update([watched("A", Health(check=TcpCheck(), rise=1, fall=1, jitter=0))])
        peers.failing["A"] = "no"
        await asyncio.sleep(1)
        peers.failing.clear()
        await asyncio.sleep(2)
        assert [event[:3] for event in peers.events()] == [
            ("A", False, "no"),
            ("A", True, "a good answer"),
        ]

    run(main)


def test_one_that_hangs_delays_nobody() -> None:
    async def main(peers: Peers) -> None:
        peers.hanging["A"] = asyncio.Event()
        peers.monitor.update([watched("A"), watched("B")])
        await asyncio.sleep(30)
        assert peers.times("A") == [0]
        assert peers.times("B") == [5, 15, 25]
        peers.hanging.pop("A").set()
        await asyncio.sleep(1)
        assert peers.times("A") == [0, 30]  # late already, so at once

    run(main)


def test_no_more_are_asked_at_the_same_time_than_allowed() -> None:
    async def main(peers: Peers) -> None:
        for key in "ABC":
            peers.hanging[key] = asyncio.Event()
        peers.monitor.update(watched(key) for key in "ABC")
        await asyncio.sleep(9)
        assert [key for key, _ in peers.asked] == ["A", "B"]
        peers.hanging["A"].set()
        await asyncio.sleep(0.1)
        assert [key for key, _ in peers.asked] == ["A", "B", "C"]

    assert run(main, concurrency=2).most == 2


def test_the_same_ones_keep_their_tally_and_their_times() -> None:
    async def main(peers: Peers) -> None:
        peers.failing["A"] = "no"
        peers.monitor.update([watched("A")])
        await asyncio.sleep(15)
        peers.monitor.update([watched("B"), watched("A")])
        await asyncio.sleep(6)
        assert peers.times("A") == [0, 10, 20]
        assert peers.times("B") == [15]
        assert peers.events() == [("A", False, "no", 20)]

    run(main)


def test_those_that_are_gone_are_asked_no_more() -> None:
    async def main(peers: Peers) -> None:
        peers.hanging["A"] = asyncio.Event()
        peers.monitor.update([watched("A"), watched("B")])
        await asyncio.sleep(1)
        peers.monitor.update([watched("B")])
        await asyncio.sleep(0)
        assert peers.open == 0
        assert peers.monitor.tally("A") is None
        assert not peers.monitor.check_now("A")
        await asyncio.sleep(60)
        assert peers.times("A") == [0]

    assert run(main).events() == []


def test_one_that_is_asked_otherwise_stays_as_healthy_as_it_is() -> None:
    async def main(peers: Peers) -> None:
        peers.failing["A"] = "no"
        peers.monitor.update([watched("A")])
        await asyncio.sleep(25)
        assert len(peers.events()) == 1
        other = Health(check=TcpCheck(), interval=1, rise=3, jitter=0)
        peers.monitor.update([watched("A", other)])
        tally = peers.monitor.tally("A")
        assert tally is not None
        assert (tally.healthy, tally.reason, tally.since - START) == (False, "no", 20)
        assert (tally.bad, tally.good, tally.rise) == (0, 0, 3)
        peers.failing.clear()
        await asyncio.sleep(3)
        assert peers.events() == [("A", True, "3 good answers in a row", 27)]

    run(main)


@pytest.mark.parametrize(
    "new", [watched("A", address="192.0.2.2"), watched("A", port=81), watched("A", Health())]
)
def test_one_that_takes_the_place_of_another_or_is_asked_no_more_is_healthy(
    new: Watched[str],
) -> None:
    async def main(peers: Peers) -> None:
        peers.failing["A"] = "no"
        peers.monitor.update([watched("A")])
        await asyncio.sleep(25)
        peers.events()
        peers.monitor.update([new])
        assert peers.events() == [("A", True, "watched anew", 25)]
        peers.monitor.update([watched("A", address="192.0.2.3")])
        assert peers.events() == []  # it was healthy

    run(main)


def test_one_without_a_check_is_healthy_and_never_asked() -> None:
    async def main(peers: Peers) -> None:
        peers.monitor.update([watched("A", Health())])
        await asyncio.sleep(100)
        tally = peers.monitor.tally("A")
        assert tally is not None
        assert tally.healthy
        assert not peers.monitor.check_now("A")

    assert run(main).asked == []


def test_a_suspect_that_answers_is_asked_once_more_than_usual() -> None:
    async def main(peers: Peers) -> None:
        peers.monitor.update([watched("A")])
        await asyncio.sleep(13)
        assert peers.monitor.check_now("A")
        assert peers.monitor.check_now("A")
        await asyncio.sleep(12)
        assert peers.times("A") == [0, 10, 13, 23]

    run(main)


def test_a_suspect_that_does_not_answer_is_down_soon() -> None:
    async def main(peers: Peers) -> None:
        peers.monitor.update([watched("A")])
        await asyncio.sleep(13)
        peers.failing["A"] = "port unreachable"
        peers.monitor.check_now("A")
        await asyncio.sleep(9)
        assert peers.times("A") == [0, 10, 13, 14, 15]
        assert peers.events() == [("A", False, "port unreachable", 15)]
        peers.monitor.check_now("A")
        await asyncio.sleep(0.5)
        assert peers.times("A") == [0, 10, 13, 14, 15, 22]  # it is down: once

    run(main)


def test_a_suspicion_during_a_question_is_followed_by_another_one() -> None:
    async def main(peers: Peers) -> None:
        peers.hanging["A"] = asyncio.Event()
        peers.monitor.update([watched("A")])
        await asyncio.sleep(1)
        peers.monitor.check_now("A")
        peers.hanging.pop("A").set()
        await asyncio.sleep(1)
        assert peers.times("A") == [0, 1]

    run(main)


def test_what_cannot_be_watched_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(check: Check | None, _: object) -> None:
        if isinstance(check, IcmpCheck):
            raise PrivilegeError("send echo requests")

    monkeypatch.setattr(module, "require", refuse)

    async def main(peers: Peers) -> None:
        peers.monitor.update([watched("A")])
        with pytest.raises(InvalidValueError, match="B is watched twice"):
            peers.monitor.update([watched("B"), watched("B")])
        with pytest.raises(PrivilegeError):
            peers.monitor.update([watched("B"), watched("C", Health(check=IcmpCheck()))])
        await asyncio.sleep(1)
        assert peers.asked == [("A", 0)]

    run(main)


def test_how_long_answers_took_is_counted_by_backend() -> None:
    async def main(peers: Peers) -> None:
        free = peers.hanging["A"] = asyncio.Event()
        peers.failing["B"] = "connection refused"
        unasked = watched("C", Health(check=None))
        peers.monitor.update([watched("A"), watched("B"), unasked])
        asyncio.get_running_loop().call_later(0.3, free.set)
        await asyncio.sleep(19)
        first, second = peers.monitor.timings("A"), peers.monitor.timings("B")
        assert first is not None
        assert second is not None
        assert first.counts[bisect_left(BOUNDS_S, 0.3)] == 1
        assert (first.counts[0], sum(first.counts), first.failures) == (1, 2, 0)
        assert first.total_s == pytest.approx(0.3)
        assert (sum(second.counts), second.failures) == (2, 2)
        assert peers.monitor.timings("C") is None
        assert peers.monitor.timings("D") is None
        peers.monitor.update([watched("A", replace(HEALTH, interval=5)), unasked])
        await asyncio.sleep(1)
        kept = peers.monitor.timings("A")
        assert kept is not None
        assert sum(kept.counts) == 3  # counters go on when a check is another one
        assert sum(first.counts) == 2  # and what was given away is a copy

    run(main)


def test_a_closed_monitor_asks_no_more_and_takes_nobody() -> None:
    async def main(peers: Peers) -> None:
        peers.hanging["A"] = asyncio.Event()
        peers.monitor.update([watched("A"), watched("B")])
        await asyncio.sleep(1)
        await peers.monitor.close()
        assert peers.open == 0
        assert peers.monitor.tally("A") is None
        with pytest.raises(RuntimeError, match="closed"):
            peers.monitor.update([])
        await asyncio.sleep(100)
        assert peers.asked == [("A", 0)]

    run(main)


def test_real_backends_fall_and_rise() -> None:
    async def main() -> None:
        fast = {"interval": 0.1, "timeout": 5.0, "rise": 1, "fall": 1}
        monitor: Monitor[str] = Monitor(uniform=lambda: 0.0)
        with bound(socket.SOCK_STREAM) as (sock, port), bound(socket.SOCK_DGRAM) as (_, silent):
            monitor.update(
                [
                    Watched("tcp", target(port), Health(check=TcpCheck(), **fast)),  # type: ignore[arg-type]
                    Watched("udp", target(silent), Health(check=UdpCheck(b"?"))),
                    Watched("sleep", target(None), Health(check=ExecCheck(("sleep", "60")))),
                ]
            )
            down = await monitor.events.get()
            assert down == Event("tcp", healthy=False, reason="connection refused", at=down.at)
            sock.listen()
            up = await monitor.events.get()
            assert up == Event("tcp", healthy=True, reason="a good answer", at=up.at)
            await monitor.close()

    with nothing_left_open():
        asyncio.run(main())
