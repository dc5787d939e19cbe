"""How long the answers of a backend took, in classes; the times themselves are not kept."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing import Self

BOUNDS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""The upper bound of each class; the last one has none."""


@dataclass(slots=True)
class Timings:
    """The answers of one backend.

    Attributes:
        counts: Answers by class.
        total_s: Seconds that all of them took.
        failures: How many of them were bad.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0
    failures: int = 0

    def count(self, seconds: float, *, good: bool) -> None:
        """Count an answer."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds
        self.failures += not good

    def copy(self) -> Self:
        """The same, as it is now."""
        return type(self)(list(self.counts), self.total_s, self.failures)
