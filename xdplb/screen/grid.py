"""Tables for a terminal: as many columns as there is room for, the most important ones first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

GAP: Final = 2
INDENT: Final = 2
_FIRST: Final = 21
"""How wide the first column is before others go: an IPv4 address and a port."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, whatever its cells are.

    Attributes:
        title: What stands above it.
        rank: Those of the highest rank go first, all together; 0 always stays.
        is_number: It is set to the right.
    """

    title: str
    rank: int = 0
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns there is room for, and how wide they are."""

    columns: tuple[Column, ...]
    shown: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def width(self) -> int:
        """Of all of them together."""
        return INDENT + sum(self.widths) + GAP * (len(self.widths) - 1)

    def header(self) -> Text:
        """The titles."""
        return self.line([Text(item.title, "dim") for item in self.columns])

    def row(self, cells: Sequence[Text]) -> Iterator[Text]:
        """A row: one line, or two where the first cell is wider than its column."""
        first = cells[self.shown[0]]
        if cell_len(first.plain) > self.widths[0]:
            yield Text(" " * INDENT) + first
            cells = [Text() if at == self.shown[0] else cell for at, cell in enumerate(cells)]
        yield self.line(cells)

    def line(self, cells: Sequence[Text]) -> Text:
        """A row in one line; a first cell that is wider than its column is cut."""
        line = Text(" " * INDENT)
        for place, (at, width) in enumerate(zip(self.shown, self.widths, strict=True)):
            cell, is_last = cells[at].copy(), place == len(self.shown) - 1
            cell.truncate(width, overflow="ellipsis")
            room = " " * max(width - cell_len(cell.plain), 0)
            if self.columns[at].is_number:
                line.append(room).append_text(cell)
            else:
                line.append_text(cell).append("" if is_last else room)
            line.append("" if is_last else " " * GAP)
        line.rstrip()
        return line


def fit(columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int) -> Layout:
    """Leave out columns until the others fit; the first one gets what is left.

    Args:
        columns: All that there are.
        rows: Their cells, which the columns are as wide as.
        width: Of the terminal.
    """
    needed = [
        max([cell_len(item.title), *(cell_len(row[at].plain) for row in rows)])
        for at, item in enumerate(columns)
    ]
    first, needed[0] = needed[0], min(needed[0], _FIRST)
    shown = list(range(len(columns)))
    while _width(needed, shown) > width:
        highest = max(columns[at].rank for at in shown)
        if not highest:
            break
        shown = [at for at in shown if columns[at].rank < highest]
    left = width - _width(needed, shown)  # less than nothing where even the others do not fit
    widths = [max(min(first, needed[0] + left), 0), *(needed[at] for at in shown[1:])]
    return Layout(tuple(columns), tuple(shown), tuple(widths))


def _width(needed: Sequence[int], shown: Sequence[int]) -> int:
    return INDENT + sum(needed[at] for at in shown) + GAP * (len(shown) - 1)


def hanging(console: Console, lead: Text, words: Text, width: int) -> Iterator[Text]:
    """Words that stand behind a lead, and where they do not fit into a line, below themselves."""
    indent = cell_len(lead.plain)
    for place, line in enumerate(words.wrap(console, max(width - indent, 1))):
        line.rstrip()
        yield (Text(" " * indent) if place else lead) + line


@dataclass(frozen=True, slots=True)
class Frame:
    """What fits onto the screen, line by line; and where it does not, that there is more.

    Attributes:
        above: One line above it.
    """

    above: Text
    what: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many lines as the screen has."""
        height = options.height or console.size.height
        free = options.update(height=None)
        above, lines = (
            console.render_lines(item, free, pad=False) for item in (self.above, self.what)
        )
        room = max(height - len(above), 0)
        if len(lines) > room:
            more = Text(f"and {len(lines) - room + 1} lines more: make the window higher", "dim")
            lines = [*lines[: max(room - 1, 0)], *console.render_lines(more, free, pad=False)]
        for place, line in enumerate([*above, *lines][:height]):
            if place:
                yield Segment.line()
            yield from line
