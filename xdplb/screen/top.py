"""The screen of ``top``: what is going on now, and who has most of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.text import Text

from xdplb.quantities import count, percent, short
from xdplb.rates import key_of, sparkline, total
from xdplb.render import HOW_TO_START, NOTHING, drops, forecasts
from xdplb.screen import glyphs
from xdplb.screen.grid import GAP, INDENT, Column, fit, hanging
from xdplb.screen.status import able_of, bar_of, number, state_of
from xdplb.screen.view import HELP, KEYS
from xdplb.verdicts import DROPPED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from xdplb.model import BalancerStatus, Clients, ClientStatus
    from xdplb.rates import History, Rates, Traffic
    from xdplb.screen.glyphs import Glyphs
    from xdplb.screen.view import Row, View

_COLUMNS: Final = (
    Column("service", is_number=False),
    Column("state", is_number=False),
    Column("flows", 1),
    Column("in/s"),
    Column("bit/s", 2),
    Column("out/s"),
    Column("bit/s", 2),
)
_SPARK: Final = 6
"""How much of the width is kept for sparklines."""

_MOST_STEPS: Final = 60
_AROUND: Final = 9
"""Lines that are no rows and no clients: title, traffic, flows, NAT ports, warning, the names of
columns, what is below, the names of the panel, keys."""

_MOST_CLIENTS: Final = 10


def panel_lines(height: int) -> int:
    """How many clients there is room for on a screen of so many lines."""
    return min(max((height - _AROUND) // 3, 0), _MOST_CLIENTS)


def page_of(height: int) -> int:
    """How many rows there is room for on a screen of so many lines."""
    return max(height - _AROUND - panel_lines(height), 1)


@dataclass(frozen=True, slots=True)
class TopScreen:
    """The whole screen.

    Attributes:
        balancers: As they were when they were looked at last.
        measured: Their rates.
        rows: All of them, in order.
        history: What was measured before.
        clients: Those of each balancer.
        said: What stands in the title: when this was, and how often it is measured.
        trouble: Why there is nothing newer; empty if there is.
    """

    balancers: Sequence[BalancerStatus]
    measured: Mapping[int, Rates]
    rows: Sequence[Row]
    history: History
    clients: Sequence[Clients]
    view: View
    said: str
    trouble: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many lines as the screen has."""
        pen = _Pen(console, options, glyphs.of(ascii_only=options.ascii_only))
        body = [*self._head(pen), *(self._help(pen) if self.view.has_help else self._body(pen))]
        body = [*body, *(Text() for _ in range(pen.height))][: pen.height - 1]
        for line in body:
            yield from pen.cut(line)
            yield Segment.line()
        yield from pen.cut(_keys(pen))

    def _head(self, pen: _Pen) -> Iterator[Text]:
        names = [f"{one.name} ({one.mode})" for item in self.balancers for one in item.interfaces]
        line = Text.assemble(("xdplb top", "bold"), f"  {', '.join(names)}")
        line.append(f"  {self.said}, by {self.view.order}", "dim")
        if self.view.is_reversed:
            line.append(" reversed", "dim")
        if self.view.is_paused:
            line.append("  ").append("paused", "reverse")
        yield line
        if self.trouble:
            yield Text(self.trouble, "yellow")
        if not self.balancers:
            if not self.trouble:
                yield Text()
                yield Text(NOTHING)
                yield Text(f"{' ' * INDENT}{pen.signs.hint} {HOW_TO_START}", "dim")
            return
        yield self._traffic(pen)
        yield from self._room(pen)
        yield self._warning(pen)

    def _traffic(self, pen: _Pen) -> Text:
        sums = total(
            traffic for rates in self.measured.values() for traffic in rates.traffic.values()
        )
        dropped = sum(value for _, value, _ in self._drops())
        line = Text(" " * INDENT)
        for label, packets, bits in (
            ("in", sums.packets_in, sums.bits_in),
            ("out", sums.packets_out, sums.bits_out),
        ):
            line.append(f"{label} ", "dim").append(f"{short(packets)}/s {short(bits, 'bit/s')}   ")
        line.append("dropped ", "dim").append(f"{short(dropped)}/s   ", "red" if dropped else "")
        return line.append_text(
            pen.spark(self.history.all_packets(), pen.width - cell_len(line.plain))
        )

    def _room(self, pen: _Pen) -> Iterator[Text]:
        """How full it is: the balancer that is fullest."""
        item = max(self.balancers, key=lambda one: max(one.flows_fill, one.nat_ports_fill))
        flows, ports = forecasts(item, self.measured.get(key_of(item)))
        fullest = item.fullest
        fill = max(item.nat_ports_fill, fullest.nat_ports_fill if fullest else 0.0)
        for label, used, room, part, words in (
            ("flows", item.flows, item.capacity, item.flows_fill, flows),
            ("NAT ports", item.nat_ports_used, item.nat_ports_total, fill, ports),
        ):
            line = Text.assemble(" " * INDENT, (f"{label:<9}  ", "dim"), bar_of(part, pen.signs))
            yield line.append(f"  {used:,} of {room:,}  {words}")

    def _warning(self, pen: _Pen) -> Text:
        """How many warnings there are, and the first of them; an empty line for none."""
        every = [one for item in self.balancers for one in item.warnings]
        if not every:
            return Text()
        how_many = f"{len(every)} warnings: " if len(every) > 1 else ""
        return Text.assemble((pen.signs.warning, "yellow"), f" {how_many}{every[0].what}")

    def _body(self, pen: _Pen) -> Iterator[Text]:
        if not self.balancers:
            return
        page = page_of(pen.height)
        first = min(self.view.first, max(len(self.rows) - page, 0))
        shown = self.rows[first : first + page]
        yield from self._table(shown, pen)
        yield from (Text() for _ in range(page - len(shown)))
        below = len(self.rows) - first - len(shown)
        hidden = [f"{rows} {where}" for rows, where in ((first, "above"), (below, "below")) if rows]
        yield Text(f"{' ' * INDENT}{', '.join(hidden)}", "dim")
        lines = panel_lines(pen.height)
        if lines:
            yield from self._panel(lines, pen)

    def _table(self, shown: Sequence[Row], pen: _Pen) -> Iterator[Text]:
        """Rows, with as much of the past as there is room for."""
        lines = [
            [*_names(row, pen.signs), number(row.flows), *_rates(row.traffic)] for row in shown
        ]
        layout = fit(_COLUMNS, lines, pen.width - _SPARK - GAP)
        yield layout.header()
        for row, cells in zip(shown, lines, strict=True):
            line = layout.line(cells)
            line.append(" " * (layout.width + GAP - cell_len(line.plain)))
            trend = self.history.packets(row.key, row.places)
            yield line.append_text(pen.spark(trend, pen.width - layout.width - GAP))

    def _panel(self, lines: int, pen: _Pen) -> Iterator[Text]:
        """Clients on the left, drops on the right."""
        half = pen.width // 2
        left, right = self._client_lines(lines, half), self._drop_lines(lines, pen.width - half)
        for one, other in zip(left, right, strict=True):
            one.truncate(half - GAP, overflow="ellipsis")
            yield one.append(" " * (half - cell_len(one.plain))).append_text(other)

    def _client_lines(self, lines: int, width: int) -> list[Text]:
        every = sorted(
            (one for item in self.clients for one in item.first), key=lambda it: -it.flows
        )
        clients = count(sum(item.total for item in self.clients), "client")
        flows = sum(item.flows for item in self.balancers)
        title = f"{' ' * INDENT}most flows, of {clients}" if self.clients else ""
        found = [Text(title, "dim")]
        found += [_client(one, flows, width) for one in every[:lines]]
        return [*found, *(Text() for _ in range(lines + 1 - len(found)))]

    def _drops(self) -> list[tuple[str, float, int]]:
        """Each reason with packets in a second, and in all."""
        rates: dict[str, float] = {}
        counts: dict[str, int] = {}
        for item in self.balancers:
            found = self.measured.get(key_of(item))
            for name, packets in drops(item):
                counts[name] = counts.get(name, 0) + packets
                rates[name] = rates.get(name, 0.0) + (found.verdicts.get(name, 0) if found else 0)
        return sorted(
            ((name, rates[name], counts[name]) for name in counts), key=lambda it: (-it[1], -it[2])
        )

    def _drop_lines(self, lines: int, width: int) -> list[Text]:
        found = [Text("dropped, and why" if self._drops() else "nothing was dropped", "dim")]
        for name, rate, packets in self._drops()[:lines]:
            reason = name.removeprefix(DROPPED).replace("_", " ")
            line = Text(f"{reason:<14}")
            line.append(f"{short(rate) + '/s':>9}", "red" if rate else "dim")
            line.append(f"{short(packets):>9} in all", "dim")
            line.truncate(width, overflow="ellipsis")
            found.append(line)
        return [*found, *(Text() for _ in range(lines + 1 - len(found)))]

    def _help(self, pen: _Pen) -> Iterator[Text]:
        yield Text()
        for key, what in HELP.items():
            lead = Text.assemble(" " * INDENT, (f"{key:<10}", "bold"), "  ")
            yield from hanging(pen.console, lead, Text(what), pen.width)
        yield Text()
        words = Text(
            "'in' is from clients to backends, 'out' is back. A client is an IPv4 address or an "
            "IPv6 /64. A sparkline is as high as its own highest moment. 'xdplb status' shows "
            "warnings with what to do about them.",
            "dim",
        )
        yield from hanging(pen.console, Text(" " * INDENT), words, pen.width)


@dataclass(frozen=True, slots=True)
class _Pen:
    """What lines are written with."""

    console: Console
    options: ConsoleOptions
    signs: Glyphs

    @property
    def width(self) -> int:
        """Columns."""
        return self.options.max_width

    @property
    def height(self) -> int:
        """Lines."""
        return self.options.height or self.console.size.height

    def cut(self, line: Text) -> Iterator[Segment]:
        """A line, or what of it fits into one."""
        line.truncate(self.width, overflow="ellipsis")
        yield from line.render(self.console)

    def spark(self, values: Sequence[float], width: int) -> Text:
        """The last values, as far as there is room for them."""
        room = min(max(width, 0), _MOST_STEPS)
        return Text(sparkline(values, room, self.signs.bars) if room else "", "cyan")


def _names(row: Row, signs: Glyphs) -> tuple[Text, Text]:
    if row.backend is not None:
        return Text(f"{' ' * INDENT}{row.backend.backend}"), state_of(row.backend, signs)
    return Text(f"{row.service}", "bold"), able_of(row.service, signs)


def _rates(traffic: Traffic) -> tuple[Text, ...]:
    return tuple(number(value) for value in traffic)


def _client(item: ClientStatus, flows: int, width: int) -> Text:
    """A client, its flows, and which part of all that is."""
    line = Text(f"{' ' * INDENT}{item}")
    numbers = f"{short(item.flows):>6}  {percent(item.flows / flows) if flows else '':>5}"
    line.truncate(max(width - GAP - len(numbers), 0), overflow="ellipsis")
    return line.append(" " * (width - GAP - len(numbers) - cell_len(line.plain))).append(numbers)


def _keys(pen: _Pen) -> Text:
    line = Text(" " * INDENT)
    for key, what in KEYS.items():
        line.append(key, "bold").append(f" {what}   ", "dim")
    return line.append(f"{pen.signs.arrows} scroll", "dim")
