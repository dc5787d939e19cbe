"""Numbers as a person reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdplb.quantities import about, count, percent, short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (7, "7"),
        (0.4, "0.4"),
        (9.94, "9.9"),
        (9.96, "10"),
        (12.34, "12"),
        (999, "999"),
        (999.4, "999"),
        (999.6, "1.00 k"),
        (1000, "1.00 k"),
        (9_999, "10.0 k"),
        (99_999, "100 k"),
        (999_499, "999 k"),
        (999_500, "1.00 M"),
        (1_240_000, "1.24 M"),
        (623e6, "623 M"),
        (18_446_744_073_709_551_615, "18.4 E"),
    ],
)
def test_a_number_has_three_digits_and_a_prefix(value: float, text: str) -> None:
    assert short(value) == text


def test_a_unit_stands_behind_the_prefix() -> None:
    assert [short(value, "B") for value in (0, 87_000)] == ["0 B", "87.0 kB"]


@given(st.floats(0, 1e20))
def test_a_number_is_never_longer_than_its_column(value: float) -> None:
    assert len(short(value)) <= 6


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (0, "0 %"),
        (0.0001, "<1 %"),
        (0.5, "50 %"),
        (0.784, "78 %"),
        (0.992, "99 %"),
        (0.9999, ">99 %"),
        (1, "100 %"),
        (1.2, "120 %"),
    ],
)
def test_a_part_is_nothing_or_all_only_where_it_is(part: float, text: str) -> None:
    assert percent(part) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.3, "less than 1 s"),
        (40.2, "about 40 s"),
        (59.7, "about 1 min"),
        (240, "about 4 min"),
        (3590, "about 1 h"),
        (7200, "about 2 h"),
    ],
)
def test_a_time_to_go_is_rough(seconds: float, text: str) -> None:
    assert about(seconds) == text


def test_what_is_counted_has_its_plural() -> None:
    assert [count(number, "flow") for number in (0, 1, 12_000)] == [
        "0 flows",
        "1 flow",
        "12,000 flows",
    ]
