"""What it costs to save a million flows, and to go on with them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from bench.control import command, fill
from bench.figures import Figure
from lab import Lab

if TYPE_CHECKING:
    from bench.figures import Report

SECTION: Final = "save and restore"
_FLOWS: Final = 1_000_000
_BACKENDS: Final = tuple(f"172.11.0.{host}" for host in range(20, 84))
_OPTIONS: Final = (
    *("--iface", "balancer", "--max-flows", f"{2 * _FLOWS}", "--nat-ports", "1024-65535"),
    *("--timeout-unreplied", "3600"),
    *(word for backend in _BACKENDS for word in ("--backend", backend)),
)
_TARGET: Final = 5.0


def measure(report: Report, *, quick: bool) -> None:
    """Every row of this section."""
    rounds = 2 if quick else 5
    costs: dict[str, list[float]] = {"save": [], "restore": [], "up": [], "up --restore": []}
    memory: list[float] = []
    with Lab(tuple(range(20, 84))) as lab, TemporaryDirectory() as directory:
        file = Path(directory) / "flows"
        where = ("--netns", lab.balancer)
        lab.xdplb("up", *_OPTIONS)
        fill(lab, lab.status()["program"]["id"], _FLOWS)
        for _ in range(rounds):
            saved = command(*where, "save", f"{file}")
            lab.xdplb("down")
            costs["up"].append(command(*where, "up", *_OPTIONS).seconds)
            restored = command(*where, "restore", f"{file}")
            lab.xdplb("down")
            started = command(*where, "up", *_OPTIONS, "--restore", f"{file}")
            _check(lab)
            costs["save"].append(saved.seconds)
            costs["restore"].append(restored.seconds)
            costs["up --restore"].append(started.seconds)
            memory.append(max(item.mib for item in (saved, restored, started)))
        size = file.stat().st_size / _FLOWS
    for name, seconds in costs.items():
        words = "xdplb up, without flows" if name == "up" else f"xdplb {name}, {_FLOWS:,} flows"
        target = None if name == "up" else _TARGET
        report.add(Figure(SECTION, words, "s", seconds, target=target))
        if name in {"save", "restore"}:
            rates = [_FLOWS / item for item in seconds]
            report.add(Figure(SECTION, f"xdplb {name}", "flows/s", rates))
    report.add(Figure(SECTION, "the file", "bytes/flow", [size], target=40.0))
    report.add(Figure(SECTION, "peak memory", "MiB", memory))


def _check(lab: Lab) -> None:
    """Make sure that all flows are there.

    Raises:
        RuntimeError: They are not.
    """
    live = lab.status()["flows"]["active"]
    if live != _FLOWS:
        raise RuntimeError(f"{live:,} flows were restored, not {_FLOWS:,}")
