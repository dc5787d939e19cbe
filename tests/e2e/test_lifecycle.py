"""up, status and down: what they leave, and what they refuse."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, XDPLB, Lab, exchange, run, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

FOREIGN = b"\xb7\x00\x00\x00\x02\x00\x00\x00\x95" + bytes(7)  # r0 = XDP_PASS; exit


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


def bpf_objects() -> set[tuple[str, int]]:
    """Every program and map of the machine, by kind and id."""
    found = set()
    for kind in ("prog", "map"):
        listed = json.loads(run("bpftool", "-j", kind, "show").stdout)
        found |= {(kind, item["id"]) for item in listed}
    return found


def outside_world(lab: Lab) -> tuple[str, ...]:
    """What ``up`` may change and ``down`` has to put back."""
    gro = run(*lab.inside("h", "ethtool", "-k", "outside")).stdout
    neighbours = lab.ip("b", "neighbour show").splitlines()
    return gro, "".join(line for line in neighbours if "managed" in line), _xdp(lab)


def _xdp(lab: Lab) -> str:
    (link,) = json.loads(lab.ip("b", "-j link show dev balancer"))
    return str(link.get("xdp"))


@pytest.mark.alone
def test_up_leaves_no_process_and_no_pin_and_down_leaves_nothing(lab: Lab) -> None:
    before, world = bpf_objects(), outside_world(lab)
    files = {path: sorted(Path(path).iterdir()) for path in ("/run", "/sys/fs/bpf")}
    lab.up("--client", "172.11.0.22:5555=6666")
    made = bpf_objects() - before
    assert made
    assert not _children_of_xdplb(lab)
    assert {path: sorted(Path(path).iterdir()) for path in files} == files
    lab.xdplb("down")
    wait_for(lambda: not made & bpf_objects())  # somebody else's may be among them, and go later
    assert outside_world(lab) == world


def _children_of_xdplb(lab: Lab) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text().split("\0")
        except OSError:
            continue
        if any("xdplb" in word for word in words[:4]) and lab.balancer in words:
            found.append(" ".join(words))
    return found


def test_every_command_works_from_its_start(lab: Lab, tmp_path: Path) -> None:
    """Most other tests leave the start out, and have all modules loaded."""
    flows, file = f"{tmp_path}/flows", tmp_path / "xdplb.toml"

    def says(text: str, *words: str) -> str:
        done = lab.started(*words)
        assert text in done.stdout, words
        assert done.stderr == ""
        return done.stdout

    says("up: 172.11.0.1 udp", "up", "--iface", "balancer", "--backend", "172.11.0.20")
    peer = exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 53), b"q", 53)
    says("172.11.0.20", "status")
    says("xdplb_backend_up", "metrics")
    says("172.11.0.22", "flows")
    says("172.11.0.22", "whois", f"{peer[0]}:{peer[1]}")
    says("added: 172.11.0.21", "backend", "add", "172.11.0.21")
    says("saved: 1 flow", "save", flows)
    says("ended: 1 flow", "flows", "kill", "--all")
    says("restored: 1 of 1", "restore", flows)
    file.write_text(says("[[service]]", "export"))
    file.chmod(0o600)
    says("", "check", f"{file}")
    says("nothing to change", "apply", f"{file}")
    says("changed: 172.11.0.1 udp", "up", "--config", f"{file}")
    says("down: balancer", "down")


def test_status_and_down_succeed_with_nothing_up(lab: Lab) -> None:
    assert json.loads(lab.xdplb("status", "--json").stdout) == {"version": 1, "balancers": []}
    assert "nothing is up" in lab.xdplb("down").stdout


def test_a_second_up_keeps_flows_ports_and_counters(lab: Lab) -> None:
    lab.up(backends=("172.11.0.20",))
    server, client = lab.socket("172.11.0.20", 53), lab.socket("172.11.0.22")
    peer = exchange(client, server, b"one", 53)
    first = lab.status()["program"]["id"]
    lab.up("--timeout", "60", backends=("172.11.0.21", "172.11.0.20"))
    assert lab.status()["program"]["id"] != first
    assert exchange(client, server, b"two", 53) == peer
    assert lab.status()["verdicts"]["forward"] == 2
    world = lab.xdplb("down").stdout
    assert "down: balancer" in world


def test_a_second_up_keeps_the_size_that_it_does_not_mention(lab: Lab) -> None:
    lab.up("--max-flows", "1000", "--nat-ports", "5000-6000", "--nat-ports", "2000-3000")
    lab.up("--nat-ports", "5000-6000", "--nat-ports", "2000-3000")
    lab.up()
    assert lab.status()["flows"]["capacity"] == 1000


def test_a_second_up_goes_on_counting_the_flows_of_each_client(lab: Lab) -> None:
    server = lab.socket("172.11.0.20", 53)
    clients = [lab.socket("172.11.0.22") for _ in range(4)]
    for limit, allowed in ((2, 2), (3, 1), (0, 1)):
        lab.up("--max-client-flows", f"{limit}", backends=("172.11.0.20",))
        for _ in range(allowed):
            exchange(clients.pop(), server, b"one more", 53)
        if limit:
            refused = lab.status()["verdicts"]["drop_client_limit"] + 1
            clients[-1].sendto(b"one too many", (SERVICE, 53))
            wait_for(lambda: lab.status()["verdicts"]["drop_client_limit"] == refused)  # noqa: B023 - called at once


def test_counters_grow_with_the_number_of_backends(lab: Lab) -> None:
    lab.up(backends=("172.11.0.20",))
    server, client = lab.socket("172.11.0.20", 53), lab.socket("172.11.0.22")
    exchange(client, server, b"one", 53)
    many = tuple(f"172.11.0.20:{port}" for port in range(1000, 1300))
    lab.up(backends=("172.11.0.20", *many))
    exchange(client, server, b"two", 53)
    listed = lab.status()["services"][0]["backends"]
    assert len(listed) == 301
    assert listed[0]["packets_in"] == 2
    maps = json.loads(run("bpftool", "-j", "map", "show").stdout)
    rooms = [item["max_entries"] for item in maps if item.get("name") == "backend_stats"]
    assert max(rooms) >= 301


def test_a_removed_backend_loses_its_flows_to_another(lab: Lab) -> None:
    lab.up(backends=("172.11.0.20",))
    client = lab.socket("172.11.0.22")
    exchange(client, lab.socket("172.11.0.20", 53), b"one", 53)
    lab.up(backends=("172.11.0.21",))
    exchange(client, lab.socket("172.11.0.21", 53), b"two", 53)


@pytest.mark.parametrize("how", ["ip netns exec", "nsenter"])
def test_it_works_from_inside_the_namespace(lab: Lab, how: str) -> None:
    words = {
        "ip netns exec": ["ip", "netns", "exec", lab.balancer],
        "nsenter": lab.inside("b"),
    }[how]
    run(*words, str(XDPLB), "up", "--iface", "balancer", "--backend", "172.11.0.20")
    exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 53), b"q", 53)
    assert "172.11.0.20" in run(*words, str(XDPLB), "status").stdout
    run(*words, str(XDPLB), "down")
    assert _xdp(lab) == "None"


def test_two_ups_at_once_leave_one_winner(lab: Lab) -> None:
    command = [
        str(XDPLB), "--netns", lab.balancer, "up", "--iface", "balancer",
        "--backend", "172.11.0.20",
    ]  # fmt: skip
    both = [
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    errors = [child.communicate(timeout=30)[1] for child in both]
    codes = sorted(child.returncode for child in both)
    assert codes in ([0, 4], [0, 0])
    assert not any("Traceback" in error for error in errors)
    exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 53), b"q", 53)


REFUSED = {
    "no such interface": (3, "no interface named", ["--iface", "none", "--backend", "172.11.0.20"]),
    "the service as backend": (2, "is the service itself", ["--backend", SERVICE]),
    "the given service as backend": (
        2, "is the service itself", ["--service", "172.11.0.9", "--backend", "172.11.0.9"],
    ),
    "this host as backend": (2, "address of this host", ["--backend", "127.0.0.1"]),
    "no route": (3, "no route to backend", ["--backend", "198.51.100.1"]),
    "a backend twice": (2, "given twice", ["--backend", "172.11.0.20", "--backend", "172.11.0.20"]),
    "a NAT port twice": (
        2, "given twice",
        ["--backend", "172.11.0.20", "--client", "1.2.3.4:5=6666", "--client", "1.2.3.5:5=6666"],
    ),
    "a NAT port outside the pool": (
        2, "not one of the NAT ports", ["--backend", "172.11.0.20", "--client", "1.2.3.4:5=53"],
    ),
    "a port out of range": (2, "out of range", ["--backend", "172.11.0.20:70000"]),
    "port 0": (2, "out of range", ["--backend", "172.11.0.20", "--port", "0"]),
    "a range the wrong way round": (2, "empty", ["--backend", "172.11.0.20", "--port", "9-5"]),
    "a malformed address": (2, "not an IP address", ["--backend", "172.11.0.300"]),
    "a malformed reservation": (
        2, "not a reservation", ["--backend", "172.11.0.20", "--client", "nonsense"],
    ),
    "a multicast backend": (2, "multicast", ["--backend", "224.0.0.1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_request_is_refused_before_anything_changes(lab: Lab, name: str) -> None:
    code, message, words = REFUSED[name]
    before = outside_world(lab)
    iface = [] if "--iface" in words else ["--iface", "balancer"]
    done = lab.xdplb("up", *iface, *words, check=False)
    if name == "this host as backend":
        assert done.returncode == code
    else:
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
        assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert outside_world(lab) == before


def test_an_interface_without_an_address_is_refused(lab: Lab) -> None:
    lab.ip("b", f"address del {SERVICE}/24 dev balancer")
    done = lab.xdplb("up", "--iface", "balancer", "--backend", "172.11.0.20", check=False)
    assert (done.returncode, "has no IPv4 address" in done.stderr) == (3, True)


def test_a_backend_behind_another_interface_is_refused(lab: Lab) -> None:
    lab.ip("b", "link add other type veth peer name third")
    lab.ip("b", "address add 172.13.0.1/24 dev other")
    lab.ip("b", "link set other up")
    done = lab.xdplb("up", "--iface", "balancer", "--backend", "172.13.0.9", check=False)
    assert (done.returncode, "--iface other" in done.stderr) == (3, True)


def test_native_mode_on_a_bridge_is_refused_and_auto_takes_generic(lab: Lab) -> None:
    lab.ip("b", "link add br0 type bridge")
    lab.ip("b", f"address del {SERVICE}/24 dev balancer")
    lab.ip("b", f"address add {SERVICE}/24 dev br0")
    lab.ip("b", "link set balancer master br0")
    lab.ip("b", "link set br0 up")
    words = ["up", "--iface", "br0", "--backend", "172.11.0.20"]
    done = lab.xdplb(*words, "--mode", "native", check=False)
    assert (done.returncode, "does not take the program" in done.stderr) == (4, True)
    lab.xdplb(*words)
    assert lab.status()["interfaces"][0]["mode"] == "generic"
    exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 53), b"q", 53)
    assert lab.bad_checksums() == 0


def test_auto_says_why_it_is_generic_on_a_veth_with_a_large_mtu(lab: Lab) -> None:
    lab.ip("b", "link set balancer mtu 9000")
    lab.ip("h", "link set outside mtu 9000")
    done = lab.xdplb("up", "--iface", "balancer", "--backend", "172.11.0.20")
    assert "MTU is too large" in done.stderr
    assert lab.status()["interfaces"][0]["mode"] == "generic"


def test_a_foreign_program_is_named_and_never_replaced(lab: Lab, tmp_path: Path) -> None:
    code = (
        "import sys, time; from xdplb.kernel import libbpf, netns; netns.enter(sys.argv[1]);"
        "fd, _ = libbpf.load_program('stranger', bytes.fromhex(sys.argv[2]));"
        "libbpf.xdp_attach(int(sys.argv[3]), fd, libbpf.XDP_DRV_MODE)"
    )
    (link,) = json.loads(lab.ip("b", "-j link show dev balancer"))
    python = str(XDPLB.parent / "python")
    run(python, "-c", code, lab.balancer, FOREIGN.hex(), f"{link['ifindex']}", cwd=tmp_path)
    before = _xdp(lab)
    done = lab.xdplb("up", "--iface", "balancer", "--backend", "172.11.0.20", check=False)
    assert done.returncode == 4
    assert "stranger" in done.stderr
    assert f"program {json.loads(before.replace(chr(39), chr(34)))['prog']['id']}" in done.stderr
    assert _xdp(lab) == before


@pytest.mark.parametrize("content", ["", "raise ImportError('gone')"], ids=["another", "none"])
def test_a_missing_bcc_is_named_with_its_packages(lab: Lab, tmp_path: Path, content: str) -> None:
    (tmp_path / "bcc.py").write_text(content)
    done = run(
        "env", f"PYTHONPATH={tmp_path}", str(XDPLB), "--netns", lab.balancer,
        "up", "--iface", "balancer", "--backend", "172.11.0.20", check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "python3-bpfcc" in done.stderr
    assert "python3-bcc" in done.stderr
    assert _xdp(lab) == "None"


def test_what_shapes_the_table_cannot_change_while_it_runs(lab: Lab) -> None:
    lab.up()
    for words in (["--max-flows", "1000"], ["--nat-ports", "2000-3000"], ["--mode", "generic"]):
        done = lab.xdplb(
            "up", "--iface", "balancer", "--backend", "172.11.0.20", *words, check=False
        )
        assert (done.returncode, "xdplb down" in done.stderr) == (2, True)
