"""How busy packets make a balancer: the figures are the benchmark's, and are used as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdplb.capacity import measured
from xdplb.capacity.speed import Speed, at_flows

TREE = Path(__file__).parents[2]
BENCH = (TREE / "tests" / "bench" / "README.md").read_text()
CONFIG = (TREE / "bpf" / "config.h").read_text()


def row(name: str) -> list[str]:
    """The cells of a row of the benchmark's tables, behind its name."""
    found = re.search(rf"^\| {re.escape(name)} \|(.+)\|$", BENCH, re.MULTILINE)
    assert found is not None
    return [cell.strip() for cell in found[1].split("|")]


def flows() -> list[int]:
    """Those at the head of the first table."""
    found = re.search(r"^\| one packet, .+?\| (.+) \|$", BENCH, re.MULTILINE)
    assert found is not None
    return [int(cell.partition(" ")[0].replace(",", "")) for cell in found[1].split(" | ")]


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("client -> backend", measured.FORWARD_NS),
        ("backend -> client", measured.RETURN_NS),
        ("a new flow", measured.NEW_FLOW_NS),
    ],
)
def test_the_figures_are_those_that_the_benchmark_page_has(
    name: str, table: dict[int, int]
) -> None:
    cells = dict(zip(flows(), row(name), strict=True))
    assert {at: int(cell.removesuffix(" ns")) for at, cell in cells.items() if cell != "-"} == table


def test_the_limit_is_that_of_the_page_and_so_is_what_xdplb_does_beside_it() -> None:
    limit, _ = row("the limit: swap MAC addresses and send back")
    assert float(limit) == measured.LIMIT_MPPS
    done = float(row("**xdplb**")[0])
    assert Speed().most_packets(1024) / 1e6 == pytest.approx(done, rel=0.03)


def test_the_machine_is_the_one_that_the_page_names() -> None:
    for word in measured.MACHINE.split(", "):
        assert word.removeprefix("virtual ").removesuffix(" cores") in BENCH


def test_a_search_looks_at_as_many_ports_as_the_program_says() -> None:
    windows, each = (
        int(re.findall(rf"^#define {name} (\d+)$", CONFIG, re.MULTILINE)[0])
        for name in ("PROBE_WINDOWS", "PROBE_WINDOW")
    )
    assert windows * each == measured.SEARCHED_WHOLE


@given(st.floats(0, 1e9))
def test_between_two_figures_lies_what_is_between_them(at: float) -> None:
    assert 22 <= at_flows(measured.FORWARD_NS, at) <= 285


def test_a_figure_that_was_measured_is_taken_as_it_is() -> None:
    for at, value in measured.RETURN_NS.items():
        assert at_flows(measured.RETURN_NS, at) == pytest.approx(value)
    assert at_flows({10: 100, 1000: 200}, 100) == pytest.approx(150)


def test_one_s_own_figures_count_before_the_benchmarks() -> None:
    speed = Speed(processors=4, limit_mpps=10, packet_ns=25)
    assert speed.whole_ns(1e6) == 125
    assert speed.most_packets(1e6) == 32e6
    assert speed.busy(16e6, 0, 1e6) == pytest.approx(0.5)


def test_new_flows_take_longer_and_are_among_the_packets() -> None:
    speed = Speed(limit_mpps=10)
    opening = at_flows(measured.NEW_FLOW_NS, 1024) - speed.program_ns(1024)
    assert speed.busy(0, 1e5, 1024) == pytest.approx(1e5 * (speed.whole_ns(1024) + opening) / 1e9)
    assert speed.busy(1e5, 1e5, 1024) == speed.busy(0, 1e5, 1024)
