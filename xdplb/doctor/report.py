"""Findings as text for people, and as JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from xdplb.doctor.findings import ANYWHERE, BACKEND, HERE, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xdplb.doctor.findings import Done, Finding, Fix

JSON_VERSION: Final = 1
_MANY_BACKENDS: Final = 8
_WORDS: Final = {Result.PASS: "ok", Result.WARN: "warn", Result.FAIL: "FAIL"}


def command(text: str, place: str, netns: str) -> str:
    """What a person types, from where ``xdplb`` was started.

    Args:
        text: The command as it is typed in its network namespace.
        place: That namespace.
        netns: The one that is looked at, as ``--netns`` has it; empty for where it was started.
    """
    if not text or place == ANYWHERE:
        return text
    if place == HERE and netns and text.startswith("xdplb "):
        return f"xdplb --netns {netns} {text.removeprefix('xdplb ')}"
    path = place or (netns if "/" in netns or not netns else f"/run/netns/{netns}")
    return f"nsenter --net={path} {text}" if path else text


def to_json(findings: Sequence[Finding], done: Sequence[Done], netns: str) -> str:
    """The findings as one JSON object. Keys may be added to it, but never renamed."""
    return json.dumps(
        {
            "version": JSON_VERSION,
            "checks": [_check(item, netns) for item in findings],
            "fixed": [
                {
                    "name": item.finding.name,
                    "scope": item.finding.scope,
                    "fix": _fix(item.finding.opinion.fix, netns),
                    "problem": item.problem or None,
                }
                for item in done
            ],
        },
        indent=2,
    )


def _check(item: Finding, netns: str) -> dict[str, Any]:
    opinion = item.opinion
    return {
        "name": item.name,
        "scope": item.scope,
        "result": opinion.result,
        "reason": opinion.reason,
        "hint": opinion.hint or None,
        "fix": _fix(opinion.fix, netns),
    }


def _fix(fix: Fix | None, netns: str) -> dict[str, Any] | None:
    if fix is None:
        return None
    return {
        "command": command(fix.command, fix.place, netns),
        "undo": command(fix.undo, fix.place, netns) or None,
        "safe": fix.is_safe,
    }


def to_text(
    findings: Sequence[Finding],
    done: Sequence[Done],
    netns: str,
    paint: Callable[[str, Result], str],
) -> str:
    """One line for each check, and below it what to do about it.

    Args:
        findings: What was found.
        done: What was mended before.
        netns: As for ``command``.
        paint: Gives a word the colour of a result.
    """
    lines = [line for item in done for line in _done(item, netns)]
    width = max((len(item.name) for item in findings), default=0)
    shown, left_out = _shown(findings)
    scope = ""
    for item in shown:
        if item.scope != scope:
            scope = item.scope
            lines.append(scope)
        word = _WORDS[item.result]
        first, *more = item.opinion.reason.splitlines()
        lines.append(
            f"  {paint(word, item.result)}{' ' * (4 - len(word))}  {item.name:{width}}  {first}"
        )
        lines += [f"{' ' * (width + 10)}{line}" for line in (*more, *_advice(item, netns))]
    if left_out:
        lines.append(f"{left_out} more backends: nothing is wrong with them")
    counted = Counter(item.result for item in findings)
    lines.append(
        f"{len(findings)} checks: {counted[Result.FAIL]} failed, {counted[Result.WARN]} warned"
    )
    return "\n".join(lines)


def _shown(findings: Sequence[Finding]) -> tuple[Sequence[Finding], int]:
    """The findings to print, and how many backends are left out: among many, those that are well.

    Backends come last.
    """
    by_scope: dict[str, list[Finding]] = {}
    for item in findings:
        if item.scope.startswith(BACKEND):
            by_scope.setdefault(item.scope, []).append(item)
    if len(by_scope) <= _MANY_BACKENDS:
        return findings, 0
    well = {
        scope
        for scope, mine in by_scope.items()
        if all(item.result is Result.PASS for item in mine)
    }
    return [item for item in findings if item.scope not in well], len(well)


def _done(item: Done, netns: str) -> Iterator[str]:
    fix = item.finding.opinion.fix
    if fix is None:
        return
    words = command(fix.command, fix.place, netns)
    if item.problem:
        yield f"not fixed: {words}: {item.problem}"
        return
    yield f"fixed: {words}"
    yield f"  undo: {command(fix.undo, fix.place, netns)}"


def _advice(item: Finding, netns: str) -> Iterator[str]:
    fix = item.opinion.fix
    if fix is not None:
        by = "  (--fix does it)" if fix.is_safe else ""
        yield f"run:  {command(fix.command, fix.place, netns)}{by}"
    if item.opinion.hint:
        yield f"hint: {item.opinion.hint}"
