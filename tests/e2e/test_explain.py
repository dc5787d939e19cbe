"""``explain`` against what then really happens, and that it leaves no trace."""

from __future__ import annotations

import json
from socket import SOCK_STREAM
from typing import TYPE_CHECKING, Any

import pytest
from lab import SERVICE, SERVICE6, Lab, exchange, run, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


def explained(lab: Lab, *words: str) -> dict[str, Any]:
    answer = json.loads(lab.xdplb("explain", *words, "--json").stdout)
    assert isinstance(answer, dict)
    return answer


def maps(lab: Lab) -> dict[str, str]:
    """What the balancer's maps hold, as bpftool prints them."""
    program = json.loads(run("bpftool", "-j", "prog", "show", "id", program_id(lab)).stdout)
    return {
        f"{number}": run("bpftool", "map", "dump", "id", f"{number}").stdout
        for number in program["map_ids"]
    }


def program_id(lab: Lab) -> str:
    return f"{lab.status()['program']['id']}"


def end_of(answer: dict[str, Any]) -> tuple[str, int]:
    leaves = answer["leaves"]
    return leaves["source"], leaves["source_port"]


def test_what_is_foretold_happens_and_the_asking_leaves_no_trace(lab: Lab) -> None:
    lab.up("--port", "53", "--max-flows", "2000", "--nat-ports", "2000-2999")
    servers = {f"172.11.0.{number}": lab.socket(f"172.11.0.{number}", 53) for number in (20, 21)}
    client = lab.socket("172.11.0.22")
    name = f"172.11.0.22:{client.getsockname()[1]}"
    for _ in range(5):  # the hosts' kernel sends something by itself now and then
        before = maps(lab)
        answer = explained(lab, name)
        if (after := maps(lab)) == before:
            break
    assert after == before
    assert (answer["verdict"], answer["flow"], answer["same_program"]) == ("forward", None, True)
    backend = answer["chosen"]["address"]
    assert answer["backend"]["address"] == backend
    assert exchange(client, servers[backend], b"?", 53) == end_of(answer)
    lab.xdplb("backend", "drain", backend)
    later = explained(lab, name)
    assert later["chosen"]["address"] != backend
    assert (later["flow"]["backend"], later["flow"]["kept"]) == (backend, True)
    assert end_of(later) == end_of(answer)
    assert "whatever the table has" in lab.xdplb("explain", name).stdout


def test_why_nothing_would_arrive_is_told(lab: Lab) -> None:
    lab.up("--port", "53", backends=("172.11.0.99",))
    said = lab.xdplb("explain", "172.11.0.22:1000").stdout
    assert "which is up, and nobody answers for 172.11.0.99" in said
    assert "verdict  drop_unresolved" in said
    lab.xdplb("backend", "drain", "172.11.0.99")
    assert explained(lab, "172.11.0.22:1000")["verdict"] == "drop_no_backend"
    assert explained(lab, "127.0.0.1:1000")["verdict"] == "drop_martian"
    assert explained(lab, "172.11.0.22:1000", f"{SERVICE}:54")["verdict"] == "pass_not_ours"


def test_a_socket_of_the_host_is_seen(lab: Lab) -> None:
    lab.up()
    lab.socket(SERVICE, 5353, where="b")
    assert explained(lab, "172.11.0.22:1000", f"{SERVICE}:5353")["verdict"] == "pass_socket"
    assert explained(lab, "172.11.0.22:1000", f"{SERVICE}:5354")["verdict"] == "forward"


def test_a_connection_is_gone_on_with_in_either_ip_version(lab: Lab) -> None:
    lab.xdplb(
        *("up", "--iface", "balancer", "--protocol", "tcp", "--port", "80"),
        *("--service", SERVICE, "--backend", "172.11.0.20"),
        *("--service", SERVICE6, "--backend", "2001:db8::20"),
    )
    for service, server, client in (
        (SERVICE, "172.11.0.20", "172.11.0.22"),
        (SERVICE6, "2001:db8::20", "2001:db8::22"),
    ):
        listening = lab.socket(server, 80, kind=SOCK_STREAM)
        listening.listen()
        wait_for(lambda: all(item["mac"] for item in lab.status()["services"][0]["backends"]))
        with lab.client(client) as sock:
            address, port = sock.getsockname()[:2]
            name = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            assert explained(lab, name)["verdict"] == "forward"
            sock.connect((service, 80))
            accepted, peer = listening.accept()
            lab.keep(accepted)
            answer = explained(lab, name)
            assert answer["flow"]["state"] == "tcp_established"
            assert end_of(answer) == peer[:2]


def test_nothing_up_is_told(lab: Lab) -> None:
    refused = lab.xdplb("explain", "172.11.0.22:1", check=False)
    assert refused.returncode == 3
    assert "no balancer is up" in refused.stderr
