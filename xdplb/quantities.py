"""Numbers as a person reads them: three digits and a prefix, whole percents, rough times."""

from __future__ import annotations

import math
from typing import Final

_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
_STEP: Final = 1000
_ROUNDED: Final = 999.5
_ONE_DIGIT: Final = 9.95
_MINUTE: Final = 60
_HOUR: Final = _MINUTE * 60


def short(value: float, unit: str = "") -> str:
    """A number of three digits with a decimal prefix: ``1.24 M``, ``87.0 kB``.

    Below a thousand, whole numbers stay whole, and others have one digit after the point.
    """
    if value < _ROUNDED:
        text = (
            f"{value:.0f}" if value >= _ONE_DIGIT or float(value).is_integer() else f"{value:.1f}"
        )
        return f"{text} {unit}".rstrip()
    power = int(math.log10(value)) // 3
    if value / _STEP**power >= _ROUNDED:
        power += 1
    text = f"{value / _STEP**power:#.3g}".rstrip(".")
    return f"{text} {_PREFIXES[power]}{unit}"


def percent(part: float) -> str:
    """A part of a whole; neither nothing nor all of it unless it is so."""
    text = f"{100 * part:.0f} %"
    if part > 0 and text == "0 %":
        return "<1 %"
    return ">99 %" if part < 1 and text == "100 %" else text


def about(seconds: float) -> str:
    """A time to go, roughly: ``about 40 s``, ``about 4 min``, ``about 2 h``."""
    if seconds < 1:
        return "less than 1 s"
    if round(seconds) < _MINUTE:
        return f"about {seconds:.0f} s"
    if round(seconds / _MINUTE) < _MINUTE:
        return f"about {seconds / _MINUTE:.0f} min"
    return f"about {seconds / _HOUR:.0f} h"


def count(number: int, what: str) -> str:
    """How many there are of something: ``1 flow``, ``12,000 flows``."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
