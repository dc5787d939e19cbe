"""What a terminal of some size would show, without a terminal."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType


def drawn(what: RenderableType, width: int, height: int = 24, *, is_colourful: bool = False) -> str:
    """The characters that are drawn; with ``is_colourful``, their colours too."""
    console = Console(
        file=StringIO(),
        width=width,
        height=height,
        force_terminal=True,
        color_system="standard" if is_colourful else None,
        legacy_windows=False,
        highlight=False,
        _environ={"TERM": "xterm-256color"},
    )
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def lines(what: RenderableType, width: int, height: int = 24) -> list[str]:
    """The lines, without blanks at their ends; none is longer than the terminal is wide."""
    found = [line.rstrip() for line in drawn(what, width, height).splitlines()]
    assert all(len(line) <= width for line in found)
    return found
