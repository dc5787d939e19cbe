"""The expressions that xdplb ships for Prometheus and Grafana, and what they name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import xdplb

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARE: Final = Path(xdplb.__file__).parent / "share"
RULES: Final = SHARE / "prometheus" / "xdplb.rules.yml"
DASHBOARD: Final = SHARE / "grafana" / "xdplb.json"
_GIVEN: Final = {"$__rate_interval": "1m", "$": ".*"}
"""What Grafana puts in the place of variables."""
_SELECTOR: Final = re.compile(r"\b((?:xdplb|process)_\w+|up)\b(?:\{([^}]*)\})?")
_NAMED: Final = re.compile(r"\b(?:by|on|ignoring|group_left) \(([^)]*)\)")


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Its panels, without the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def of_rules() -> list[str]:
    """The expressions of the rules, each of which stands on a line of its own."""
    return re.findall(r"^ +expr: (.+)$", RULES.read_text(), re.MULTILINE)


def of_dashboard() -> list[str]:
    """The expressions of the dashboard, as Grafana asks Prometheus."""
    written = [target["expr"] for panel in panels() for target in panel["targets"]]
    written += [item["expr"] for item in dashboard()["annotations"]["list"]]
    return [_given(text) for text in written]


def _given(text: str) -> str:
    text = text.replace("$__rate_interval", _GIVEN["$__rate_interval"])
    return re.sub(r"\$\w+", _GIVEN["$"], text)


def metrics_in(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Every metric in an expression, with the labels that it is chosen by."""
    bare = _NAMED.sub("", expression)
    for name, matchers in _SELECTOR.findall(bare):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))


def labels_in(expression: str) -> set[str]:
    """The labels that an expression groups and joins by."""
    return {
        label.strip()
        for group in _NAMED.findall(expression)
        for label in group.split(",")
        if label.strip()
    }
