"""The versions of BCC that xdplb is tested with."""

from __future__ import annotations

import re
from typing import Final

FIRST: Final = (0, 26)
"""Debian 12, which ``make test`` is for."""

LAST: Final = (0, 37)
"""Debian sid, end of 2026: ``make test-bcc SUITE=sid``. Between them is 0.31, of Debian 13."""

RANGE: Final = "xdplb is tested with {}.{} to {}.{}".format(*FIRST, *LAST)
_VERSION: Final = re.compile(r"(\d+)\.(\d+)")


def doubt(version: str) -> str:
    """What is to be said against a version of BCC; empty for one between the first and the last.

    Others are not refused: the trial of ``doctor`` shows whether they work.
    """
    found = _VERSION.match(version)
    if not found:
        return f"BCC does not say which version it is: {RANGE}"
    if (int(found[1]), int(found[2])) < FIRST:
        return f"BCC {version} is old: {RANGE}"
    if (int(found[1]), int(found[2])) > LAST:
        return f"BCC {version} is new: {RANGE}"
    return ""


def next_step(version: str, usual: str) -> str:
    """What to do where a program that this BCC made, or could not make, is refused.

    Args:
        version: What BCC says its version is.
        usual: What to do if nothing is to be said against that.
    """
    reason = doubt(version)
    return f"{reason}; one of those may do" if reason else usual
