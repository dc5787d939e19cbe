"""Flows listed, and the client behind a port that a backend's log names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, Lab, exchange

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        built.up("--port", "53", backends=("172.11.0.20",))
        yield built


def test_a_port_in_a_log_leads_to_its_client(lab: Lab) -> None:
    server = lab.socket("172.11.0.20", 53)
    first, second = lab.socket("172.11.0.22"), lab.socket("172.11.0.23")
    seen = {sock: exchange(sock, server, b"?", 53) for sock in (first, second)}
    for sock, (address, port) in seen.items():
        said = lab.xdplb("whois", f"{address}:{port}").stdout
        client, client_port = sock.getsockname()
        assert said.startswith(f"{client}:{client_port} stands behind {SERVICE}:{port} toward ")
        assert f"172.11.0.20:53 udp; it dialled {SERVICE}:53, " in said
    unused = next(port for port in range(2000, 2010) if port not in {p for _, p in seen.values()})
    assert "nobody stands behind" in lab.xdplb("whois", f"{SERVICE}:{unused}").stdout


def test_a_reserved_port_leads_to_its_client_like_any_other(lab: Lab) -> None:
    lab.up("--port", "53", "--client", "172.11.0.22:5555=6666", backends=("172.11.0.20",))
    asked = ("whois", f"{SERVICE}:6666")
    before = f"{SERVICE}:6666 is reserved for 172.11.0.22:5555, which has not used it yet\n"
    assert lab.xdplb(*asked).stdout == before
    assert lab.xdplb("flows").stdout == "no such flow\n"
    exchange(lab.socket("172.11.0.22", 5555), lab.socket("172.11.0.20", 53), b"?", 53)
    said = lab.xdplb(*asked).stdout
    assert said.startswith(f"172.11.0.22:5555 stands behind {SERVICE}:6666 toward 172.11.0.20:53 ")
    assert said.endswith("; the port is reserved for it\n")
    (flow,) = json.loads(lab.xdplb("flows", "--state", "reserved", "--json").stdout)["flows"]
    assert (flow["nat"]["port"], flow["service"]["port"]) == (6666, 53)
    assert lab.xdplb("flows", "kill", "--client", "172.11.0.22").stdout == "ended: 0 flows\n"


def test_flows_are_listed_and_chosen(lab: Lab) -> None:
    server = lab.socket("172.11.0.20", 53)
    for number in (22, 23, 24):
        exchange(lab.socket(f"172.11.0.{number}"), server, b"?", 53)
    everything = json.loads(lab.xdplb("flows", "--json").stdout)
    assert everything["total"] == 3
    clients = {item["client"]["address"] for item in everything["flows"]}
    assert clients == {"172.11.0.22", "172.11.0.23", "172.11.0.24"}
    assert {item["state"] for item in everything["flows"]} == {"answered"}
    one = lab.xdplb("flows", "--client", "172.11.0.23", "--service", SERVICE).stdout.splitlines()
    assert len(one) == 2
    assert one[1].split()[1:4] == [f"{SERVICE}:53", "udp", "172.11.0.20:53"]
    assert lab.xdplb("flows", "--backend", "172.11.0.21").stdout == "no such flow\n"
    limited = lab.xdplb("flows", "--limit", "1").stdout
    assert limited.endswith("and 2 more; --limit shows them\n")


def test_flows_are_ended_and_others_are_not(lab: Lab) -> None:
    server = lab.socket("172.11.0.20", 53)
    first, second = lab.socket("172.11.0.22"), lab.socket("172.11.0.23")
    before = {sock: exchange(sock, server, b"?", 53) for sock in (first, second)}
    assert lab.xdplb("flows", "kill", "--client", "172.11.0.22").stdout == "ended: 1 flow\n"
    assert json.loads(lab.xdplb("flows", "--json").stdout)["total"] == 1
    server.sendto(b"late", before[first])
    assert exchange(second, server, b"?", 53) == before[second]
    exchange(first, server, b"?", 53)
    first.settimeout(0)
    with pytest.raises(BlockingIOError):
        first.recv(100)
    assert lab.xdplb("flows", "kill", "--all").stdout == "ended: 2 flows\n"
    assert lab.xdplb("flows", "kill", "--state", "answered").stdout == "ended: 0 flows\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("flows", "kill"), "which flows are meant is not clear"),
        (("flows", "kill", "--all", "--state", "answered"), "is not clear"),
        (("flows", "--client", "172.11.0.0/99"), "is no network"),
        (("flows", "--service", "mail"), "there is no service mail"),
        (("whois", SERVICE), "has no port"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    lab: Lab, words: tuple[str, ...], message: str
) -> None:
    refused = lab.xdplb(*words, check=False)
    assert refused.returncode == 2
    assert message in refused.stderr
