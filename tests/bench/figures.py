"""Figures: what was measured, against what, and whether that is good enough."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from xdplb import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Figure:
    """One row: the rounds' values, and the reference's from the same rounds.

    Attributes:
        values: One a round.
        reference: What it was interleaved with, one value a round; empty for none.
        against: What the reference is.
        target: A bound on the median, or on the median ratio.
        at_most: The bound is an upper one.
        of_ratio: The bound is on the ratio to the reference.
        note: What has to be known to read the row.
    """

    section: str
    name: str
    unit: str
    values: Sequence[float]
    reference: Sequence[float] = ()
    against: str = ""
    target: float | None = None
    at_most: bool = True
    of_ratio: bool = False
    note: str = ""

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """The middle of the rounds' ratios to the reference."""
        if not self.reference or not all(self.reference):
            return None
        pairs = zip(self.values, self.reference, strict=True)
        return statistics.median(value / other for value, other in pairs)

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        value = self.ratio if self.of_ratio else self.median
        if value is None:
            return None
        return value <= self.target if self.at_most else value >= self.target

    def to_json(self) -> dict[str, Any]:
        """The row for ``results.json``."""
        return {
            "section": self.section,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "rounds": list(self.values),
            "against": self.against or None,
            "reference": list(self.reference),
            "ratio": self.ratio,
            "target": self.target,
            "target_is": ("at most" if self.at_most else "at least") if self.target else None,
            "target_on": ("ratio" if self.of_ratio else "median") if self.target else None,
            "met": self.is_met,
            "note": self.note or None,
        }


@dataclass(slots=True)
class Report:
    """All rows of one run."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *figures: Figure) -> None:
        """Take rows in."""
        self.figures += figures

    def note(self, text: str) -> None:
        """Take in a sentence about what is not in the table, and why."""
        self.notes.append(text)

    def table(self) -> Table:
        """The rows as one table."""
        table = Table(title="xdplb benchmark", title_justify="left")
        table.add_column("what")
        for heading in ("median", "min", "max", "unit", "ratio", "to", "target"):
            table.add_column(heading, justify="left" if heading in {"unit", "to"} else "right")
        section = ""
        for item in self.figures:
            if item.section != section:
                section = item.section
                table.add_section()
                table.add_row(f"[bold]{section}")
            table.add_row(
                f"  {item.name}",
                *(_number(value) for value in (item.median, min(item.values), max(item.values))),
                item.unit,
                "" if item.ratio is None else _number(item.ratio),
                item.against,
                _target(item),
            )
        return table

    def save(self, path: Path, seconds: float, options: dict[str, Any]) -> None:
        """Write everything as JSON."""
        path.parent.mkdir(exist_ok=True)
        text = json.dumps(
            {
                "version": 1,
                "xdplb": __version__,
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": machine(),
                "options": options,
                "seconds": round(seconds, 1),
                "notes": self.notes,
                "figures": [item.to_json() for item in self.figures],
            },
            indent=1,
        )
        path.write_text(text + "\n")


def machine() -> dict[str, Any]:
    """What ran the benchmark."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
    hypervisor = any("hypervisor" in line.split() for line in info if line.startswith("flags"))
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "virtual": hypervisor,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _number(value: float) -> str:
    """Three digits that count, and no exponent."""
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 4
    return f"{value:,.{digits}f}"


def _target(item: Figure) -> str:
    if item.target is None:
        return ""
    sign = "≤" if item.at_most else "≥"
    text = f"{'ratio ' if item.of_ratio else ''}{sign} {_number(item.target)}"
    return f"[green]{text} ✓" if item.is_met else f"[red]{text} ✗"
