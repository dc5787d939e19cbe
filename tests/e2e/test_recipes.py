"""The tutorial and the recipes of the page for users: every command, and what it prints."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from recipes import PAGE, Section, prepare, sections

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTIONS = sections(PAGE.read_text())
AT_A_TIME = 3
"""Most of a recipe's time is waiting, for a server to answer or a neighbour to be missed."""


def differences(title: str) -> list[str]:
    """What the commands of a section do that the page does not say."""
    found = []
    with Section() as section:
        for step in SECTIONS[title]:
            done, as_said = section.perform(step)
            if not as_said:
                said = "".join(step.output)
                found.append(f"{step.command}\nsays:\n{said}does ({done.code}):\n{done.output}")
    return found


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[list[str]]]]:
    """The differences of the sections that are tested, the longest first."""
    names = {item.name for item in request.session.items}
    wanted = [
        title
        for title in SECTIONS
        if f"{test_the_page_says_what_happens.__name__}[{title}]" in names
    ]
    prepare()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {
            title: pool.submit(differences, title)
            for title in sorted(wanted, key=lambda title: -len(SECTIONS[title]))
        }


@pytest.mark.timeout(300)  # with what runs beside it
@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_says_what_happens(title: str, found: dict[str, Future[list[str]]]) -> None:
    assert not (differences := found[title].result()), "\n".join(differences)
