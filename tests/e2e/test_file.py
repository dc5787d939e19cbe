"""The balancer in a file: many services with real sockets, and every way to change it."""

from __future__ import annotations

import json
from socket import SOCK_STREAM
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, SERVICE6, Lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from socket import socket

SECOND = "172.11.0.2"
NAT = "172.11.0.9"

HEAD = '[balancer]\ninterfaces = ["balancer"]\n'
DNS = f"""
[[service]]
name = "dns"
address = ["{SERVICE}", "{SERVICE6}"]
protocol = ["udp", "tcp"]
ports = [53]
backend = [
    {{ address = "172.11.0.20", port = 5353 }},
    {{ address = "2001:db8::20", port = 5353 }},
]
"""
LOG = f"""
[[service]]
name = "log"
address = "{SECOND}"
ports = ["514-515"]
hash = "src"
nat-addresses = ["{NAT}"]
timeouts = {{ unreplied = 60 }}
backend = [{{ address = "172.11.0.20" }}, {{ address = "172.11.0.21" }}]
"""
GAME = f"""
[[service]]
name = "game"
address = "{SERVICE}"
ports = [7777]
backend = [{{ address = "172.11.0.21", port = 53 }}]
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        for address in (SECOND, NAT):
            built.ip("b", f"address add {address}/24 dev balancer")
        yield built


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "xdplb.toml"
    path.write_text(HEAD + DNS + LOG)
    path.chmod(0o600)
    return path


def ask(client: socket, address: str, port: int, server: socket) -> tuple[str, int]:
    """One question and its answer; whom the server saw."""
    client.sendto(b"?", (address, port))
    question, peer = server.recvfrom(100)
    server.sendto(b"!", peer)
    answer, source = client.recvfrom(100)
    assert (question, answer, source[:2]) == (b"?", b"!", (address, port))
    return str(peer[0]), int(peer[1])


def test_services_of_a_file_are_served_each_in_its_way(lab: Lab, file: Path) -> None:
    said = lab.xdplb("up", "--config", f"{file}").stdout
    assert f"up: {SERVICE} udp and tcp on balancer" in said
    client, client6 = lab.socket("172.11.0.22"), lab.socket("2001:db8::22")
    dns, dns6 = lab.socket("172.11.0.20", 5353), lab.socket("2001:db8::20", 5353)
    assert ask(client, SERVICE, 53, dns)[0] == SERVICE
    assert ask(client6, SERVICE6, 53, dns6)[0] == SERVICE6
    logs = [lab.socket(f"172.11.0.{number}", 514) for number in (20, 21)]
    client.sendto(b"<13>hello", (SECOND, 514))
    message, peer = lab.first_ready(*logs).recvfrom(100)
    assert (message, peer[0]) == (b"<13>hello", NAT)

    listener = lab.socket("172.11.0.20", 5353, kind=SOCK_STREAM)
    listener.listen()
    with lab.client("172.11.0.22") as stream:
        stream.connect((SERVICE, 53))
        accepted, peer = listener.accept()
        with accepted:
            assert peer[0] == SERVICE
            stream.sendall(b"over tcp")
            assert accepted.recv(100) == b"over tcp"
    assert lab.bad_checksums() == 0

    services = lab.status()["services"]
    assert [(item["name"], item["address"], item["protocol"]) for item in services] == [
        *((name, SERVICE, protocol) for name, protocol in (("dns", "udp"), ("dns", "tcp"))),
        ("log", SECOND, "udp"),
        *(("dns", SERVICE6, protocol) for protocol in ("udp", "tcp")),
    ]


def test_what_runs_is_exported_as_the_file_that_it_came_from(lab: Lab, file: Path) -> None:
    lab.xdplb("up", "--config", f"{file}")
    exported = file.with_name("exported.toml")
    exported.write_text(lab.xdplb("export").stdout)
    exported.chmod(0o600)
    assert lab.xdplb("apply", f"{exported}").stdout == "nothing to change\n"
    assert lab.xdplb("apply", f"{file}").stdout == "nothing to change\n"


def test_a_dry_run_says_all_and_does_nothing(lab: Lab, file: Path) -> None:
    lab.xdplb("up", "--config", f"{file}")
    client, server = lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 5353)
    ask(client, SERVICE, 53, server)
    before = lab.status()
    changed = DNS.replace('"172.11.0.20"', '"172.11.0.23"').replace("ports", 'hash = "src"\nports')
    file.write_text(HEAD + changed + GAME)
    said = lab.xdplb("apply", f"{file}", "--dry-run").stdout.splitlines()
    assert "- service log 172.11.0.2 port 514-515 udp" in said
    assert "+ service game 172.11.0.1 port 7777 udp" in said
    assert "~ service dns 172.11.0.1 port 53 udp: hash src-dst -> src" in said
    assert "- backend 172.11.0.20:5353 of dns 172.11.0.1 port 53 udp" in said
    assert "+ backend 172.11.0.23:5353 of dns 172.11.0.1 port 53 tcp" in said
    assert said[-1] == "1 live flow comes to another backend"
    told = json.loads(lab.xdplb("apply", f"{file}", "--dry-run", "--json").stdout)
    assert (told["way"], told["applied"]) == ("replace", False)
    assert told["flows"] == {"moving": 1, "ending": 0}
    after = lab.status()
    assert after["program"] == before["program"]
    assert after["services"] == before["services"]


@pytest.mark.parametrize(
    ("change", "way"),
    [
        (DNS.replace("ports = [53]", "ports = [53, 853]") + LOG + GAME, "replace"),
        (
            DNS.replace('}},\n    {{ address = "2', "") + LOG.replace('"src"', '"5-tuple"'),
            "replace",
        ),
        (DNS.replace("ports", "timeouts = { answered = 300 }\nports") + GAME, "replace"),
        (DNS, "replace"),
        (
            DNS.replace("backend = [", 'backend = [{ address = "172.11.0.21", port = 5353 },')
            + LOG.replace("hash", "one-way = true\nhash"),
            "write",
        ),
    ],
    ids=["ports and a service", "hash", "timeouts", "a service gone", "backends alone"],
)
def test_flows_stay_whatever_is_applied(lab: Lab, file: Path, change: str, way: str) -> None:
    lab.xdplb("up", "--config", f"{file}")
    client, client6 = lab.socket("172.11.0.22"), lab.socket("2001:db8::22")
    dns, dns6 = lab.socket("172.11.0.20", 5353), lab.socket("2001:db8::20", 5353)
    before = ask(client, SERVICE, 53, dns), ask(client6, SERVICE6, 53, dns6)
    program = lab.status()["program"]["id"]
    file.write_text(HEAD + change)
    told = json.loads(lab.xdplb("apply", f"{file}", "--json").stdout)
    assert (told["way"], told["flows"]["moving"]) == (way, 0)
    assert (ask(client, SERVICE, 53, dns), ask(client6, SERVICE6, 53, dns6)) == before
    assert (lab.status()["program"]["id"] == program) == (way == "write")
    assert lab.xdplb("apply", f"{file}").stdout == "nothing to change\n"


def test_the_flows_of_a_removed_service_end(lab: Lab, file: Path) -> None:
    lab.xdplb("up", "--config", f"{file}")
    client = lab.socket("172.11.0.22")
    logs = [lab.socket(f"172.11.0.{number}", 514) for number in (20, 21)]
    client.sendto(b"1", (SECOND, 514))
    server = lab.first_ready(*logs)
    _, peer = server.recvfrom(100)
    file.write_text(HEAD + DNS)
    assert json.loads(lab.xdplb("apply", f"{file}", "--json").stdout)["flows"]["ending"] == 1
    assert lab.status()["flows"]["active"] == 0
    server.sendto(b"late", peer)
    other = lab.socket("172.11.0.23")
    dns = lab.socket("172.11.0.20", 5353)
    ask(other, SERVICE, 53, dns)
    client.settimeout(0)
    with pytest.raises(BlockingIOError):
        client.recv(100)


def test_apply_starts_what_is_not_up(lab: Lab, file: Path) -> None:
    said = lab.xdplb("apply", f"{file}").stdout
    assert said.startswith("nothing is up yet")
    assert f"up: {SECOND} udp on balancer" in said
    assert lab.xdplb("down", "--config", f"{file}").stdout.startswith("down: balancer")


def test_a_backend_command_reaches_the_services_that_have_it(lab: Lab, file: Path) -> None:
    lab.xdplb("up", "--config", f"{file}")
    lab.xdplb("backend", "drain", "172.11.0.20", "--service", "log")
    states = {
        (service["name"], backend["address"]): backend["state"]
        for service in lab.status()["services"]
        for backend in service["backends"]
    }
    assert states["log", "172.11.0.20"] == "drain"
    assert states["log", "172.11.0.21"] == states["dns", "172.11.0.20"] == "up"
    exported = lab.xdplb("export").stdout
    assert 'state = "drain"' in exported
    refused = lab.xdplb("backend", "add", "172.11.0.24", check=False)
    assert refused.returncode == 2
    assert "say which one with --service" in refused.stderr


def test_what_is_wrong_with_a_file_is_said_before_anything_happens(lab: Lab, file: Path) -> None:
    file.write_text(HEAD + DNS.replace("172.11.0.20", "172.11.0.300"))
    for words in (("check",), ("apply",), ("up", "--config")):
        refused = lab.xdplb(*words, f"{file}", check=False)
        assert refused.returncode == 2
        assert f"{file}: service[0].backend[0].address (dns): '172.11.0.300'" in refused.stderr
    assert lab.xdplb("status").stdout.startswith("no balancer is up in this network namespace\n")
