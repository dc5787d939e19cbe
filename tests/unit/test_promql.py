"""Rules and dashboard name no metric and no label that nobody emits."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import combinations
from typing import Any

import pytest
from full_status import STATUS
from prometheus_client import ProcessCollector
from prometheus_client.parser import text_string_to_metric_families
from promql import RULES, dashboard, labels_in, metrics_in, of_dashboard, of_rules, panels
from served import report

from xdplb.metrics import Status, text_of
from xdplb.serving.figures import Figures

OF_TARGET = {"job", "instance"}
"""The labels that Prometheus itself gives."""


def emitted() -> dict[str, set[str]]:
    """The labels of every metric of an agent, and of Prometheus' own."""
    figures = Figures(report(), readable=True)
    text = text_of(figures, Status([STATUS]), ProcessCollector(registry=None))
    found: defaultdict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= sample.labels.keys()
    return {**found, "up": set()}


EMITTED = emitted()
EXPRESSIONS = [*of_rules(), *of_dashboard()]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_what_there_is(expression: str) -> None:
    named = list(metrics_in(expression))
    assert named
    known = set(OF_TARGET)
    for name, labels in named:
        assert name in EMITTED, name
        assert labels <= EMITTED[name] | OF_TARGET, name
        known |= EMITTED[name]
    assert labels_in(expression) <= known


def test_every_metric_of_the_balancer_is_on_the_dashboard_or_in_a_rule() -> None:
    named = {name for expression in EXPRESSIONS for name, _ in metrics_in(expression)}
    ours = {name for name in EMITTED if name.startswith("xdplb_")}
    parts = {f"xdplb_health_check_seconds_{part}" for part in ("count", "sum")}
    assert ours - named == {*parts, "xdplb_backend_weight"}


def test_what_is_said_of_an_alert_has_the_labels_of_its_metrics() -> None:
    for part in RULES.read_text().split("- alert: ")[1:]:
        (expression,) = re.findall(r"^ +expr: (.+)$", part, re.MULTILINE)
        known = OF_TARGET.union(*(EMITTED[name] for name, _ in metrics_in(expression)))
        assert set(re.findall(r"\$labels\.(\w+)", part)) <= known
        if grouped := labels_in(expression):
            assert set(re.findall(r"\$labels\.(\w+)", part)) <= grouped


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_asks_the_source_that_was_chosen_and_names_what_it_groups_by(
    panel: dict[str, Any],
) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"] == source
        grouped = labels_in(target["expr"])
        named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert named <= (grouped or OF_TARGET)


def test_variables_ask_for_labels_that_there_are() -> None:
    templates = dashboard()["templating"]["list"]
    assert templates[0]["name"] == "datasource"
    for template in templates[1:]:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", template["query"]["query"])
        assert asked is not None
        ((name, labels),) = metrics_in(asked[1])
        assert labels | {asked[2]} <= EMITTED[name] | OF_TARGET
    known = {template["name"] for template in templates} | {"__rate_interval"}
    text = "".join(target["expr"] for panel in panels() for target in panel["targets"])
    assert set(re.findall(r"\$(\w+)", text)) <= known


def test_panels_lie_in_rows_of_their_own_place() -> None:
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    titles = [panel["title"] for panel in every if panel["type"] == "row"]
    assert titles == ["Traffic", "Backends", "Drops by reason", "Pool and maps", "Control plane"]
    places = [panel["gridPos"] for panel in every]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
