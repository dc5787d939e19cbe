"""Offloads over two interfaces: whatever senders leave to their devices, all of it arrives."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, SERVICE6, XDPLB, Lab, exchange, run, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

UDP_SEGMENT = 103
SERVER = {4: "172.12.0.20", 6: "2001:db8:12::20"}
CLIENT = {4: "172.11.0.22", 6: "2001:db8::22"}
SERVICES = {4: SERVICE, 6: SERVICE6}
ENDS = (("b", "balancer"), ("b", "second"), ("h", "outside"), ("s", "servers"))
BOTH = ("--iface", "second", "--protocol", "udp", "--protocol", "tcp", "--port", "5201")
SEGMENTATION = ("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab((22,)) as built:
        built.second_network()
        yield built


def features(lab: Lab) -> dict[str, list[str]]:
    """What ``ethtool -k`` says of both ends of both veth pairs."""
    return {
        name: run(*lab.inside(where, "ethtool", "-k", name)).stdout.splitlines()
        for where, name in ENDS
    }


def segmentation(lab: Lab) -> set[str]:
    """The peers' segmentation offloads that are on."""
    found = features(lab)
    return {
        f"{name} {feature}"
        for name in ("outside", "servers")
        for feature in SEGMENTATION
        if any(line.strip() == f"{feature}: on" for line in found[name])
    }


def nothing_was_lost(lab: Lab) -> None:
    """No packet was dropped, answered with an error, or arrived with a wrong checksum."""
    verdicts = lab.status()["verdicts"]
    bad = {name for name in verdicts if name.startswith(("drop", "reply"))}
    assert {name: verdicts[name] for name in bad if verdicts[name]} == {}
    for where in ("h", "s"):
        assert lab.counter("Tcp", "InCsumErrors", where) == 0
        assert lab.counter("Udp", "InCsumErrors", where) == 0
        assert lab.counter6("Udp6InCsumErrors", where) == 0


def iperf3(lab: Lab, version: int, where: str, *more: str) -> int:
    """Bytes that arrive of 150 MB between ``where`` and the servers of the second network."""
    lab.process("s", "iperf3", "--server", "--one-off", "--bind", SERVER[version])
    table = "/proc/net/tcp" if version == 4 else "/proc/net/tcp6"
    wait_for(lambda: ":1451 " in run(*lab.inside("s", "cat", table)).stdout)
    words = ("--client", SERVICES[version], "--bytes", "150M", "--json", *more)
    end = json.loads(run(*lab.inside(where, "iperf3", *words)).stdout)["end"]
    return int(end["sum_received"]["bytes"])


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("reverse", [False, True], ids=["upload", "download"])
def test_iperf3_moves_its_bytes_with_default_offloads(
    lab: Lab, mode: str, version: int, *, reverse: bool
) -> None:
    lab.up(*BOTH, "--mode", mode, backends=(SERVER[version],))
    more = ("--bind", CLIENT[version], *(("--reverse",) if reverse else ()))
    assert iperf3(lab, version, "h", *more) >= 99 << 20
    nothing_was_lost(lab)


@pytest.mark.parametrize("version", [4, 6])
def test_a_segmented_datagram_arrives_in_its_segments(lab: Lab, version: int) -> None:
    lab.up(*BOTH, "--mode", "generic", backends=(SERVER[version],))
    server = lab.socket(SERVER[version], 5201, where="s")
    client = lab.socket(CLIENT[version])
    client.connect((SERVICES[version], 5201))
    client.send(b"hello")
    server.connect(server.recvfrom(10)[1])
    for sender, receiver in ((client, server), (server, client)):
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
        sender.send(bytes(20_300))
        assert [len(receiver.recv(65535)) for _ in range(21)] == [1000] * 20 + [300]
    nothing_was_lost(lab)


def test_nothing_is_put_together_before_a_generic_program(lab: Lab) -> None:
    """GRO of the interface may stay on: the kernel leaves it out where a program hangs."""
    with lab.far_network():
        run(*lab.inside("h", "ethtool", "-K", "outside", "tso", "off"))
        for name in ("balancer", "second"):
            run(*lab.inside("b", "ethtool", "-K", name, "gro", "on"))
        lab.up(*BOTH, "--mode", "generic", backends=(SERVER[4],))
        assert iperf3(lab, 4, "f") >= 99 << 20
        nothing_was_lost(lab)


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("before", ["default", "some off"])
def test_down_puts_back_every_offload(lab: Lab, mode: str, before: str) -> None:
    if before == "some off":
        run(*lab.inside("h", "ethtool", "-K", "outside", "tx-tcp-segmentation", "off"))
        run(*lab.inside("s", "ethtool", "-K", "servers", "tx-udp-segmentation", "off"))
        run(*lab.inside("b", "ethtool", "-K", "balancer", "gro", "on"))
    world = features(lab)
    lab.up(*BOTH, "--mode", mode, backends=(SERVER[4],))
    assert features(lab) != world
    lab.up(*BOTH, backends=(SERVER[4],))
    assert segmentation(lab) == set()
    lab.xdplb("down")
    assert features(lab) == world


def test_an_up_that_fails_puts_back_every_offload(lab: Lab, tmp_path: Path) -> None:
    world = features(lab)
    (tmp_path / "bcc.py").write_text("raise ImportError('gone')")
    path = f"PYTHONPATH={tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    words = ("up", "--iface", "balancer", *BOTH, "--mode", "generic", "--backend", SERVER[4])
    done = run("env", path, str(XDPLB), "--netns", lab.balancer, *words, check=False)
    assert done.returncode == 3
    assert features(lab) == world


def test_a_balancer_that_leaves_an_interface_gives_its_peer_back(lab: Lab) -> None:
    world = features(lab)
    lab.ip("h", "address add 172.11.0.20/24 dev outside")
    lab.up(*BOTH, "--mode", "generic", backends=("172.11.0.20",))
    assert segmentation(lab) == set()
    lab.up("--port", "5201", backends=("172.11.0.20",))
    assert features(lab) == world
    exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 5201), b"alone", 5201)


def test_one_interface_changes_no_offload(lab: Lab) -> None:
    world = features(lab)
    lab.ip("h", "address add 172.11.0.20/24 dev outside")
    lab.up("--mode", "generic", backends=("172.11.0.20",))
    assert features(lab) == world


def test_what_an_administrator_has_to_do_is_named(lab: Lab) -> None:
    """A namespace that only a descriptor holds has no path to enter it by."""
    name = f"{lab.hosts}s"
    with (Path("/run/netns") / name).open():
        run("ip", "netns", "delete", name)
        try:
            words = ("up", "--iface", "balancer", *BOTH, "--mode", "generic")
            done = lab.xdplb(*words, "--backend", SERVER[4])
        finally:
            run("ip", "netns", "add", name)  # for the lab to remove
    assert "the peer of second is in a network namespace out of reach" in done.stderr
    assert " ".join(f"{item} off" for item in SEGMENTATION) in done.stderr
