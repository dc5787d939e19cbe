"""What files of this floor share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from forked import Forked

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def forked() -> Iterator[Forked]:
    """A process that forks for each command."""
    with Forked() as process:
        yield process
