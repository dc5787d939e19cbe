"""The checks as they are made: one that cannot be made says so, and the next one is made."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdplb.doctor.findings import Finding, Opinion, bad, poor
from xdplb.errors import XdplbError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(slots=True)
class Findings:
    """What has been found so far."""

    found: list[Finding] = field(default_factory=list)

    def add(self, name: str, scope: str, *opinions: Opinion) -> None:
        """Take opinions of one check."""
        self.found += [Finding(name, scope, item) for item in opinions]

    def check(self, name: str, scope: str, judge: Callable[[], Opinion | list[Opinion]]) -> None:
        """Make one check."""
        with self.guard(name, scope):
            opinions = judge()
            self.add(name, scope, *(opinions if isinstance(opinions, list) else [opinions]))

    @contextmanager
    def guard(self, name: str, scope: str, *, is_fatal: bool = False) -> Iterator[None]:
        """Say of a check that it cannot be made, where that is so.

        Args:
            name: The check's.
            scope: Where it looks.
            is_fatal: What cannot be looked at cannot work.
        """
        try:
            yield
        except XdplbError as error:
            self._unknown(name, scope, f"{error}", error.hint, is_fatal=is_fatal)
        except OSError as error:
            self._unknown(name, scope, error.strerror or f"{error}", "", is_fatal=is_fatal)

    def _unknown(self, name: str, scope: str, why: str, hint: str, *, is_fatal: bool) -> None:
        words = bad(why, hint=hint) if is_fatal else poor(f"cannot be looked at: {why}", hint=hint)
        self.add(name, scope, words)
