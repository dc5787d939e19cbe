"""The table of NAT behaviour names tests that exist, so that it cannot lie for long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xdplb import source

TESTS = Path(__file__).parents[1]
NAME = re.compile(r"`(\w+)`")


def rows() -> list[list[str]]:
    """The table's rows, cell by cell."""
    text = (source.directory() / "README.md").read_text()
    section = text.split("## NAT behaviour\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def defined() -> set[str]:
    """Every test function and class there is."""
    text = "\n".join(path.read_text() for path in TESTS.glob("*/test_*.py"))
    return set(re.findall(r"(?:def|class) ((?:test_|Test)\w+)", text))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_requirement_is_met_or_not_for_a_reason_and_by_tests(row: list[str]) -> None:
    _, _, here, tests = row
    assert here.startswith(("met", "deviates: "))
    named = set(NAME.findall(tests))
    assert named <= defined()
    assert named or here.startswith("deviates: none yet")
