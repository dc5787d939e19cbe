"""What is found, in words: the result, the reason, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HERE: Final = ""
"""The network namespace that is looked at, as the place of a command."""

ANYWHERE: Final = "*"
"""The place of a command that is about the whole machine."""


BACKEND: Final = "backend "
"""What the scope of a backend begins with."""


class Result(StrEnum):
    """WARN works, or cannot be looked at; with FAIL packets are lost, or ``up`` will not work."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Repair:
    """What ``--fix`` does, none of which can hurt traffic.

    Attributes:
        what: ``gro`` (switch it on), ``segmentation`` (switch it off), ``manage`` and ``forget``
            (a next hop), or ``jit`` (switch it on).
        netns: Inode of the network namespace; 0 for the one that is looked at.
        ifindex: The interface there.
        address: The next hop.
        features: The kernel's names of the offloads.
    """

    what: str
    netns: int = 0
    ifindex: int = 0
    address: str = ""
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fix:
    """How a finding is mended.

    Attributes:
        command: What a person types; and ``undo``, what takes it back, if anything has to.
        repair: The same for ``--fix``; None where a person must decide.
        place: A path of the network namespace to type it in, HERE, or ANYWHERE.
    """

    command: str
    undo: str = ""
    repair: Repair | None = None
    place: str = HERE

    @property
    def is_safe(self) -> bool:
        """Whether ``--fix`` does it."""
        return self.repair is not None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a judgement comes to.

    Attributes:
        hint: What to do where no command does it, without a full stop.
    """

    result: Result
    reason: str
    fix: Fix | None = None
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """The opinion of a check.

    Attributes:
        name: What was looked at, one word.
        scope: Where: ``machine``, ``interface NAME``, ``balancer NAMES`` or ``backend ADDR``.
    """

    name: str
    scope: str
    opinion: Opinion

    @property
    def result(self) -> Result:
        """How it is."""
        return self.opinion.result


@dataclass(frozen=True, slots=True)
class Done:
    """What ``--fix`` did for a finding, or could not do: then ``problem`` says why."""

    finding: Finding
    problem: str = ""


def good(reason: str) -> Opinion:
    """All is well."""
    return Opinion(Result.PASS, reason)


def poor(reason: str, fix: Fix | None = None, hint: str = "") -> Opinion:
    """It works, but not as well as it could."""
    return Opinion(Result.WARN, reason, fix, hint)


def bad(reason: str, fix: Fix | None = None, hint: str = "") -> Opinion:
    """It does not work."""
    return Opinion(Result.FAIL, reason, fix, hint)


def has_failed(findings: Iterable[Finding]) -> bool:
    """Whether the machine is not ready."""
    return any(item.result is Result.FAIL for item in findings)


def ethtool(name: str, features: Sequence[str], value: str) -> str:
    """What a person types to switch offloads."""
    return " ".join(("ethtool", "-K", name, *(f"{item} {value}" for item in features)))
