"""What the traffic tells of the backends: who is asked and does not answer.

A window of a backend begins with the look that finds the first packet since its last answer, and
ends with the next answer. It is evidence against the backend when it is at least ``least_s``
seconds long, and

- ``least_packets`` packets or more went to the backend in it, and another backend of the service
  has answered in it: the clients do expect answers, and the way back works; or
- the backend has sent ICMP port unreachables in it: nobody listens there (RFC 1122 4.1.3.1).

The backend is then suspect, and its next window begins. Port unreachables make it suspect at
once, too, but once in a window. A window that is no evidence for a minute is given up.

Suspect means that it is asked, at once. Where there is no active check, ``fall`` windows of
evidence in a row take it down, and it comes back on trial (``trial``); one window of evidence
ends a trial.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from xdplb.health.trial import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from xdplb.checks import Health

_Key = TypeVar("_Key", bound=Hashable)

LEAST_PACKETS: Final = 5
LEAST_S: Final = 2.0
LAPSE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What has been counted of a backend, ever since.

    Attributes:
        packets_in: Packets toward it.
        packets_out: Packets from it.
        unreachable: ICMP port unreachables that it sent.
    """

    packets_in: int
    packets_out: int
    unreachable: int = 0

    def __sub__(self, before: Counters) -> Counters:
        """What has been added since."""
        return Counters(
            self.packets_in - before.packets_in,
            self.packets_out - before.packets_out,
            self.unreachable - before.unreachable,
        )

    def began_anew(self, before: Counters) -> bool:
        """Whether a count is lower than it was: they are those of another balancer."""
        added = self - before
        return min(added.packets_in, added.packets_out, added.unreachable) < 0


@dataclass(frozen=True, slots=True)
class Suspect(Generic[_Key]):
    """A backend that is to be asked at once, and why."""

    key: _Key
    reason: str


@dataclass(frozen=True, slots=True)
class Turn(Generic[_Key]):
    """A backend that the traffic alone takes down or brings back, and why."""

    key: _Key
    healthy: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Findings(Generic[_Key]):
    """What came of a look.

    Attributes:
        suspects: Whom to ask; empty without an active check.
        turns: Who is down or back from now on; empty with an active check.
    """

    suspects: tuple[Suspect[_Key], ...] = ()
    turns: tuple[Turn[_Key], ...] = ()


@dataclass(slots=True)
class _Window:
    """What has gone to a backend since its last answer."""

    start: float
    packets: int = 0
    refused: bool = False
    told: bool = False


@dataclass(slots=True)
class _Seen:
    """What is known of one backend."""

    counters: Counters
    replied: float | None = None
    window: _Window | None = None
    silent: int = 0
    trial: Trial = field(default_factory=Trial)


class Passive(Generic[_Key]):
    """The backends of one UDP service, judged by the traffic."""

    def __init__(
        self,
        health: Health,
        *,
        one_way: bool = False,
        least_packets: int = LEAST_PACKETS,
        least_s: float = LEAST_S,
    ) -> None:
        """Begin without knowledge.

        Args:
            health: Whether there is an active check, and how many windows take a backend down.
            one_way: Nobody is expected to answer, so that silence means nothing.
            least_packets: Packets that nobody answers until silence means something.
            least_s: Seconds until it does.
        """
        self._judges = health.passive and not one_way
        self._alone = health.check is None
        self._fall = health.fall
        self._least_packets = least_packets
        self._least_s = least_s
        self._seen: dict[_Key, _Seen] = {}

    def look(
        self, counters: Mapping[_Key, Counters], now: float, down: AbstractSet[_Key] = frozenset()
    ) -> Findings[_Key]:
        """Compare with the look before.

        Args:
            counters: Of all backends of the service; the ones that are missing are forgotten.
            now: A time that never goes back.
            down: Those that are down. One that is when it is seen first comes back on trial.
        """
        before, self._seen = self._seen, {}
        for key, counted in counters.items():
            seen = before.get(key) or _Seen(counted)
            if key not in before and key in down and self._judges and self._alone:
                seen.trial.fail(now)
            self._seen[key] = seen
        turns = [
            Turn(key, healthy=True, reason="it answers")
            for key, seen in self._seen.items()
            if self._take(seen, counters[key], now)
        ]
        if not self._judges:
            return Findings()
        suspects: list[Suspect[_Key]] = []
        for key, seen in self._seen.items():
            if seen.trial.begin(now):
                seen.window = None
                reason = f"on trial after {seen.trial.pause:g} s"
                turns.append(Turn(key, healthy=True, reason=reason))
            reason = self._evidence(key, seen, now)
            if reason and not self._alone:
                suspects.append(Suspect(key, reason))
            elif reason and (seen.silent >= self._fall or (seen.trial.on_trial and seen.silent)):
                seen.silent = 0
                seen.trial.fail(now)
                turns.append(Turn(key, healthy=False, reason=reason))
        return Findings(tuple(suspects), tuple(turns))

    def healthy(self, key: _Key) -> bool:
        """Whether the traffic alone lets the backend be up; yes for one that is not known."""
        seen = self._seen.get(key)
        return seen is None or seen.trial.healthy

    def _take(self, seen: _Seen, counters: Counters, now: float) -> bool:
        """Take the counters in.

        Returns:
            Whether an answer ended the backend's being down.
        """
        before, seen.counters = seen.counters, counters
        if counters.began_anew(before):
            seen.window = None
            return False
        added = counters - before
        if added.packets_out:
            seen.replied = now
            seen.window = None
            seen.silent = 0
            return seen.trial.answer(now)
        if added.packets_in or added.unreachable:
            seen.window = seen.window or _Window(now)
            seen.window.packets += added.packets_in
            seen.window.refused |= added.unreachable > 0
        return False

    def _evidence(self, key: _Key, seen: _Seen, now: float) -> str:
        """Why the backend is suspect now; empty if it is not, or is down already."""
        window = seen.window
        if window is None or not seen.trial.healthy:
            return ""
        age = now - window.start
        silence = window.packets >= self._least_packets and self._another_answered(key, window)
        if age >= self._least_s and (window.refused or silence):
            seen.window = None
            seen.silent += 1
            if window.refused:
                return "port unreachable"
            return f"{window.packets} packets in {age:.0f} s and no answer, while others answer"
        if window.refused and not window.told:
            window.told = True
            return "port unreachable"
        if age >= LAPSE_S:
            seen.window = None
            seen.silent = 0
        return ""

    def _another_answered(self, key: _Key, window: _Window) -> bool:
        return any(
            seen.replied is not None and seen.replied > window.start
            for other, seen in self._seen.items()
            if other != key
        )
