"""Backends that come and go while the balancer runs, with flows watched."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from lab import SERVICE, SERVICE6, Lab, exchange, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket

FIRST, SECOND, THIRD = "172.11.0.20", "172.11.0.21", "172.11.0.24"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab(hosts=(20, 21, 24, *range(100, 160))) as built:
        yield built


def listed(lab: Lab) -> dict[str, dict[str, Any]]:
    """``backend list --json`` by address and port."""
    done = json.loads(lab.xdplb("backend", "list", "--json").stdout)
    return {
        item["address"] + (f":{item['port']}" if item["port"] else ""): item
        for item in done["backends"]
    }


def ask(client: socket, servers: dict[str, socket], lab: Lab) -> tuple[str, tuple[str, int]]:
    """One question and its answer; who was asked, and what port they saw."""
    client.sendto(b"?", (SERVICE, 53))
    server = lab.first_ready(*servers.values())
    _, peer = server.recvfrom(100)
    server.sendto(b"!", peer)
    assert client.recvfrom(100) == (b"!", (SERVICE, 53))
    return next(name for name, sock in servers.items() if sock is server), peer


@pytest.fixture
def servers(lab: Lab) -> dict[str, socket]:
    return {address: lab.socket(address, 53) for address in (FIRST, SECOND, THIRD)}


@pytest.fixture
def clients(lab: Lab) -> list[socket]:
    return [lab.socket(f"172.11.0.{number}") for number in range(100, 130)]


def newcomers(lab: Lab, servers: dict[str, socket]) -> set[str]:
    """Whom 30 new clients are sent to."""
    return {ask(lab.socket(f"172.11.0.{n}"), servers, lab)[0] for n in range(130, 160)}


def test_a_draining_backend_keeps_its_flows_and_gets_no_others(
    lab: Lab, servers: dict[str, socket], clients: list[socket]
) -> None:
    lab.up()
    before = [ask(client, servers, lab) for client in clients]
    assert {name for name, _ in before} == {FIRST, SECOND}
    assert lab.xdplb("backend", "drain", FIRST).stdout == f"drains: {FIRST}\n"
    assert [ask(client, servers, lab) for client in clients] == before
    assert newcomers(lab, servers) == {SECOND}
    assert listed(lab)[FIRST]["state"] == "drain"
    assert listed(lab)[FIRST]["share"] == 0
    lab.xdplb("backend", "undrain", FIRST)
    assert listed(lab)[FIRST]["state"] == "up"
    assert newcomers(lab, servers) == {FIRST, SECOND}
    assert [ask(client, servers, lab) for client in clients] == before


def test_an_added_backend_gets_its_share_of_new_flows_only(
    lab: Lab, servers: dict[str, socket], clients: list[socket]
) -> None:
    lab.up()
    before = [ask(client, servers, lab) for client in clients]
    assert lab.xdplb("backend", "add", THIRD).stdout == f"added: {THIRD}\n"
    assert listed(lab)[THIRD]["share"] == pytest.approx(1 / 3, abs=0.01)
    assert [ask(client, servers, lab) for client in clients] == before
    assert newcomers(lab, servers) == {FIRST, SECOND, THIRD}


def test_the_flows_of_a_removed_backend_find_another_at_once(
    lab: Lab, servers: dict[str, socket], clients: list[socket]
) -> None:
    lab.up(backends=(FIRST, SECOND, THIRD))
    before = [ask(client, servers, lab) for client in clients]
    lab.xdplb("backend", "remove", SECOND)
    after = [ask(client, servers, lab) for client in clients]
    for old, new in zip(before, after, strict=True):
        assert new[0] != SECOND
        assert new == old or old[0] == SECOND
    assert set(listed(lab)) == {FIRST, THIRD}
    lab.xdplb("backend", "add", SECOND)
    assert [ask(client, servers, lab) for client in clients] == after
    assert newcomers(lab, servers) == {FIRST, SECOND, THIRD}


def test_a_weight_is_a_share(lab: Lab) -> None:
    lab.up()
    lab.xdplb("backend", "weight", FIRST, "3")
    shares = {name: item["share"] for name, item in listed(lab).items()}
    assert shares == {FIRST: pytest.approx(0.75, abs=0.01), SECOND: pytest.approx(0.25, abs=0.01)}
    lab.xdplb("backend", "weight", FIRST, "0")
    assert listed(lab)[SECOND]["share"] == 1
    assert lab.xdplb("backend", "list").stdout.splitlines()[0].split()[:2] == ["service", "backend"]


def test_no_packet_is_lost_while_backends_come_and_go(
    lab: Lab, servers: dict[str, socket], clients: list[socket]
) -> None:
    lab.up()
    before = [ask(client, servers, lab) for client in clients]
    done = threading.Event()

    def change() -> None:
        for words in (
            ("add", THIRD),
            ("drain", FIRST),
            ("weight", SECOND, "5"),
            ("undrain", FIRST),
            ("remove", THIRD),
        ):
            lab.xdplb("backend", *words)
        done.set()

    worker = threading.Thread(target=change)
    worker.start()
    rounds = 0
    while not done.is_set() or rounds < 3:
        assert [ask(client, servers, lab) for client in clients] == before
        rounds += 1
    worker.join()
    drops = {name for name, n in lab.status()["verdicts"].items() if n and name.startswith("drop")}
    assert not drops


def test_draining_is_over_when_the_last_flow_has_gone(lab: Lab, servers: dict[str, socket]) -> None:
    lab.up("--timeout", "2", backends=(FIRST,))
    ask(lab.socket("172.11.0.100"), servers, lab)
    lab.xdplb("backend", "add", SECOND)
    done = lab.xdplb("backend", "drain", FIRST, "--wait")
    assert done.stdout.endswith(f"drained: {FIRST}\n")
    assert listed(lab)[FIRST]["flows"] == 0


def test_a_backend_of_each_ip_version_can_be_added(lab: Lab) -> None:
    six = "2001:db8::20", "2001:db8::21"
    lab.up("--service", SERVICE, "--service", SERVICE6, backends=(FIRST, six[0]))
    lab.xdplb("backend", "add", f"[{six[1]}]:5353")
    lab.xdplb("backend", "remove", six[0])
    exchange(lab.socket("2001:db8::100"), lab.socket(six[1], 5353), b"six", 53)
    assert set(listed(lab)) == {FIRST, f"{six[1]}:5353"}


def test_a_backend_for_udp_and_tcp_is_changed_for_both(lab: Lab) -> None:
    lab.up("--protocol", "udp", "--protocol", "tcp", "--port", "53")
    lab.xdplb("backend", "drain", FIRST)
    states = {
        (item["protocol"], backend["address"]): backend["state"]
        for item in lab.status()["services"]
        for backend in item["backends"]
    }
    assert states["udp", FIRST] == states["tcp", FIRST] == "drain"
    assert states["udp", SECOND] == states["tcp", SECOND] == "up"


def test_an_added_backend_that_comes_late_is_found(lab: Lab) -> None:
    lab.up()
    assert "nobody has answered" in lab.xdplb("backend", "add", "172.11.0.77").stdout
    assert "managed" in lab.ip("b", "neighbour show dev balancer nud all")
    lab.add_host(77)
    wait_for(lambda: listed(lab)["172.11.0.77"]["mac"], timeout=40)
    lab.xdplb("down")
    assert "managed" not in lab.ip("b", "neighbour show dev balancer nud all")


def test_many_backends_can_be_added_one_by_one(lab: Lab) -> None:
    lab.up()
    added = [f"172.11.0.{number}" for number in range(160, 200)]
    for address in added:
        lab.xdplb("backend", "add", address)
    assert {FIRST, SECOND, *added} == set(listed(lab))


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        (2, "is there already", ("add", FIRST)),
        (2, "there is no backend", ("remove", THIRD)),
        (2, "there is no backend", ("drain", f"{FIRST}:53")),
        (2, "the service itself", ("add", SERVICE)),
        (2, "no IPv6 service", ("add", "2001:db8::20")),
        (3, "no route to", ("add", "10.1.2.3")),
        (3, "no balancer on lo", ("drain", FIRST, "--iface", "lo")),
        (2, "not in the range", ("weight", FIRST, "65536")),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    lab: Lab, code: int, reason: str, words: tuple[str, ...]
) -> None:
    lab.up()
    before = listed(lab)
    done = lab.xdplb("backend", *words, check=False)
    assert (done.returncode, reason in done.stderr) == (code, True), done.stderr
    assert listed(lab) == before


def test_the_last_backend_cannot_be_removed(lab: Lab) -> None:
    lab.up(backends=(FIRST,))
    done = lab.xdplb("backend", "remove", FIRST, check=False)
    assert (done.returncode, "the only one" in done.stderr) == (2, True)


def test_without_a_balancer_there_is_nothing_to_change(lab: Lab) -> None:
    done = lab.xdplb("backend", "drain", FIRST, check=False)
    assert (done.returncode, "no balancer is up" in done.stderr) == (3, True)
    assert "no balancer" in lab.xdplb("backend", "list").stdout
