"""Counting answers, and who is taken down."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdplb.checks import BelowMinimum
from xdplb.health.verdict import Decision, Member, Tally, decide

OPEN, CLOSED = BelowMinimum.FAIL_OPEN, BelowMinimum.FAIL_CLOSED

ANSWERS = st.lists(st.booleans(), max_size=60)
COUNTS = st.integers(1, 5)


def count(tally: Tally, answers: list[bool], start: int = 0) -> list[int]:
    """Count answers, one a second; the seconds in which something changed."""
    changes = []
    for now, good in enumerate(answers, start):
        if tally.count_good(now) if good else tally.count_bad(f"bad {now}", now):
            changes.append(now)
    return changes


def test_it_begins_healthy_and_one_good_answer_changes_nothing() -> None:
    tally = Tally(rise=2, fall=3, since=-5)
    assert tally.healthy
    assert not tally.count_good(0)
    assert (tally.since, tally.reason, tally.good, tally.bad) == (-5, "", 1, 0)


def test_fall_bad_answers_in_a_row_take_it_down_and_rise_good_ones_bring_it_back() -> None:
    tally = Tally(rise=2, fall=3, since=0)
    bad, good = False, True
    assert count(tally, [bad, bad, good, bad, bad, bad, bad]) == [5]
    assert (tally.healthy, tally.since, tally.reason, tally.bad) == (False, 5, "bad 6", 4)
    assert count(tally, [good, bad, good, good, good], 7) == [10]
    assert (tally.healthy, tally.since, tally.reason, tally.good) == (True, 10, "bad 8", 3)


@given(ANSWERS, COUNTS, COUNTS)
def test_it_is_what_the_last_run_that_was_long_enough_says(
    answers: list[bool], rise: int, fall: int
) -> None:
    tally = Tally(rise, fall, since=0)
    changes = count(tally, answers)
    runs = [(good, len(list(run))) for good, run in groupby(answers)]
    decisive = [good for good, length in runs if length >= (rise if good else fall)]
    assert tally.healthy is (decisive[-1] if decisive else True)
    turns = [good for good, _ in groupby([True, *decisive])][1:]
    assert len(changes) == len(turns)
    assert tally.since == (changes[-1] if changes else 0)
    last = runs[-1] if runs else (True, 0)
    assert (tally.good, tally.bad) == ((last[1], 0) if last[0] else (0, last[1]))


def members(text: str) -> list[Member[str]]:
    """``A`` is healthy, ``a`` is not; behind a ``-`` it is not available."""
    found = []
    for word in text.split():
        letter = word.removeprefix("-")
        found.append(Member(letter.upper(), letter.isupper(), available=letter == word))
    return found


@pytest.mark.parametrize(
    ("now", "last", "least", "below", "down", "held"),
    [
        ("A B C", "", 1, OPEN, "", ""),
        ("a B C", "", 1, OPEN, "A", ""),
        ("a b C", "A", 1, OPEN, "AB", ""),
        ("a b c", "AB", 1, OPEN, "AB", "C"),  # the last one stays
        ("a b c", "", 1, OPEN, "", "ABC"),  # all at once: nobody is taken down
        ("a b c", "", 1, CLOSED, "ABC", ""),
        ("a b C", "", 2, OPEN, "", "AB"),
        ("a b C", "A", 2, OPEN, "A", "B"),
        ("a b C", "A", 2, CLOSED, "AB", ""),
        ("A b c", "A", 2, OPEN, "", "BC"),  # who is healthy again comes back all the same
        ("a b c", "", 0, OPEN, "ABC", ""),  # the service needs none
        ("a -B", "", 1, OPEN, "", "A"),  # who is drained does not remain
        ("a -B C", "", 1, OPEN, "A", ""),
        ("A -b", "", 1, OPEN, "B", ""),  # but is taken down
        ("a -b", "B", 1, OPEN, "B", "A"),
        ("A B", "XY", 3, OPEN, "", ""),  # fewer than needed, but nobody failed
        ("", "A", 1, OPEN, "", ""),
        ("", "", 1, CLOSED, "", ""),
    ],
)
def test_who_is_taken_down(
    now: str, last: str, least: int, below: BelowMinimum, down: str, held: str
) -> None:
    found = decide(members(now), frozenset(last), least, below)
    assert found == Decision(frozenset(down), frozenset(held))


MEMBERS = st.lists(
    st.builds(Member, st.integers(0, 7), st.booleans(), st.booleans()),
    unique_by=lambda member: member.key,
)


@given(MEMBERS, st.frozensets(st.integers(0, 9)), st.integers(0, 4), st.sampled_from(BelowMinimum))
def test_nobody_healthy_is_down_and_nobody_joins_below_the_minimum(
    who: list[Member[int]], last: frozenset[int], least: int, below: BelowMinimum
) -> None:
    found = decide(who, last, least, below)
    failed = {member.key for member in who if not member.healthy}
    assert found.down | found.held == failed
    assert not found.down & found.held
    remaining = sum(member.available and member.healthy for member in who)
    if below is CLOSED or remaining >= least:
        assert found.down == failed
    else:
        assert found.down <= last
    assert decide(who, found.down, least, below) == found


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), max_size=20), st.integers(0, 4))
def test_a_service_that_fails_open_never_has_fewer_than_it_needs(
    course: list[list[bool]], least: int
) -> None:
    down: frozenset[int] = frozenset()
    for healthy in course:
        who = [Member(key, state) for key, state in enumerate(healthy)]
        down = decide(who, down, least, OPEN).down
        assert len(healthy) - len(down) >= least
