"""What files of this floor share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import forked
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """The process that forks commands is kept for the next test of a file: others count."""
    yield
    forked.end()
