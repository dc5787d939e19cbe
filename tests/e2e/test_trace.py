"""``trace`` beside traffic: what it tells is what happens, and nothing is lost by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from lab import SERVICE, SERVICE6, XDPLB, Lab, exchange, run, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        services = ("--service", SERVICE, "--service", SERVICE6)
        built.up("--port", "53", *services, backends=("172.11.0.20", "2001:db8::20"))
        wait_for(lambda: all(it["backends"][0]["mac"] for it in built.status()["services"]))
        yield built


class Trace:
    """A trace that goes on while a test does other things."""

    def __init__(self, lab: Lab, *words: str) -> None:
        """Start it, and wait until it tells."""
        command = [str(XDPLB), "--netns", lab.balancer, "trace", "--json", *words]
        self.child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        lab.finally_(self.child.kill)
        assert self.child.stderr is not None
        assert self.child.stderr.readline().startswith("tracing balancer")

    def end(self) -> tuple[list[dict[str, Any]], str]:
        """End it as Ctrl-C does: what it has told, and the last words."""
        self.child.send_signal(signal.SIGINT)
        out, err = self.child.communicate(timeout=20)
        assert self.child.returncode == 0, err
        return [json.loads(line) for line in out.splitlines()], err


def test_what_is_told_is_what_happens(lab: Lab, tmp_path: Path) -> None:
    server, client = lab.socket("172.11.0.20", 53), lab.socket("172.11.0.22")
    before = lab.status()
    file = tmp_path / "packets"
    trace = Trace(lab, "--client", "172.11.0.22", "--pcap", str(file), "--snap", "256")
    assert lab.status()["program"]["id"] != before["program"]["id"]
    seen = exchange(client, server, b"x" * 700, 53)
    exchange(lab.socket("172.11.0.23"), server, b"?", 53)
    exchange(lab.socket("2001:db8::22"), lab.socket("2001:db8::20", 53), b"?", 53)
    lab.xdplb("backend", "drain", "172.11.0.20")  # other commands find their balancer
    events, last = trace.end()
    assert last == "2 packets\n"
    assert [(event["verdict"], event["new"]) for event in events] == [
        ("forward", True),
        ("return", False),
    ]
    leaves = events[0]["out"]
    assert (leaves["source"], leaves["source_port"]) == seen
    assert (leaves["destination"], leaves["length"]) == ("172.11.0.20", 742)
    fields = ("frame.packet_flags_direction", "ip.src", "udp.srcport", "frame.len", "frame.comment")
    options = [word for field in fields for word in ("-e", field)]
    lines = run("tshark", "-r", str(file), "-T", "fields", *options).stdout.splitlines()
    port, nat = f"{client.getsockname()[1]}", f"{seen[1]}"
    assert [line.split("\t") for line in lines] == [
        ["0x00000001", "172.11.0.22", port, "742", "forward (new flow)"],
        ["0x00000002", SERVICE, nat, "742", "forward (new flow)"],
        ["0x00000001", "172.11.0.20", "53", "742", "return"],
        ["0x00000002", SERVICE, "53", "742", "return"],
    ]
    after = lab.status()
    assert after["program"] == before["program"]
    assert after["services"][0]["backends"][0]["state"] == "drain"


def test_a_trace_that_is_killed_is_put_right_by_the_next(lab: Lab) -> None:
    tag = lab.status()["program"]["tag"]
    trace = Trace(lab)
    second = lab.xdplb("trace", check=False)
    assert second.returncode == 3
    assert "another 'xdplb trace' is on" in second.stderr
    os.kill(trace.child.pid, signal.SIGKILL)
    trace.child.communicate()
    assert lab.status()["program"]["tag"] != tag
    exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 53), b"?", 53)
    wait_for(lambda: any("nobody reads" in it["what"] for it in lab.status()["warnings"]))
    while (third := lab.xdplb("trace", "--seconds", "0.1", check=False)).returncode == 3:
        assert "another 'xdplb trace' is on" in third.stderr  # it has not been silent for long
    status = lab.status()
    assert status["program"]["tag"] == tag
    assert not [it for it in status["warnings"] if "trace" in it["what"]]


def test_a_terminal_that_goes_ends_it_and_leaves_nothing(lab: Lab) -> None:
    tag = lab.status()["program"]["tag"]
    trace = Trace(lab)
    trace.child.send_signal(signal.SIGHUP)
    trace.child.communicate(timeout=20)
    assert trace.child.returncode == 128 + signal.SIGHUP
    assert lab.status()["program"]["tag"] == tag


def test_a_change_by_somebody_else_ends_it_and_stays(lab: Lab) -> None:
    trace = Trace(lab)
    exchange(lab.socket("2001:db8::22"), lab.socket("2001:db8::20", 53), b"?", 53)
    lab.up("--port", "54", backends=("172.11.0.20",))
    told, words = trace.child.communicate(timeout=20)
    assert json.loads(told)["in"]["source"] == "2001:db8::22"
    assert trace.child.returncode == 0
    assert "the trace has ended" in words
    assert lab.status()["services"][0]["ports"] == "54"
