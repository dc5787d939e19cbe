"""What Debian's kernels have and others need not: VLANs, bonds, lossy ways, IPVS."""

from __future__ import annotations

import json
import os
import select
from contextlib import closing, suppress
from socket import if_nametoindex
from typing import TYPE_CHECKING

import pytest
from lab import PATIENCE, SERVICE, Lab, exchange, run, wait_for

from xdplb.kernel import libbpf, netns
from xdplb.kernel.instructions import instruction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.devices

MODES = ("native", "generic")
VLAN = 10


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


@pytest.fixture
def tagged(lab: Lab) -> Lab:
    """A lab where 10.10.0.20 to .22 are in a VLAN, whose tags stand in the frames."""
    for where, device, numbers in (("b", "balancer", (1,)), ("h", "outside", (20, 21, 22))):
        run(*lab.inside(where, "ethtool", "-K", device, "rxvlan", "off", "txvlan", "off"))
        lab.ip(where, f"link add link {device} name {device}.10 type vlan id {VLAN}")
        for number in numbers:
            lab.ip(where, f"address add 10.10.0.{number}/24 dev {device}.10")
        lab.ip(where, f"link set {device}.10 up")
    return lab


def up(lab: Lab, path: Path, text: str) -> None:
    """``xdplb up`` with a file."""
    path.write_text(text)
    path.chmod(0o600)
    lab.xdplb("up", "--config", f"{path}")


@pytest.mark.parametrize("mode", MODES)
def test_a_backend_behind_a_vlan_device_is_reached_with_its_tag(
    tagged: Lab, mode: str, tmp_path: Path
) -> None:
    up(
        tagged,
        tmp_path / "file",
        f"""
        [balancer]
        interfaces = ["balancer"]
        mode = "{mode}"
        [[service]]
        address = "{SERVICE}"
        nat-addresses = ["10.10.0.1"]
        backend = [{{ address = "10.10.0.20" }}]
        """,
    )
    capture = tagged.process_output(
        "h", "tcpdump", "-nelqi", "outside", "-c", "2", "vlan", f"{VLAN}", "and", "udp"
    )
    server = tagged.socket("10.10.0.20", 53)
    peer, _ = exchange(tagged.socket("172.11.0.23"), server, b"into the VLAN", 53)
    assert peer == "10.10.0.1"
    assert all(f"vlan {VLAN}, p 0" in line for line in capture())
    (backend,) = tagged.status()["services"][0]["backends"]
    assert (backend["packets_in"], backend["packets_out"]) == (1, 1)


@pytest.mark.parametrize("mode", MODES)
def test_a_client_behind_a_vlan_device_is_answered_with_its_tag(tagged: Lab, mode: str) -> None:
    tagged.ip("h", "rule add from 10.10.0.22 table 10")
    tagged.ip("h", f"route add {SERVICE}/32 via 10.10.0.1 dev outside.10 table 10")
    tagged.up("--mode", mode, backends=("172.11.0.20",))
    client, server = tagged.socket("10.10.0.22"), tagged.socket("172.11.0.20", 53)
    assert exchange(client, server, b"out of the VLAN", 53)[0] == SERVICE
    assert tagged.status()["verdicts"]["return"] == 1


def test_a_balancer_may_sit_on_a_vlan_device(tagged: Lab) -> None:
    """The kernel has taken the tags off, and puts them on again."""
    tagged.xdplb("up", "--iface", "balancer.10", "--backend", "10.10.0.20")
    (interface,) = tagged.status()["interfaces"]
    assert interface["mode"] == "generic"
    client, server = tagged.socket("10.10.0.22"), tagged.socket("10.10.0.20", 53)
    client.sendto(b"ask", ("10.10.0.1", 53))
    question, peer = server.recvfrom(100)
    assert (question, peer[0]) == (b"ask", "10.10.0.1")
    server.sendto(b"answer", peer)
    assert client.recvfrom(100) == (b"answer", ("10.10.0.1", 53))
    tagged.xdplb("down")


@pytest.fixture
def bonded(lab: Lab) -> Lab:
    """A lab where 10.20.0.1 is on a bond of two interfaces, whose other ends are bridged."""
    lab.ip_batch(
        "b",
        "link add bond0 type bond mode active-backup miimon 50",
        f"link add one type veth peer name one netns {lab.hosts}",
        f"link add two type veth peer name two netns {lab.hosts}",
        "link set one master bond0",
        "link set two master bond0",
        "link set bond0 up",
        "address add 10.20.0.1/24 dev bond0",
    )
    lab.ip_batch(
        "h",
        "link add hub type bridge",
        "link set one master hub up",
        "link set two master hub up",
        "link set hub up",
        *(f"address add 10.20.0.{number}/24 dev hub" for number in (20, 21, 22)),
    )
    passing, _ = libbpf.load_program("pass", instruction(0xB7, immediate=2) + instruction(0x95))
    lab.finally_(lambda: os.close(passing))
    with netns.inside(lab.path("h")):  # hardware has no other end that loses what XDP sends
        for name in ("one", "two"):
            libbpf.xdp_attach(if_nametoindex(name), passing, libbpf.XDP_DRV_MODE)
    wait_for(lambda: _bond(lab)["operstate"] == "UP")
    return lab


def _bond(lab: Lab) -> dict[str, str]:
    (link,) = json.loads(lab.ip("b", "-j link show dev bond0"))
    assert isinstance(link, dict)
    return link


def _answered(lab: Lab) -> bool:
    """Whether one question to the bond's address comes back."""
    server, client = lab.socket("10.20.0.20"), lab.socket("10.20.0.22")
    port = server.getsockname()[1]
    with closing(server), closing(client), suppress(TimeoutError):
        server.settimeout(PATIENCE)
        client.settimeout(PATIENCE)
        client.sendto(b"ask", ("10.20.0.1", port))
        question, peer = server.recvfrom(100)
        assert (question, peer[0]) == (b"ask", "10.20.0.1")
        server.sendto(b"answer", peer)
        return client.recvfrom(100) == (b"answer", ("10.20.0.1", port))
    return False


@pytest.mark.parametrize("mode", ["auto", "generic"])
def test_a_bond_carries_a_balancer_and_changes_over(bonded: Lab, mode: str) -> None:
    bonded.xdplb("up", "--iface", "bond0", "--mode", mode, "--backend", "10.20.0.20")
    assert _answered(bonded)
    bonded.ip("b", "link set one down")
    wait_for(lambda: _answered(bonded))
    bonded.ip("b", "link set one up")
    bonded.ip("b", "link set two down")
    wait_for(lambda: _answered(bonded))
    bonded.xdplb("down")


def test_a_bond_may_be_one_of_several_interfaces(bonded: Lab) -> None:
    """In generic mode: natively the program hears of the bond's member."""
    words = ("up", "--iface", "balancer", "--iface", "bond0", "--backend", "10.20.0.20")
    refused = bonded.xdplb(*words, "--mode", "native", check=False)
    assert refused.returncode == 2
    assert "bond0 is a bond" in refused.stderr
    bonded.xdplb(*words)
    assert {item["mode"] for item in bonded.status()["interfaces"]} == {"generic"}
    server, client = bonded.socket("10.20.0.20", 53), bonded.socket("172.11.0.22")
    bonded.ip("h", f"route add {SERVICE}/32 via 10.20.0.1")
    client.sendto(b"ask", (SERVICE, 53))
    question, peer = server.recvfrom(100)
    assert question == b"ask"
    server.sendto(b"answer", peer)
    assert client.recvfrom(100) == (b"answer", (SERVICE, 53))


@pytest.mark.parametrize("mode", MODES)
def test_loss_and_reordering_on_the_way_lose_no_connection(
    lab: Lab, mode: str, tmp_path: Path
) -> None:
    """A megabyte each way, with three packets of a hundred lost, and a quarter out of order."""
    lab.up("--mode", mode, "--protocol", "tcp", "--port", "80", backends=("172.11.0.20",))
    run(
        *lab.inside("h", "tc", "qdisc", "add", "dev", "outside", "root", "netem"),
        *("delay", "4ms", "2ms", "loss", "3%", "reorder", "25%", "50%"),
    )
    data = bytes(number * 7 % 251 for number in range(1 << 20))
    (tmp_path / "sent").write_bytes(data)
    serve = "TCP-LISTEN:80,bind=172.11.0.20,reuseaddr,fork"
    lab.process("h", "socat", serve, "EXEC:cat")
    wait_for(lambda: "172.11.0.20:80" in run(*lab.inside("h", "ss", "-Htln")).stdout)
    got = run(
        *lab.inside("h", "sh", "-c"),
        f"socat -t 60 - TCP:{SERVICE}:80,bind=172.11.0.23 <{tmp_path}/sent >{tmp_path}/got",
    )
    assert got.returncode == 0
    assert (tmp_path / "got").read_bytes() == data
    (flow,) = json.loads(lab.xdplb("flows", "--json").stdout)["flows"]
    assert flow["state"] in {"tcp_closing", "tcp_established"}


@pytest.mark.parametrize("mode", MODES)
def test_datagrams_that_are_reordered_and_doubled_reach_their_own_clients(
    lab: Lab, mode: str
) -> None:
    lab.up("--mode", mode, backends=("172.11.0.20",))
    run(
        *lab.inside("h", "tc", "qdisc", "add", "dev", "outside", "root", "netem"),
        *("delay", "3ms", "3ms", "duplicate", "20%", "reorder", "30%"),
    )
    server = lab.socket("172.11.0.20", 7)
    server.settimeout(0)
    clients = [lab.socket("172.11.0.23") for _ in range(20)]
    for turn in range(5):  # all at once, the server's buffer would not hold
        due = set()
        for number, client in enumerate(clients):
            due.add(question := f"{number} {turn}".encode())
            client.sendto(question, (SERVICE, 7))
        while due:
            ready, _, _ = select.select([server, *clients], [], [], 3 * PATIENCE)
            assert ready, f"{due} have not come"
            for sock in ready:
                text, source = sock.recvfrom(100)
                if sock is server:
                    server.sendto(text, source)
                    continue
                assert source == (SERVICE, 7)
                assert text.startswith(f"{clients.index(sock)} ".encode())
                due.discard(text)
    assert lab.status()["flows"]["active"] == len(clients)


@pytest.fixture
def ipvs(lab: Lab) -> Lab:
    """A lab whose balancer has IPVS for port 53, with full NAT, too, to 172.11.0.21."""
    inside = lab.inside("b")
    run(*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.vs.conntrack=1")
    run(*inside, "ipvsadm", "-A", "-u", f"{SERVICE}:53", "-s", "rr")
    run(*inside, "ipvsadm", "-a", "-u", f"{SERVICE}:53", "-r", "172.11.0.21:53", "-m")
    hook = "{ type nat hook postrouting priority 100; }"
    added = ("table ip full", f"chain ip full out {hook}", "rule ip full out masquerade")
    run(*inside, "nft", "; ".join(f"add {item}" for item in added))
    return lab


def _connections(lab: Lab) -> int:
    """How many IPVS knows."""
    table = run(*lab.inside("b", "ipvsadm", "-Lnc")).stdout
    return sum(line.startswith("UDP ") for line in table.splitlines())


@pytest.mark.parametrize("mode", MODES)
def test_ipvs_keeps_what_is_not_balanced_here(ipvs: Lab, mode: str) -> None:
    """Another port is IPVS's as before; the same one is taken over, and given back."""
    client = ipvs.socket("172.11.0.23")
    theirs, ours = ipvs.socket("172.11.0.21", 53), ipvs.socket("172.11.0.20", 53)
    exchange(client, theirs, b"before", 53)
    assert _connections(ipvs) == 1

    other = ipvs.socket("172.11.0.20", 5353)
    ipvs.up("--mode", mode, "--port", "5353", backends=("172.11.0.20",))
    exchange(client, theirs, b"a flow goes on", 53)
    exchange(ipvs.socket("172.11.0.22"), theirs, b"a new one comes", 53)
    exchange(client, other, b"beside it", 5353)
    assert _connections(ipvs) == 2
    assert ipvs.status()["verdicts"]["forward"] == 1
    ipvs.xdplb("down")

    ipvs.up("--mode", mode, "--port", "53", backends=("172.11.0.20",))
    exchange(client, ours, b"taken over", 53)
    assert _connections(ipvs) == 2
    ipvs.xdplb("down")
    exchange(client, theirs, b"given back", 53)
