"""The status as a terminal shows it: what there is room for, and colours for what matters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rich.text import Text

from xdplb.advice import ALMOST_FULL
from xdplb.model import BackendState
from xdplb.quantities import count, short
from xdplb.rates import key_of
from xdplb.render import HOW_TO_START, NOTHING, drops, forecasts, title
from xdplb.screen import glyphs
from xdplb.screen.grid import INDENT, Column, Frame, fit, hanging
from xdplb.verdicts import PASSED, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from xdplb.model import BackendStatus, BalancerStatus, ServiceStatus
    from xdplb.rates import Rates, Traffic
    from xdplb.screen.glyphs import Glyphs

MANY: Final = 8
"""With more services than these, one whose backends are all up takes one line."""

STYLES: Final = {"up": "green", "drain": "yellow", "down": "red", "unresolved": "red"}
"""How the states of a backend look."""

_COLUMNS: Final = (
    Column("backend", is_number=False),
    Column("state", is_number=False),
    Column("MAC address", 11, is_number=False),
    Column("weight", 9),
    Column("share", 8),
    Column("expected", 10),
    Column("flows"),
)
_TOTALS: Final = (Column("in", 4), Column("bytes", 5), Column("out", 4), Column("bytes", 5))
_RATES: Final = (Column("in/s", 1), Column("bit/s", 2), Column("out/s", 1), Column("bit/s", 2))
_OFF: Final = 0.02
"""How far a share may be from what is expected before it stands out."""

_CRITICAL: Final = 0.95
_BAR: Final = 20
_LABEL: Final = 9


@dataclass(frozen=True, slots=True)
class StatusScreen:
    """All balancers, one after the other.

    Attributes:
        rates: What was measured.
        has_rates: Show what each backend gets in a second.
        full: Show every backend of every service, however many there are.
    """

    balancers: Sequence[BalancerStatus]
    rates: Mapping[int, Rates] = field(default_factory=dict)
    has_rates: bool = False
    full: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, for a terminal as wide as this one."""
        pen = _Pen(console, options.max_width, glyphs.of(ascii_only=options.ascii_only))
        if not self.balancers:
            yield Text(NOTHING)
            yield from pen.hint(HOW_TO_START)
        for place, item in enumerate(self.balancers):
            if place:
                yield Text()
            rates = self.rates.get(key_of(item))
            yield _head(item, pen.signs)
            yield Text()
            yield from _services(self, item, rates, pen)
            yield Text()
            yield from _room(item, rates, pen)
            yield from _drops(item, pen)
            yield from _warnings(item, pen)


def watched(above: str, status: StatusScreen | None) -> Frame:
    """The status as the whole screen, under one line that says when it was so."""
    return Frame(Text(above, "dim"), status or Text())


@dataclass(frozen=True, slots=True)
class _Pen:
    """What lines are written with."""

    console: Console
    width: int
    signs: Glyphs

    def labelled(self, label: str, words: Text) -> Iterator[Text]:
        """Words behind a label, as wide as all labels are."""
        lead = Text.assemble(" " * INDENT, (f"{label:<{_LABEL}}", "dim"), "  ")
        return hanging(self.console, lead, words, self.width)

    def hint(self, words: str, indent: int = INDENT) -> Iterator[Text]:
        """What to do about it."""
        lead = Text.assemble(" " * indent, (f"{self.signs.hint} ", "dim"))
        return hanging(self.console, lead, Text(words, "dim"), self.width)


def _head(item: BalancerStatus, signs: Glyphs) -> Text:
    """Where the balancer is, and whether all is well with it."""
    on = ", ".join(f"{one.name} ({one.mode})" for one in item.interfaces)
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{signs.dot} ", "yellow" if item.warnings else "green")
    line.append(on, "bold")
    if item.warnings:
        line.append(f"  {count(len(item.warnings), 'warning')}", "yellow")
    line.append(f"  program {item.program_id}, xdplb {item.version}", "dim")
    return line


def _services(
    screen: StatusScreen, item: BalancerStatus, rates: Rates | None, pen: _Pen
) -> Iterator[Text]:
    """The services and their backends, in columns that they have in common."""
    is_short = len(item.services) > MANY and not screen.full
    has_rates = screen.has_rates
    lines: list[Text | list[Text]] = []
    hidden = 0
    for service in item.services:
        if is_short:
            lines.append(_service(service, rates, pen.signs, has_rates=has_rates))
        else:
            lines.append(Text(title(service), "bold", no_wrap=True, overflow="ellipsis"))
        if is_short and all(one.takes_traffic for one in service.backends):
            hidden += 1
        else:
            lines += [
                _backend(service, one, rates, pen.signs, has_rates=has_rates, deeper=is_short)
                for one in service.backends
            ]
    columns = (*_COLUMNS, *(_RATES if has_rates else ()), *_TOTALS)
    layout = fit(columns, [line for line in lines if isinstance(line, list)], pen.width)
    yield layout.header()
    for line in lines:
        if isinstance(line, list):
            yield from layout.row(line)
        else:
            yield line
    if hidden:
        words = f"{count(hidden, 'service')} with all backends up: one line each, more with --full"
        yield Text(f"{' ' * INDENT}{words}", "dim")


def _service(
    item: ServiceStatus, rates: Rates | None, signs: Glyphs, *, has_rates: bool
) -> list[Text]:
    """A service in one row."""
    return [
        Text(f"{item}", "bold"),
        able_of(item, signs).append(" up"),
        *(Text() for _ in ("MAC address", "weight", "share", "expected")),
        *_numbers(item.backends, rates.of_service(item) if rates else None, has_rates=has_rates),
    ]


def _backend(  # noqa: PLR0913 - all that a row depends on
    service: ServiceStatus,
    item: BackendStatus,
    rates: Rates | None,
    signs: Glyphs,
    *,
    has_rates: bool,
    deeper: bool,
) -> list[Text]:
    """A backend in one row."""
    is_off = abs(item.share - item.expected_share) > _OFF
    traffic = rates.of_backend(service, item) if rates else None
    return [
        Text(f"{' ' * INDENT * deeper}{item.backend}"),
        state_of(item, signs),
        Text(item.mac or "", "dim"),
        Text(f"{item.backend.weight}"),
        Text(f"{100 * item.share:.1f} %", "yellow" if is_off else ""),
        Text(f"{100 * item.expected_share:.1f} %", "dim"),
        *_numbers([item], traffic, has_rates=has_rates),
    ]


def able_of(item: ServiceStatus, signs: Glyphs) -> Text:
    """How many backends of a service take new flows."""
    able, every = sum(one.takes_traffic for one in item.backends), len(item.backends)
    style = "green" if able == every else "yellow" if able else "red"
    return Text.assemble((f"{signs.dot} ", style), f"{able} of {every}")


def state_of(item: BackendStatus, signs: Glyphs) -> Text:
    """A backend's state, and whether its next hop is known."""
    word = "unresolved" if item.mac is None and item.state is BackendState.UP else item.state
    return Text.assemble((f"{signs.dot} ", STYLES[word]), word)


def _numbers(
    backends: Sequence[BackendStatus], traffic: Traffic | None, *, has_rates: bool
) -> Iterator[Text]:
    """Flows, rates and totals of some backends together."""
    yield number(sum(item.flows for item in backends))
    if traffic is not None:
        yield from (number(value) for value in traffic)
    elif has_rates:
        yield from (Text("-", "dim") for _ in _RATES)
    yield number(sum(item.packets_in for item in backends))
    yield number(sum(item.bytes_in for item in backends), "B")
    yield number(sum(item.packets_out for item in backends))
    yield number(sum(item.bytes_out for item in backends), "B")


def number(value: float, unit: str = "") -> Text:
    """A number; nothing at all stays in the background."""
    return Text(short(value, unit), "" if value else "dim")


def _room(item: BalancerStatus, rates: Rates | None, pen: _Pen) -> Iterator[Text]:
    """The flow table, the NAT ports and the packets."""
    flows, ports = forecasts(item, rates)
    fullest = item.fullest
    fill = max(item.nat_ports_fill, fullest.nat_ports_fill if fullest else 0.0)
    used = f"{item.flows:,} of {item.capacity:,}"
    yield from pen.labelled("flows", _used(used, item.flows_fill, flows, pen.signs))
    used = f"{item.nat_ports_used:,} of {item.nat_ports_total:,}"
    yield from pen.labelled("NAT ports", _used(used, fill, ports, pen.signs))
    passed = sum(packets for name, packets in item.verdicts.items() if name.startswith(PASSED))
    dropped = sum(packets for _, packets in drops(item))
    sent = sum(item.verdicts.values()) - passed - dropped
    words = f"{sent:,} sent on, {passed:,} left to the host, {dropped:,} dropped"
    yield from pen.labelled("packets", Text(words))


def _used(words: str, fill: float, forecast: str, signs: Glyphs) -> Text:
    style = "yellow" if fill >= ALMOST_FULL else ""
    return Text.assemble(bar_of(fill, signs), "  ", words, "  ", (forecast, style))


def bar_of(fill: float, signs: Glyphs, width: int = _BAR) -> Text:
    """A bar; not all empty where there is something, and not all full where there is room."""
    pieces = round(min(fill, 1) * width)
    if 0 < fill < 1:
        pieces = min(max(pieces, 1), width - 1)
    style = "red" if fill >= _CRITICAL else "yellow" if fill >= ALMOST_FULL else "green"
    return Text.assemble((signs.full * pieces, style), (signs.empty * (width - pieces), "dim"))


def _drops(item: BalancerStatus, pen: _Pen) -> Iterator[Text]:
    """Why packets were dropped, and what to do about it."""
    found = list(drops(item))
    if found:
        yield Text()
    for name, packets in found:
        words = Text.assemble(f"{packets:,} ", (name, "bold"), f": {VERDICTS[name].meaning}")
        yield from pen.labelled("dropped", words)
        yield from pen.hint(VERDICTS[name].hint, 2 * INDENT + _LABEL)


def _warnings(item: BalancerStatus, pen: _Pen) -> Iterator[Text]:
    if item.warnings:
        yield Text()
    for one in item.warnings:
        lead = Text.assemble((pen.signs.warning, "yellow"), " ")
        yield from hanging(pen.console, lead, Text(one.what, "bold"), pen.width)
        yield from pen.hint(one.hint)
