"""What the commands cost: wall time, peak memory, and what is left running."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.figures import Figure
from bench.frames import Template, mac_bytes, requests
from bench.programs import Source
from lab import XDPLB, Lab, run
from packets import CLIENT_MAC

from xdplb import wire
from xdplb.kernel import libbpf, program
from xdplb.model import IPV4, Backend
from xdplb.selection import build_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.figures import Report

SECTION: Final = "commands"
_BACKENDS: Final = 64
_FIRST_HOST: Final = 20
_TARGETS: Final = {"up": 0.5, "status": 0.25, "--help": 0.15}
_MILLION_TARGET: Final = 0.3
_KIB: Final = 1024


@dataclass(frozen=True, slots=True)
class Size:
    """How many rounds, and how many live flows at the end."""

    rounds: int
    flows: int


FULL: Final = Size(9, 1_000_000)
QUICK: Final = Size(7, 1_000_000)


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of a command: seconds, and the largest resident set of it or a child, in MiB."""

    seconds: float
    mib: float


_LAUNCHER: Final = """
import os, sys, time
started = time.perf_counter()
child = os.fork()
if not child:
    os.dup2(2, 1)
    os.execv(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
print(time.perf_counter() - started, usage.ru_maxrss, status)
"""
"""A process as small as can be: until it runs something else, a child counts as large as it."""


def command(*arguments: str) -> Cost:
    """Run ``xdplb`` and measure it.

    Raises:
        RuntimeError: It failed.
    """
    launcher = (sys.executable, "-I", "-S", "-c", _LAUNCHER)
    done = run(*launcher, f"{XDPLB}", *arguments)
    seconds, kib, status = done.stdout.split()
    if int(status):
        raise RuntimeError(f"xdplb {' '.join(arguments)}: {done.stderr}")
    return Cost(float(seconds), int(kib) / _KIB)


def measure(report: Report, *, quick: bool) -> None:
    """Every row of this section."""
    size = QUICK if quick else FULL
    _cycle(report, size)
    _many_flows(report, size)
    _tables(report, size)


def _rows(report: Report, name: str, costs: list[Cost], target: float | None = None) -> None:
    seconds = [item.seconds for item in costs]
    report.add(Figure(SECTION, f"xdplb {name}", "s", seconds, target=target))
    report.add(Figure(SECTION, f"xdplb {name}: peak memory", "MiB", [item.mib for item in costs]))


def _cycle(report: Report, size: Size) -> None:
    """The three commands, one after the other, with two backends; then the help."""
    costs: dict[str, list[Cost]] = {"up": [], "status": [], "down": [], "--help": []}
    resident = []
    with Lab() as lab:
        where = ("--netns", lab.balancer)
        backends = ("--backend", "172.11.0.20", "--backend", "172.11.0.21")
        for _ in range(size.rounds):
            costs["up"].append(command(*where, "up", "--iface", "balancer", *backends))
            resident.append(float(_processes_in(lab.balancer)))
            costs["status"].append(command(*where, "status"))
            costs["down"].append(command(*where, "down"))
            costs["--help"].append(command("--help"))
    for name, items in costs.items():
        _rows(report, name, items, _TARGETS.get(name))
    report.add(Figure(SECTION, "processes left after up", "", resident, target=0.0))


def _processes_in(namespace: str) -> int:
    """How many processes are in a network namespace."""
    wanted = (Path("/run/netns") / namespace).stat().st_ino
    found = 0
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found += path.stat().st_ino == wanted
        except OSError:
            continue
    return found


def _many_flows(report: Report, size: Size) -> None:
    """What a command takes that has to look at a million flows."""
    hosts = tuple(range(_FIRST_HOST, _FIRST_HOST + _BACKENDS))
    with Lab(hosts) as lab:
        room = ("--max-flows", f"{2 * size.flows}", "--nat-ports", "1024-65535")
        lab.up(*room, backends=tuple(f"172.11.0.{host}" for host in hosts))
        number = lab.status()["program"]["id"]
        fill(lab, number, size.flows)
        where = ("--netns", lab.balancer)
        plain, machine = (
            [command(*where, "status", *more) for _ in range(size.rounds)]
            for more in ((), ("--json",))
        )
        dumps = [_timed(lambda: _dump(number, size.flows)) for _ in range(size.rounds)]
    words = f", {size.flows:,} flows"
    _rows(report, f"status{words}", plain, _MILLION_TARGET)
    _rows(report, f"status --json{words}", machine, _MILLION_TARGET)
    report.add(Figure(SECTION, f"read client_port from Python{words}", "s", dumps))


def fill(lab: Lab, number: int, flows: int) -> None:
    """Open flows in a running balancer, through its program, as many clients would.

    Raises:
        RuntimeError: Not all of them were opened.
    """
    _, mac = lab.link("b", "balancer")
    template = Template(mac_bytes(CLIENT_MAC), mac_bytes(mac))
    fd = libbpf.program_fd(number)
    assert fd is not None
    try:
        with Source("drive") as driver:
            driver.aim(fd)
            driver.give(template, requests(0, flows))
            driver.drive(flows)
    finally:
        os.close(fd)
    live = lab.status()["flows"]["active"]
    if live != flows:
        raise RuntimeError(f"{live:,} flows were opened, not {flows:,}")


def _dump(number: int, flows: int) -> None:
    """Read every index entry of a running balancer into memory."""
    for item in program.map_ids(number):
        fd = libbpf.map_fd(item)
        assert fd is not None
        try:
            info = libbpf.map_info(fd)
            if info.name == b"client_port":
                keys, _ = libbpf.lookup_all(fd, info.key_size, info.value_size, info.max_entries)
                assert len(keys) == flows * wire.SIZES[IPV4]["client_key"]
        finally:
            os.close(fd)


def _tables(report: Report, size: Size) -> None:
    """The Maglev table, built anew with each change of the backends."""
    first = IPv4Address("10.0.0.1")
    for count in (2, 64, 1000):
        backends = [(number, Backend(first + number)) for number in range(count)]
        taken = [_timed(lambda: build_table(backends)) for _ in range(size.rounds)]  # noqa: B023 - called at once
        values = [1e3 * seconds for seconds in taken]
        report.add(Figure(SECTION, f"Maglev table of {count:,} backends", "ms", values))


def _timed(job: Callable[[], object]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started
