"""What is wrong with a file: the key, the reason and the next step."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_KEYS: Final = (
    ("--port", "ports"),
    ("--nat-ports", "nat-ports"),
    ("--max-flows", "max-flows"),
    ("--max-client-flows", "max-client-flows"),
    ("--secret", "secret"),
    ("--virtual-mac", "virtual-mac"),
    ("--allow-remote", "allow-remote = true"),
)
"""Options that the rules of a request speak of, and the keys that are called so."""
_SERVICE: Final = re.compile(r"service\[([0-9]+)\]")


def below(key: str, name: str) -> str:
    """The key of ``name`` in the table that ``key`` leads to; one that is not bare is quoted."""
    bare = name if _BARE.fullmatch(name) else json.dumps(name)
    return f"{key}.{bare}" if key else bare


def item(key: str, number: int) -> str:
    """The key of one item of a list, counted from 0."""
    return f"{key}[{number}]"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        key: Where it stands, like ``service[1].backend[0].port``; empty for the whole file.
    """

    key: str
    reason: str
    hint: str

    def error(self, path: Path, names: Mapping[int, str]) -> InvalidValueError:
        """As it is raised.

        Args:
            path: The file.
            names: Those of its services, by their number.
        """
        service = _SERVICE.match(self.key)
        name = names.get(int(service[1])) if service else None
        where = f"{self.key} ({name})" if name else self.key
        return InvalidValueError(
            ": ".join(filter(None, (f"{path}", where, self.reason))), self.hint
        )


@dataclass(slots=True)
class Problems:
    """All that is wrong so far, each thing once."""

    found: list[Problem] = field(default_factory=list)

    def add(self, key: str, reason: str, hint: str) -> None:
        """Note a problem."""
        problem = Problem(key, reason, hint)
        if problem not in self.found:
            self.found.append(problem)

    def add_error(self, key: str, error: InvalidValueError, hint: str = "") -> None:
        """Note what a value, a service or the request refuses, in the words of the file.

        Args:
            key: Where it stands.
            error: The rules speak of options: those are called as the keys are.
            hint: What to do if the error does not say.
        """
        self.add(key, _as_keys(f"{error}"), _as_keys(error.hint) or hint)

    def clean(self, key: str) -> bool:
        """Whether nothing is wrong with ``key`` and what is below it."""
        return not any(
            problem.key == key or problem.key.startswith((f"{key}.", f"{key}["))
            for problem in self.found
        )


def _as_keys(text: str) -> str:
    for option, key in _KEYS:
        text = re.sub(rf"{option}\b(?!-)", key, text)
    return text
