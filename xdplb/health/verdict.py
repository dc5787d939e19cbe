"""When a backend counts as down, and whether its service can do without it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from xdplb.checks import BelowMinimum

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(slots=True)
class Tally:
    """The answers of one backend, counted.

    It begins as healthy, for a balancer that starts must not drop everyone: the first ``fall``
    bad answers in a row take it down, ``rise`` good ones in a row bring it back.

    Attributes:
        rise: Good answers in a row that bring it back.
        fall: Bad ones that take it down.
        since: When it became what it is, on the caller's clock.
        healthy: Whether it is up.
        reason: Of the last bad answer; empty if there was none. A good one does not erase it.
        good: Good answers since the last bad one.
        bad: Bad answers since the last good one.
    """

    rise: int
    fall: int
    since: float
    healthy: bool = True
    reason: str = ""
    good: int = 0
    bad: int = 0

    def count_good(self, now: float) -> bool:
        """Count a good answer.

        Returns:
            Whether it brought the backend back.
        """
        self.good += 1
        self.bad = 0
        return self._become(healthy=True, now=now) if self.good >= self.rise else False

    def count_bad(self, reason: str, now: float) -> bool:
        """Count a bad answer.

        Returns:
            Whether it took the backend down.
        """
        self.bad += 1
        self.good = 0
        self.reason = reason
        return self._become(healthy=False, now=now) if self.bad >= self.fall else False

    def _become(self, *, healthy: bool, now: float) -> bool:
        changed = self.healthy is not healthy
        if changed:
            self.healthy = healthy
            self.since = now
        return changed


@dataclass(frozen=True, slots=True)
class Member(Generic[_Key]):
    """A backend of a service, when it is decided who is taken down.

    Attributes:
        key: Which one.
        healthy: What the checks say.
        available: It would get new flows: no operator drains it, and it has a weight.
    """

    key: _Key
    healthy: bool
    available: bool = True


@dataclass(frozen=True, slots=True)
class Decision(Generic[_Key]):
    """Who is taken down.

    Attributes:
        down: Those that are to be down.
        held: Those that are not healthy and stay all the same, as the service needs them.
    """

    down: frozenset[_Key]
    held: frozenset[_Key] = frozenset()


def decide(
    members: Iterable[Member[_Key]], last: AbstractSet[_Key], min_healthy: int, below: BelowMinimum
) -> Decision[_Key]:
    """Decide which backends of a service are down.

    Every backend that is not healthy is, as long as ``min_healthy`` others remain that are
    healthy and available. A backend that is drained or has no weight is none of those that
    remain, but is taken down itself like any other, so that its old flows find a better one.

    With fewer than that, FAIL_CLOSED takes them down all the same. FAIL_OPEN keeps the last set
    that was enough: of those that are not healthy, only the ones that were down stay down, and
    nobody joins them; who is healthy again comes back at once. All of them failing at the same
    time is thus taken for a fault of the checks, and takes nobody down.

    Args:
        members: All backends of the service, each once.
        last: Who was down by the last decision; keys that are no members do not matter.
        min_healthy: How many have to remain.
        below: What happens otherwise.
    """
    all_members = tuple(members)
    failed = frozenset(member.key for member in all_members if not member.healthy)
    remaining = sum(member.healthy and member.available for member in all_members)
    if remaining >= min_healthy or below is BelowMinimum.FAIL_CLOSED:
        return Decision(failed)
    return Decision(failed & last, failed - last)
