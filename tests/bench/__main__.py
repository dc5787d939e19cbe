"""``make bench``: what xdplb costs, side by side with the limit and with what people run today."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from bench import alone, carry, control, latency, path
from bench.figures import Report, machine
from rich.console import Console

RESULTS: Final = Path(__file__).resolve().parents[2] / ".bench" / "results.json"
SECTIONS: Final = {
    "alone": alone.measure,
    "path": path.measure,
    "latency": latency.measure,
    "commands": control.measure,
    "carry": carry.measure,
}
WIDTH: Final = 132


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and sizes: a minute")
    parser.add_argument(
        "--only", action="append", choices=SECTIONS, metavar="SECTION", help=", ".join(SECTIONS)
    )
    return parser.parse_args()


def stop(number: int, frame: object) -> NoReturn:
    """End like an error does, so that namespaces and processes are removed."""
    del frame
    sys.exit(128 + number)


def main() -> None:
    """Measure, print the table, write ``.bench/results.json``."""
    asked = options()
    if os.geteuid() != 0:
        sys.exit("bench: run it as root; it makes network namespaces and loads BPF programs")
    signal.signal(signal.SIGTERM, stop)
    started = time.monotonic()
    report = Report()
    progress = Console(stderr=True)
    for name, measure in SECTIONS.items():
        if asked.only and name not in asked.only:
            continue
        with progress.status(f"measuring: {name}"):
            measure(report, quick=asked.quick)
    seconds = time.monotonic() - started
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(report.table())
    for note in report.notes:
        console.print(note, highlight=False)
    here = machine()
    console.print(
        f"{here['cpu']}, {here['cores']} cores{', virtual' if here['virtual'] else ''}, "
        f"Linux {here['kernel']}; {seconds:.0f} s",
        highlight=False,
    )
    report.save(RESULTS, seconds, vars(asked))


if __name__ == "__main__":
    main()
