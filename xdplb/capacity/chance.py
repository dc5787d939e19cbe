"""How far from its mean a number may be, by bounds that hold for every size (Chernoff, 1952)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_HALVINGS: Final = 60


def poisson_most(mean: float, risk: float) -> float:
    """A number that a Poisson variable of this mean reaches with a chance of ``risk`` at most.

    Flows that begin independently of each other are so many at a moment, whatever the time that
    each one lasts (the queue M/G/infinity).
    """
    if not mean:
        return 0.0
    enough = math.log(1 / risk)
    # Beyond twice the mean the distance grows by at least 0.38 for each.
    return _first(lambda x: _distance(x, mean) >= enough, mean, 2 * mean + 3 * enough)


def poisson_mean(most: float, risk: float) -> float:
    """The largest mean for which ``poisson_most`` is no more than ``most``."""
    enough = math.log(1 / risk)
    if most <= enough:
        return 0.0
    return most - _first(lambda less: _distance(most, most - less) >= enough, 0.0, most)


def _distance(x: float, mean: float) -> float:
    """The logarithm of one by the bound on the chance that a Poisson variable reaches ``x``."""
    return x * math.log(x / mean) - x + mean if mean > 0 else math.inf


def largest_part(count: int, part: float, risk: float) -> float:
    """The part of ``count`` equal things that falls to a place, exceeded with ``risk`` at most.

    Args:
        count: How many there are.
        part: The chance of each to fall there.
        risk: The chance that it is more than what is returned.
    """
    if part >= 1:
        return 1.0
    enough = math.log(1 / risk) / count
    return _first(lambda x: _divergence(x, part) >= enough, part, 1.0)


def _divergence(x: float, part: float) -> float:
    """Kullback and Leibler's, of two chances."""
    rest = (1 - x) * math.log((1 - x) / (1 - part)) if x < 1 else 0.0
    return x * math.log(x / part) + rest


def _first(is_enough: Callable[[float], bool], low: float, high: float) -> float:
    """The least number between two for which it is enough, or ``high``."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
