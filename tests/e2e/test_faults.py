"""Faults, each made for real while traffic runs: what is said, what is left, what is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from forked import forked
from lab import SERVICE, XDPLB, Lab, exchange, run, wait_for
from steady import BACKENDS, CLIENTS, PORT, Traffic

from xdplb import wire
from xdplb.kernel import libbpf, netns, program, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from socket import socket

ROUNDS: Final = int(os.environ.get("XDPLB_FAULT_ROUNDS", "1"))
"""Moments at which each command is killed."""

MARK: Final = "XDPLB_FAULTS"
"""A variable in the environment of every command that is killed, and of its children."""

THIRD: Final = "172.11.0.24"
PASS: Final = b"\xb7\x00\x00\x00\x02\x00\x00\x00\x95" + bytes(7)  # r0 = XDP_PASS; exit
UP: Final = ("up", "--iface", "balancer", "--backend", BACKENDS[0], "--backend", BACKENDS[1])
EVERY: Final = {
    "up": UP,
    "status": ("status",),
    "drain": ("backend", "drain", BACKENDS[0]),
    "list": ("backend", "list"),
    "down": ("down",),
}
STATUS: Final = {"status": EVERY["status"], "list": EVERY["list"]}


# What is there


def inode(lab: Lab) -> int:
    return (Path("/run/netns") / lab.balancer).stat().st_ino


def programs_of(lab: Lab) -> set[int]:
    """The programs that were loaded for the lab's balancer, attached or not."""
    found = set()
    for number in program.ours():
        with suppress(Exception):  # another test's, and gone
            maps = program.open_maps(number)
            try:
                if tables.read_meta(maps).netns == inode(lab):
                    found.add(number)
            finally:
                maps.close()
    return found


def unheld_maps() -> set[int]:
    """Maps of this machine that neither a program nor a process holds: left over."""
    programs = json.loads(run("bpftool", "-j", "prog", "show").stdout)
    held = {number for item in programs for number in item.get("map_ids", ())}
    maps = {item["id"] for item in json.loads(run("bpftool", "-j", "map", "show").stdout)}
    return maps - held - (maps_of_processes() if maps - held else set())


def maps_of_processes() -> set[int]:
    """Maps that somebody has open, such as an ``up`` of another test."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/fdinfo/*"):
        with suppress(OSError):
            lines = path.read_text().splitlines()
            found |= {int(line.split()[1]) for line in lines if line.startswith("map_id:")}
    return found


def processes_of(lab: Lab) -> list[str]:
    """The processes that were started by a command that was killed."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{MARK}={lab.balancer}" in path.read_text().split("\0"):
                found.append(path.parent.name)
    return found


def world(lab: Lab, gro: str = "outside") -> tuple[str, list[str], str]:
    """What ``up`` changes and ``down`` has to put back."""
    features = run(*lab.inside("h", "ethtool", "-k", gro)).stdout
    neighbours = lab.ip("b", "neighbour show").splitlines()
    return (
        next(line for line in features.splitlines() if "generic-receive" in line),
        sorted(without_state(line) for line in neighbours if "managed" in line or "proto" in line),
        attached(lab),
    )


def without_state(neighbour: str) -> str:
    """What is known of a neighbour, without how sure the kernel is of it just now."""
    return " ".join(word for word in neighbour.split() if not word.isupper())


def attached(lab: Lab) -> str:
    (link,) = json.loads(lab.ip("b", "-j link show dev balancer"))
    return str(link.get("xdp"))


def backends(lab: Lab) -> dict[str, dict[str, Any]]:
    """``backend list --json`` by address."""
    done = json.loads(lab.xdplb("backend", "list", "--json").stdout)
    return {item["address"]: item for item in done["backends"]}


def is_up(lab: Lab) -> bool:
    return bool(json.loads(lab.xdplb("status", "--json").stdout)["balancers"])


def ended(lab: Lab, before: tuple[str, list[str], str], *, knew_gro: bool = True) -> None:
    """Take down what is up; nothing is left then.

    Args:
        lab: Where.
        before: Its ``world`` as it was before the first ``up``.
        knew_gro: No command lost the knowledge that GRO was off before: that goes with the
            program, and with a process that is killed between switching it and attaching.
    """
    lab.xdplb("down")
    assert not is_up(lab)
    after = world(lab)
    assert after[1:] == before[1:]
    assert after[0] == before[0] or not knew_gro
    wait_for(lambda: not programs_of(lab))
    wait_for(lambda: not processes_of(lab))
    here = unheld_maps()
    wait_for(lambda: not here & unheld_maps())


def refused(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    """One clear message, the next step, and no traceback."""
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


@pytest.fixture
def traffic(lab: Lab) -> Iterator[Traffic]:
    with Traffic(lab) as running:
        yield running


# Where a command runs: it cannot do its work, or does it all the same


@dataclass(frozen=True, slots=True)
class Place:
    """Surroundings of a command while a balancer runs.

    Attributes:
        name: The row's name.
        prefix: What is put before the command; {b} is the balancer's namespace.
        code: What it exits with.
        says: A part of the message; empty for none.
        commands: Those that are tried; all of them go through without ``says``.
        enters: The command enters the namespace by itself.
    """

    name: str
    prefix: str
    code: int = 0
    says: str = ""
    commands: tuple[str, ...] = tuple(EVERY)
    enters: bool = True

    def command(self, lab: Lab, *words: str) -> list[str]:
        """The whole command line; a script sees the command as its arguments."""
        prefix = self.prefix.replace("{b}", lab.balancer)
        xdplb = [str(XDPLB), *(["--netns", lab.balancer] if self.enters else []), *words]
        return ["sh", "-c", f'{prefix} "$@"', "sh", *xdplb]


IN: Final = "exec nsenter --net=/run/netns/{b}"
PRIVATE: Final = "exec nsenter --net=/run/netns/{b} unshare -m sh -c"
DO: Final = """; exec "$@"' sh"""


def capable(capabilities: str) -> str:
    """Root with these capabilities and no others."""
    words = f"-all,+{capabilities.replace(' ', ',+')}"
    return f"{IN} setpriv --inh-caps {words} --bounding-set {words}"


READ: Final = ("status", "list")
HINDERED: Final = (
    Place("nobody", f"{IN} setpriv --reuid 65534 --clear-groups", 3, "CAP_NET_ADMIN", enters=False),
    Place(
        "nobody from outside", "exec setpriv --reuid 65534 --clear-groups", 3,
        "no privilege to enter",
    ),
    Place("CAP_NET_ADMIN alone", capable("net_admin"), 3, "without CAP_SYS_ADMIN", enters=False),
    Place(
        "CAP_BPF and CAP_NET_ADMIN", capable("net_admin bpf perfmon"), 3, "without CAP_SYS_ADMIN",
        enters=False,
    ),
    Place("CAP_SYS_ADMIN alone", capable("sys_admin"), 3, "without CAP_NET_ADMIN", enters=False),
    Place(
        "root of a user namespace", f"{IN} unshare -Ur", 3, "look at the kernel's BPF programs",
        enters=False,
    ),
    Place("few files", "exec prlimit --nofile=16:16", 3, "Too many open files"),
    Place("no /proc", f"{PRIVATE} 'umount -l /proc{DO}", 3, "/proc/self/status", enters=False),
    Place(
        "no /sys", f"{PRIVATE} 'mount -t tmpfs none /sys{DO}", 3, "/sys/devices", READ,
        enters=False,
    ),
    Place("a full output", "exec >/dev/full;", 3, "output cannot be written", READ),
    Place(
        "another bcc", "PYTHONPATH={fake}:$PYTHONPATH exec", 3, "another package", ("up",)
    ),
    Place(
        "a compiler that crashes", "PYTHONPATH={crash}:$PYTHONPATH exec", 4, "does not compile",
        ("up",),
    ),
    Place("no such namespace", "exec env --", 2, "no network namespace", enters=False),
)  # fmt: skip
UNHINDERED: Final = (
    Place("little locked memory and a full stderr", "exec 2>/dev/full prlimit --memlock=65536"),
    Place(
        "a read-only root",
        f"{PRIVATE} 'mount -o remount,ro,bind /; mount -t tmpfs -o ro none /tmp; "
        f"mount -t tmpfs -o ro none /dev/shm{DO}",
        enters=False,
    ),
    Place(
        "a bpffs that others write to",
        f"{PRIVATE} 'mount -t bpf -o mode=1777 none /sys/fs/bpf; mkdir -m 0 /sys/fs/bpf/xdplb; "
        f"chown 65534 /sys/fs/bpf/xdplb{DO}",
        enters=False,
    ),
    Place("no files open", "exec <&- >&- 2>&-;"),
    Place("another clock", "exec unshare -T --monotonic 100000"),
    Place(
        "nobody with two capabilities",
        f"{IN} setpriv --reuid 65534 --clear-groups --inh-caps +sys_admin,+net_admin "
        "--ambient-caps +sys_admin,+net_admin",
        enters=False,
    ),
)


@pytest.fixture(scope="module")
def busy() -> Iterator[tuple[Lab, Traffic]]:
    """A balancer that is up, with traffic, for all rows that must not disturb it."""
    with Lab() as lab:
        lab.up()
        with Traffic(lab) as traffic:
            traffic.flows()
            yield lab, traffic


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Directories with modules that have BCC's name."""
    texts = {
        "fake": "",
        "crash": "import os, signal\nlib = None\ndef BPF(**_): os.kill(os.getpid(), 11)\n",
    }
    made = {}
    for name, text in texts.items():
        path = tmp_path_factory.mktemp(name)
        (path / "bcc").mkdir()
        (path / "bcc" / "__init__.py").write_text(text)
        made[name] = f"{path}"
    return made


@pytest.mark.parametrize("place", HINDERED, ids=lambda place: place.name)
def test_what_a_command_lacks_is_named_and_nothing_changes(
    busy: tuple[Lab, Traffic], fakes: dict[str, str], place: Place
) -> None:
    lab, traffic = busy
    since, before, state = traffic.mark(), world(lab), backends(lab)
    for name, path in fakes.items():
        place = replace(place, prefix=place.prefix.replace(f"{{{name}}}", path))
    for name in place.commands:
        words = EVERY[name]
        if place.name == "no such namespace":
            words = ("--netns", "/proc/self/ns/mnt", *words)
            refused(run(*place.command(lab, *words), check=False), place.code, "no network")
        else:
            refused(run(*place.command(lab, *words), check=False), place.code, place.says)
    assert world(lab) == before
    assert backends(lab).keys() == state.keys()
    traffic.flows()
    assert traffic.count(since).is_unharmed


@pytest.mark.parametrize("place", UNHINDERED, ids=lambda place: place.name)
def test_what_a_command_does_not_need_may_be_missing(
    busy: tuple[Lab, Traffic], place: Place
) -> None:
    lab, traffic = busy
    since, number = traffic.mark(), lab.status()["program"]["id"]
    done = run(*place.command(lab, "status", "--json"))
    if done.stdout:  # else there is nobody to read it
        assert json.loads(done.stdout)["balancers"][0]["flows"]["active"] == CLIENTS
    run(*place.command(lab, *EVERY["drain"]))
    assert backends(lab)[BACKENDS[0]]["state"] == "drain"
    run(*place.command(lab, *UP))
    traffic.flows()
    status = lab.status()
    assert status["program"]["id"] != number
    assert status["flows"]["active"] == CLIENTS
    bad = run(*place.command(lab, "backend", "drain", THIRD), check=False)
    assert (bad.returncode, "Traceback" in bad.stderr) == (2, False)
    assert traffic.count(since).is_unharmed


@pytest.mark.parametrize("name", ["up", "down"])
def test_what_cannot_be_reported_is_done_all_the_same(lab: Lab, name: str) -> None:
    if name == "down":
        lab.up()
    place = Place("a full output", "exec >/dev/full;")
    refused(run(*place.command(lab, *EVERY[name]), check=False), 3, "output cannot be written")
    assert is_up(lab) == (name == "up")


# What happens to a balancer that runs


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to a balancer, and what comes of it.

    Attributes:
        name: The row's name.
        inject: Makes it happen, and checks what is said of it.
        budget: How many of about 1,000 datagrams a second may be lost until all flow again.
        keeps_flows: They come to the same backend from the same port as before.
        knew_gro: See ``ended``.
    """

    name: str
    inject: Callable[[Lab, Traffic], None]
    budget: int = 0
    keeps_flows: bool = True
    knew_gro: bool = True


def nothing_is_up(lab: Lab) -> None:
    assert not is_up(lab)
    refused(lab.xdplb(*EVERY["drain"], check=False), 3, "no balancer is up")
    assert "nothing is up" in lab.xdplb("down").stdout


def deleted(lab: Lab, traffic: Traffic) -> None:
    index = lab.link("b", "balancer")[0]
    lab.ip("b", "link delete balancer")
    nothing_is_up(lab)
    refused(lab.xdplb(*UP, check=False), 3, "no interface named 'balancer'")
    wait_for(lambda: not programs_of(lab))
    lab.ip("b", "link add balancer index 77 type veth peer name outside netns", lab.hosts)
    lab.ip("b", f"address add {SERVICE}/24 dev balancer")
    lab.ip("b", "link set balancer up")
    lab.ip("h", "link set outside up")
    for number in range(20, 26):
        lab.add_host(number)
    assert lab.link("b", "balancer")[0] != index
    nothing_is_up(lab)
    lab.xdplb(*UP)
    del traffic


def renamed(lab: Lab, traffic: Traffic) -> None:
    lab.ip("b", "link set balancer name lb0")
    assert lab.status()["interfaces"][0]["name"] == "lb0"
    refused(lab.xdplb("down", "--iface", "balancer", check=False), 3, "no interface named")
    lab.xdplb("backend", "drain", BACKENDS[0], "--iface", "lb0")
    traffic.flows()
    lab.xdplb("up", "--iface", "lb0", *UP[3:])
    traffic.flows()
    assert lab.status()["interfaces"][0]["name"] == "lb0"
    lab.ip("b", "link set lb0 name balancer")


def down_and_up(lab: Lab, traffic: Traffic) -> None:
    number = lab.status()["program"]["id"]
    lab.ip("b", "link set balancer down")
    assert lab.status()["program"]["id"] == number
    refused(lab.xdplb(*UP, check=False), 3, "no route")
    lab.xdplb("backend", "drain", BACKENDS[0])
    lab.ip("b", "link set balancer up")
    traffic.flows()
    lab.xdplb("backend", "undrain", BACKENDS[0])
    managed = lab.ip("b", "neighbour show dev balancer nud all")
    assert managed.count("managed") == 2


def moved(lab: Lab, traffic: Traffic) -> None:
    home, there = lab.balancer, f"{lab.balancer}m"
    run("ip", "netns", "add", there)
    try:
        lab.ip("b", f"link set balancer netns {there}")
        nothing_is_up(lab)
        lab.balancer = there
        lab.xdplb("backend", "drain", BACKENDS[0])
        assert backends(lab)[BACKENDS[1]]["mac"] != "ff:ff:ff:ff:ff:ff"
        lab.ip("b", f"address add {SERVICE}/24 dev balancer")
        lab.ip("b", "link set balancer up")
        traffic.flows()
        lab.xdplb("down")
        assert world(lab)[1:] == ([], "None")
        lab.ip("b", f"link set balancer netns {home}")
        lab.balancer = home
        lab.ip("b", f"address add {SERVICE}/24 dev balancer")
        lab.ip("b", "link set balancer up")
        lab.xdplb(*UP)
    finally:
        lab.balancer = home
        run("ip", "netns", "delete", there)


def own_mac(lab: Lab, traffic: Traffic) -> None:
    """The kernel announces it, so that frames come to the new one: the program knows the old."""
    run(*lab.inside("b", "sysctl", "-qw", "net.ipv4.conf.balancer.arp_notify=1"))
    lab.ip("b", "link set balancer address 02:00:00:00:aa:01")
    before = lab.status()["verdicts"]["pass_not_ours"]
    wait_for(lambda: lab.status()["verdicts"]["pass_not_ours"] > before + CLIENTS)
    lab.xdplb(*UP)
    del traffic


def backend_mac_announced(lab: Lab, traffic: Traffic) -> None:
    """It is the clients' MAC, too, which a flow learns with its next time stamp, a second later."""
    run(*lab.inside("h", "sysctl", "-qw", "net.ipv4.conf.outside.arp_notify=1"))
    lab.ip("h", "link set outside address 02:00:00:00:bb:01")
    del traffic


def backend_mac_silent(lab: Lab, traffic: Traffic) -> None:
    lab.ip("h", "link set outside address 02:00:00:00:bb:02")
    del traffic


def neighbours_deleted(lab: Lab, traffic: Traffic) -> None:
    lab.ip("b", "neighbour flush dev balancer")
    traffic.flows()
    lab.xdplb("backend", "weight", BACKENDS[0], "1")
    managed = lab.ip("b", "neighbour show dev balancer nud all")
    assert managed.count("managed") == 2


def address_removed(lab: Lab, traffic: Traffic) -> None:
    lab.ip("b", f"address delete {SERVICE}/24 dev balancer")
    traffic.flows()
    refused(lab.xdplb(*UP, check=False), 3, "has no IPv4 address")
    lab.xdplb("backend", "drain", BACKENDS[0])
    lab.ip("b", f"address add {SERVICE}/24 dev balancer")


def detached_from_outside(lab: Lab, traffic: Traffic) -> None:
    lab.ip("b", "link set dev balancer xdp off")
    nothing_is_up(lab)
    assert world(lab)[1:] == ([], "None")
    wait_for(lambda: not programs_of(lab))
    lab.xdplb(*UP)
    del traffic


def replaced_from_outside(lab: Lab, traffic: Traffic) -> None:
    fd, _ = libbpf.load_program("stranger", PASS)
    with netns.inside(Path("/run/netns") / lab.balancer):
        libbpf.xdp_attach(lab.link("b", "balancer")[0], fd, libbpf.XDP_DRV_MODE)
    os.close(fd)
    there = attached(lab)
    nothing_is_up(lab)
    refused(lab.xdplb(*UP, check=False), 4, "stranger")
    assert attached(lab) == there
    lab.ip("b", "link set dev balancer xdp off")
    lab.xdplb(*UP)
    del traffic


def of_another_version(lab: Lab, traffic: Traffic) -> None:
    """Every command but ``down`` refuses; that is the way out."""
    number = lab.status()["program"]["id"]
    since, there = traffic.mark(), attached(lab)
    with_format(number, 99)
    for name in ("up", "status", "drain", "list"):
        refused(lab.xdplb(*EVERY[name], check=False), 4, "was started by xdplb")
    refused(lab.xdplb("backend", "add", THIRD, check=False), 4, "was started by xdplb")
    assert attached(lab) == there
    traffic.flows()
    assert traffic.count(since).is_unharmed
    lab.xdplb("down")
    assert world(lab)[1:] == ([], "None")
    lab.xdplb(*UP)


def with_format(number: int, wanted: int) -> None:
    """Write another format into the description of a balancer that runs."""
    maps = program.open_maps(number)
    size = libbpf.map_info(maps["meta"]).value_size
    text = json.loads((libbpf.lookup(maps["meta"], wire.U32.pack(0), size) or b"").rstrip(b"\0"))
    data = json.dumps({**text, "format": wanted}).encode().ljust(size, b"\0")
    libbpf.update(maps["meta"], wire.U32.pack(0), data)
    maps.close()


FAULTS: Final = (
    Fault("interface deleted and made anew", deleted, 3000, keeps_flows=False),
    Fault("interface renamed", renamed),
    Fault("interface down and up", down_and_up, 1500),
    Fault("interface moved to another namespace", moved, 4000, keeps_flows=False),
    Fault("own MAC changed and announced", own_mac, 3000),
    Fault("MAC of the backends changed and announced", backend_mac_announced, 2000),
    Fault("MAC of the backends changed in silence", backend_mac_silent, 20000),
    Fault("neighbours deleted", neighbours_deleted),
    Fault("service address removed", address_removed),
    Fault("detached from outside", detached_from_outside, 3000, keeps_flows=False, knew_gro=False),
    Fault("replaced from outside", replaced_from_outside, 3000, keeps_flows=False, knew_gro=False),
    Fault("records of another version", of_another_version, 3000, keeps_flows=False),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_costs_no_more_than_it_has_to(lab: Lab, traffic: Traffic, fault: Fault) -> None:
    before = world(lab)
    for setting in ("base_reachable_time_ms=500", "retrans_time_ms=50", "delay_first_probe_time=1"):
        run(*lab.inside("b", "sysctl", "-qw", f"net.ipv4.neigh.balancer.{setting}"))
    # How often a managed neighbour is asked for: 5 s, where a kernel before 6.0 does not say so.
    setting = "net.ipv4.neigh.balancer.interval_probe_time_ms=500"
    run(*lab.inside("b", "sysctl", "-qw", setting), check=False)
    lab.up()
    traffic.flows()
    since = traffic.mark()
    fault.inject(lab, traffic)
    traffic.flows()
    count = traffic.count(since)
    assert count.lost <= fault.budget, count
    assert count.duplicated == 0
    if fault.keeps_flows:
        assert (count.moved, count.renumbered) == (0, 0)
    ended(lab, before, knew_gro=fault.knew_gro)


def test_a_deleted_namespace_takes_everything_along(lab: Lab) -> None:
    home, there = lab.balancer, f"{lab.balancer}d"
    lab.up()
    run("ip", "netns", "add", there)
    try:
        lab.ip("b", f"link set balancer netns {there}")
        assert programs_of(lab)
    finally:
        run("ip", "netns", "delete", there)
    wait_for(lambda: not programs_of(lab))
    lab.balancer = home
    nothing_is_up(lab)
    here = unheld_maps()
    wait_for(lambda: not here & unheld_maps())


def test_a_full_table_refuses_new_flows_and_keeps_the_old(lab: Lab, traffic: Traffic) -> None:
    lab.up("--max-flows", "64", "--max-client-flows", "0")
    traffic.flows()
    since = traffic.mark()
    strangers = [lab.socket("172.11.0.22") for _ in range(200)]
    for sock in strangers:
        sock.sendto(b"\0\0\0\0\0\0", (SERVICE, PORT))
    traffic.flows()
    assert lab.status()["verdicts"]["drop_no_port"] > 0
    assert lab.status()["flows"]["active"] <= 64
    assert traffic.count(since).is_unharmed


# What an interface may be


@dataclass(frozen=True, slots=True)
class Kind:
    """An interface to balance on.

    Attributes:
        name: The row's name.
        make: The ``ip`` command that makes it, as ``it``.
        mode: How the program hangs on it; empty for not at all.
        says: A part of the refusal.
    """

    name: str
    make: str
    mode: str = ""
    says: str = ""


KINDS: Final = (
    Kind("macvlan", "link add link balancer name it type macvlan mode bridge", "generic"),
    Kind("bridge without ports", "link add it type bridge", "", "is reached through balancer"),
    Kind("tun", "tuntap add mode tun name it", "", "is not an Ethernet interface"),
    Kind("lo", "", "", "is reached through balancer"),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_interface_gets_a_mode_or_a_clear_refusal(lab: Lab, kind: Kind) -> None:
    if kind.make:
        lab.ip("b", kind.make)
    name = "it" if kind.make else "lo"
    words = ("up", "--iface", name, "--service", SERVICE, *UP[3:])
    if not kind.mode:
        refused(lab.xdplb(*words, check=False), 3, kind.says)
        assert not is_up(lab)
        return
    lab.ip("b", f"address delete {SERVICE}/24 dev balancer")
    lab.ip("b", f"address add {SERVICE}/24 dev it")
    lab.ip("b", "link set it up")
    refused(lab.xdplb(*words, "--mode", "native", check=False), 4, "native")
    lab.xdplb(*words)
    assert lab.status()["interfaces"][0]["mode"] == kind.mode
    with Traffic(lab) as traffic:
        traffic.flows()


# Commands that end too soon


@dataclass(frozen=True, slots=True)
class Killed:
    """A command that is killed, and what it leaves.

    Attributes:
        words: The command.
        within_s: The kill comes somewhere in this time.
        old: The backends before, and their states; none for nothing up.
        new: The same after the command.
        back: Makes the old state of the new one.
        done: The refusal of the command where there is nothing left to do.
    """

    words: tuple[str, ...]
    within_s: float
    old: Mapping[str, str]
    new: Mapping[str, str]
    back: tuple[str, ...]
    done: str = ""


ADD: Final = ("backend", "add", THIRD, "--weight", "60000")
REMOVE: Final = ("backend", "remove", THIRD)
TWO: Final = dict.fromkeys(BACKENDS, "up")
THREE: Final = {**TWO, THIRD: "up"}
KILLED: Final = {
    "up": Killed(UP, 0.7, {}, TWO, ("down",)),
    "up again": Killed((*UP, "--backend", THIRD), 0.7, TWO, THREE, UP),
    "down": Killed(("down",), 0.25, TWO, {}, UP),
    "add": Killed(ADD, 0.25, TWO, THREE, REMOVE, "is there already"),
    "remove": Killed(REMOVE, 0.25, THREE, TWO, ADD, "there is no backend"),
    "drain": Killed(
        EVERY["drain"],
        0.25,
        TWO,
        {**TWO, BACKENDS[0]: "drain"},
        ("backend", "undrain", BACKENDS[0]),
    ),
    "status": Killed(("status",), 0.15, TWO, TWO, ()),
}


def kill(lab: Lab, words: tuple[str, ...], after_s: float) -> None:
    """Start a command and kill it, unless it is faster."""
    child = subprocess.Popen(
        [str(XDPLB), "--netns", lab.balancer, *words],
        stdout=subprocess.DEVNULL,
        env={**os.environ, MARK: lab.balancer},
    )
    with suppress(subprocess.TimeoutExpired):
        child.wait(after_s)
    child.kill()
    child.wait()


def was_killed(lab: Lab, step: int, words: tuple[str, ...], calls: tuple[str, ...]) -> bool:
    """Run a command that is killed before one of its changes; whether it came so far."""
    done = forked().run(("--netns", lab.balancer, *words), step, calls)
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0


def states(lab: Lab) -> dict[str, str]:
    return {address: item["state"] for address, item in backends(lab).items()}


def begin(lab: Lab, row: Killed) -> None:
    """Make the state that the command is to change."""
    if row.old:
        lab.xdplb(*UP)
    if row.old == THREE:
        lab.xdplb(*ADD)


@pytest.mark.parametrize("name", KILLED)
def test_a_kill_at_any_moment_harms_no_flow(lab: Lab, traffic: Traffic, name: str) -> None:
    row, source, before = KILLED[name], random.Random(name), world(lab)
    begin(lab, row)
    for _ in range(ROUNDS):
        if row.old:
            traffic.flows()
        since = traffic.mark()
        kill(lab, row.words, source.uniform(0, row.within_s))
        now = states(lab)
        assert now in (row.old, row.new)
        if now:
            traffic.flows()
        if row.old and now:
            assert traffic.count(since).is_unharmed
        if now != row.old:
            lab.xdplb(*row.back)
    ended(lab, before, knew_gro={} not in (row.old, row.new))


WRITES: Final = ("bpf_map_update_elem", "bpf_map_update_batch", "bpf_map_delete_elem")
ATTACHES: Final = ("bpf_xdp_attach",)


@pytest.mark.parametrize("name", ["add", "remove", "drain"])
def test_a_kill_before_any_change_is_made_good_by_the_same_command(
    lab: Lab, traffic: Traffic, name: str
) -> None:
    row, before, server = KILLED[name], world(lab), lab.socket(THIRD, PORT)
    begin(lab, row)
    traffic.flows()
    since, step = traffic.mark(), 0
    while was_killed(lab, step, row.words, WRITES):
        step += 1
        assert states(lab) in (row.old, row.new)
        done = lab.xdplb(*row.words, check=False)
        assert done.returncode == 0 or (done.returncode == 2 and row.done in done.stderr)
        assert states(lab) == row.new
        if name == "add":
            exchange(newcomer(lab, step), server, b"a new flow", PORT)
        traffic.flows()
        lab.xdplb(*row.back)
    assert step > 3
    assert traffic.count(since).is_unharmed
    ended(lab, before)


def newcomer(lab: Lab, number: int) -> socket:
    """A client that has no flow yet."""
    return lab.socket("172.11.0.25", 30000 + number)


@pytest.mark.parametrize("name", ["up", "down"])
def test_a_kill_around_the_attachment_leaves_no_neighbour(
    lab: Lab, traffic: Traffic, name: str
) -> None:
    row, before, step, goes_on = KILLED[name], world(lab), 0, True
    begin(lab, row)
    while goes_on:
        if row.old:
            traffic.flows()
        since = traffic.mark()
        goes_on = was_killed(lab, step, row.words, ATTACHES)
        now = states(lab)
        assert now in (row.old, row.new)
        if now:
            traffic.flows()
        if row.old and now:
            assert traffic.count(since).is_unharmed
        if not row.old or not now:
            lab.xdplb("down")
            assert world(lab)[1:] == before[1:]
        if goes_on and now != row.old:
            lab.xdplb(*row.back)
        step += 1
    assert step > 1
    ended(lab, before, knew_gro=False)


# Commands at the same time


@dataclass(frozen=True, slots=True)
class Race:
    """Commands that start at once while a balancer runs.

    Attributes:
        commands: What they are.
        ends: The backends that may be there at the end; none for nothing up.
        keeps: No flow notices.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    ends: tuple[tuple[str, ...], ...]
    keeps: bool = True


MORE: Final = (*UP, "--backend", THIRD)
RACES: Final = (
    Race("two ups", (UP, MORE), (BACKENDS, (*BACKENDS, THIRD))),
    Race("up and down", (UP, ("down",)), (BACKENDS, ()), keeps=False),
    Race("add and up", (("backend", "add", THIRD), UP), (BACKENDS, (*BACKENDS, THIRD))),
    Race(
        "add and remove",
        (("backend", "add", THIRD), ("backend", "remove", BACKENDS[0])),
        (BACKENDS, (*BACKENDS, THIRD), BACKENDS[1:], (*BACKENDS[1:], THIRD)),
        keeps=False,
    ),
    Race("status and up", (*[("status",)] * 3, UP), (BACKENDS,)),
    Race("status and down", (*[("status",)] * 3, ("down",)), ((),), keeps=False),
)


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
def test_commands_at_once_end_in_a_state_that_one_of_them_wanted(
    lab: Lab, traffic: Traffic, race: Race
) -> None:
    before = world(lab)
    lab.up()
    traffic.flows()
    since = traffic.mark()
    children = [
        subprocess.Popen(
            [str(XDPLB), "--netns", lab.balancer, *words],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )
        for words in race.commands
    ]  # fmt: skip
    for words, child in zip(race.commands, children, strict=True):
        errors = child.communicate(timeout=30)[1]
        assert "Traceback" not in errors
        if words == ("status",):
            assert child.returncode == 0, errors
        elif child.returncode:
            assert (child.returncode, "another xdplb" in errors) == (4, True) or (
                child.returncode == 3 and "no balancer is up" in errors
            ), errors
    assert tuple(sorted(states(lab))) in race.ends
    if race.keeps:
        traffic.flows()
        assert traffic.count(since).is_unharmed
    ended(lab, before)
