"""Metrics, rules and dashboard, as Prometheus and its own tool see them."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from fetch import asked, fetch, is_served
from lab import SERVICE, XDPLB, Lab, exchange, wait_for
from promql import RULES, metrics_in, of_dashboard, of_rules
from recipes import PAGE
from unpacked import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AGENT, PROMETHEUS = 9170, 9090
EVERY_S = 0.2
FILE = f"""
[balancer]
interfaces = ["balancer"]
[agent]
listen = "127.0.0.1:{AGENT}"
[[service]]
name = "dns"
address = "{SERVICE}"
ports = 53
backend = [{{ address = "172.11.0.20" }}, {{ address = "172.11.0.99" }}]
health = {{ check = "icmp", interval = 0.2, timeout = 0.1, fall = 1 }}
"""
CONFIG: dict[str, Any] = {
    "global": {"scrape_interval": f"{EVERY_S * 1000:.0f}ms", "scrape_timeout": "100ms",
               "evaluation_interval": f"{EVERY_S * 1000:.0f}ms"},
    "rule_files": [f"{RULES}"],
    "scrape_configs": [
        {"job_name": "xdplb", "static_configs": [{"targets": [f"127.0.0.1:{AGENT}"]}]},
    ],
}  # fmt: skip
NEW = "unless sum by"
"""What has begun within the last minute: all of it, or nothing any more."""


@pytest.fixture(scope="module")
def prometheus() -> Path:
    return unpacked("prometheus", "prometheus") / "usr" / "bin"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


def promtool(prometheus: Path, *words: str, text: str | None = None) -> str:
    """Prometheus' own tool has nothing to complain about; what it says."""
    done = subprocess.run(
        [prometheus / "promtool", *words], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_promtool_has_nothing_to_say_about_the_metrics(lab: Lab, prometheus: Path) -> None:
    lab.up("--port", "53", backends=("172.11.0.20",))
    exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 53), b"?", 53)
    printed = lab.xdplb("metrics").stdout
    assert 'xdplb_sent_total{interfaces="balancer",verdict="return"} 1.0' in printed
    assert promtool(prometheus, "check", "metrics", text=printed) == ""


def test_promtool_finds_no_fault_in_the_rules(prometheus: Path) -> None:
    assert f"SUCCESS: {len(of_rules())} rules found" in promtool(
        prometheus, "check", "rules", f"{RULES}"
    )


def test_promtool_understands_every_expression_of_the_dashboard(
    prometheus: Path, tmp_path: Path
) -> None:
    expressions = of_dashboard()
    rules = [{"record": f"test:{n}", "expr": text} for n, text in enumerate(expressions)]
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    found = promtool(prometheus, "check", "rules", f"{file}")
    assert f"SUCCESS: {len(expressions)} rules found" in found


BACKEND = '{interfaces="a",service="b",address="c",protocol="d",ports="e",backend="f"}'
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'
ALERTS = {
    "XdplbBackendDown": ([('xdplb_backend_state{state="down"}', "0 1x20")], 1),
    "XdplbNoBackendUp": ([(f"xdplb_backend_up{BACKEND}", "1 0x20")], 0.5),
    "XdplbBackendUnresolved": ([(f"xdplb_backend_resolved{BACKEND}", "1 0x20")], 1),
    "XdplbNatPortsNearlyUsed": (
        [("xdplb_nat_ports_used", "1 90x40"), ("xdplb_nat_ports_capacity", "100x41")], 5),
    "XdplbFlowsNearlyFull": ([("xdplb_flows", "1 90x40"), ("xdplb_flows_capacity", "100x41")], 5),
    "XdplbDrops": ([('xdplb_drops_total{reason="no_port"}', "0+40000x60")], 5),
    "XdplbBackendKeptUnwell": (
        [(f"xdplb_backend_healthy{BACKEND}", "1 0x40"), (f"xdplb_backend_up{BACKEND}", "1x41")], 2),
    "XdplbBalancerGone": ([("xdplb_balancer_up", "1 0x20")], 0.5),
    "XdplbInterfaceWithoutProgram": ([("xdplb_interface_up", "1 0x20")], 0.5),
    "XdplbProgramReplaced": (
        [('xdplb_build_info{program_tag="a"}', "1 1 stale"),
         ('xdplb_build_info{program_tag="b"}', "_ _ 1x20")], 0.25),
    "XdplbReloadFailed": ([("xdplb_config_last_reload_success", "1 0x20")], 1),
    "XdplbStatusUnreadable": ([("xdplb_status_success", "1 0x20")], 1),
    "XdplbAgentGone": ([('up{job="xdplb"}', "1 0x20")], 1),
}  # fmt: skip
"""For each alert what has to be seen, every 15 seconds, and after how many minutes it fires."""


def test_each_alert_fires_when_it_should_and_not_before(prometheus: Path, tmp_path: Path) -> None:
    assert set(ALERTS) == {
        line.split()[-1] for line in RULES.read_text().splitlines() if "- alert:" in line
    }
    step_s = 15

    def test_of(name: str, seen: list[tuple[str, str]], minutes: float) -> dict[str, Any]:
        fires_s = int(60 * minutes) + step_s
        expected = [{"labels": f'{{alertname="{name}"}}', "value": 1}]
        return {
            "interval": f"{step_s}s",
            "input_series": [{"series": series, "values": values} for series, values in seen],
            "promql_expr_test": [
                {"expr": FIRING, "eval_time": f"{fires_s - step_s}s", "exp_samples": []},
                {"expr": FIRING, "eval_time": f"{fires_s + step_s}s", "exp_samples": expected},
            ],
        }

    tests = [test_of(name, *case) for name, case in ALERTS.items()]
    file = tmp_path / "tests.yml"
    file.write_text(
        json.dumps(
            {"rule_files": [f"{RULES}"], "evaluation_interval": f"{step_s}s", "tests": tests}
        )
    )
    assert "SUCCESS" in promtool(prometheus, "test", "rules", f"{file}")


def test_prometheus_scrapes_the_agent_and_knows_all_that_rules_and_dashboard_ask_for(
    lab: Lab, prometheus: Path, tmp_path: Path
) -> None:
    file = tmp_path / "xdplb.toml"
    file.write_text(FILE)
    file.chmod(0o600)
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps(CONFIG))
    lab.process("b", f"{XDPLB}", "run", "--config", f"{file}")
    lab.process(
        "b",
        f"{prometheus / 'prometheus'}",
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
    )
    wait_for(lambda: is_served(lab, PROMETHEUS, "/-/ready"))
    wait_for(lambda: is_served(lab, AGENT, "/healthz"))

    def value(expression: str) -> list[float]:
        found = asked(lab, PROMETHEUS, "/api/v1/query", query=expression)["result"]
        return [float(item["value"][1]) for item in found]

    wait_for(lambda: value('xdplb_backend_state{backend="172.11.0.99",state="down"}') == [1])
    assert promtool(prometheus, "check", "metrics", text=fetch(lab, AGENT, "/metrics")[1]) == ""
    exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 53), b"?", 53)
    wait_for(lambda: value('xdplb_sent_total{verdict="return"}') == [1])
    wait_for(lambda: value("count_over_time(xdplb_status_success[1m]) >= 3"))
    assert value('up{job="xdplb"}') == [1]
    names = set(asked(lab, PROMETHEUS, "/api/v1/label/__name__/values"))
    wanted = {name for text in (*of_rules(), *of_dashboard()) for name, _ in metrics_in(text)}
    assert wanted <= names
    for expression in of_dashboard():
        assert value(expression) or NEW in expression, expression
    (group, services) = reversed(asked(lab, PROMETHEUS, "/api/v1/rules")["groups"])
    rules = [*group["rules"], *services["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    down = [rule["name"] for rule in rules if rule.get("state") == "pending"]
    assert "XdplbBackendDown" in down


def test_promtool_understands_the_queries_of_the_page(prometheus: Path, tmp_path: Path) -> None:
    queries = re.findall(r"^\| [^|`]+ \| `(.*xdplb_.*)` \|$", PAGE.read_text(), re.MULTILINE)
    assert len(queries) == 4
    rules = [{"record": f"query:{place}", "expr": query} for place, query in enumerate(queries)]
    file = tmp_path / "rules.yml"  # JSON is YAML
    file.write_text(json.dumps({"groups": [{"name": "page", "rules": rules}]}))
    assert "SUCCESS: 4 rules found" in promtool(prometheus, "check", "rules", f"{file}")
