"""The few signs that are not letters, and what stands for them where a terminal has ASCII only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Signs.

    Attributes:
        dot: Before a state.
        warning: Before what a person should know of; and ``hint``, before what to do about it.
        full: A piece of a bar; and ``empty``, what is left of it.
        bars: From the lowest to the highest.
        arrows: Two keys.
    """

    dot: str
    warning: str
    hint: str
    full: str
    empty: str
    bars: str
    arrows: str


UNICODE: Final = Glyphs("●", "▲", "→", "━", "─", "▁▂▃▄▅▆▇█", "↑↓")
ASCII: Final = Glyphs("*", "!", "->", "#", ".", "_.-:=+*#", "arrows")


def of(*, ascii_only: bool) -> Glyphs:
    """Those that a terminal can show."""
    return ASCII if ascii_only else UNICODE
