"""``doctor`` where things are broken for real: it names the cause, and its commands mend it."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from lab import SERVICE, XDPLB, Lab, exchange, run, wait_for

from xdplb.balancer import Balancer
from xdplb.doctor import examine, mend, to_json
from xdplb.doctor.evidence import Trial
from xdplb.kernel import libbpf, netns
from xdplb.kernel.claims import Claims
from xdplb.kernel.examiner import Examiner
from xdplb.kernel.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


PASS = b"\xb7\x00\x00\x00\x02\x00\x00\x00\x95" + bytes(7)  # r0 = XDP_PASS; exit
BACKEND, ABSENT, LEFT = "172.11.0.20", "172.11.0.99", "172.11.0.77"


class Quick(Examiner):
    """The real one, but for the program, which one test compiles."""

    def trial(self) -> Trial:
        return Trial()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab((20, 22)) as built:
        yield built


@contextmanager
def examiner(lab: Lab, where: str = "b") -> Iterator[Quick]:
    with (
        netns.inside(lab.path(where)),
        Machine() as machine,
        Quick(machine, Balancer(machine).status) as made,
    ):
        yield made


def wrong(lab: Lab, *interfaces: str) -> dict[tuple[str, str], dict[str, Any]]:
    """What ``doctor --json`` would say is wrong with what the test has made, by scope and name."""
    with examiner(lab) as asked:
        found = examine(asked, interfaces)
    checks = json.loads(to_json(found, (), lab.balancer))["checks"]
    return {(it["scope"], it["name"]): it for it in checks if is_wrong(it)}


def is_wrong(check: dict[str, Any]) -> bool:
    """Whether something is wrong that does not depend on the machine that the tests run on."""
    is_made = check["scope"] != "machine" or check["name"] in {"firewall", "leftovers"}
    return is_made and check["result"] != "pass"


def results(lab: Lab, *interfaces: str) -> dict[tuple[str, str], str]:
    return {place: item["result"] for place, item in wrong(lab, *interfaces).items()}


def typed(command: str) -> None:
    """Run a command as a person would."""
    run(*shlex.split(command))


def inside(lab: Lab, where: str, *commands: str) -> None:
    """Break something."""
    for command in commands:
        run(*lab.inside(where, *shlex.split(command)))


def foreign(lab: Lab, interface: str) -> None:
    """Somebody's program on an interface of the balancer's."""
    fd, _ = libbpf.load_program("stranger", PASS)
    with netns.inside(lab.path("b")):
        libbpf.xdp_attach(lab.link("b", interface)[0], fd, libbpf.XDP_DRV_MODE)
    os.close(fd)


OF_INTERFACE = "interface balancer"
OF_BALANCER = "balancer balancer"


def test_the_command_tells_whether_up_would_work(lab: Lab, tmp_path: Path) -> None:
    done = lab.xdplb("doctor", "--iface", "balancer")
    assert "0 failed" in done.stdout
    assert "ok    program           compiles, and the kernel takes it" in done.stdout
    assert "native mode is possible" in done.stdout
    (tmp_path / "bcc.py").write_text("class Lattice: pass")
    words = ("--netns", lab.balancer, "doctor", "--json")
    done = run("env", f"PYTHONPATH={tmp_path}", f"{XDPLB}", *words, check=False)
    assert done.returncode == 3
    checks = {item["name"]: item for item in json.loads(done.stdout)["checks"]}
    assert "is another package of that name" in checks["bcc"]["reason"]
    assert (checks["bcc"]["result"], checks["program"]["result"]) == ("fail", "fail")


def test_the_mode_is_foretold_with_its_reason_and_its_command(lab: Lab) -> None:
    inside(lab, "h", "ethtool -L outside tx 2")
    (item,) = wrong(lab, "balancer").values()
    assert "generic, which is slower: the peer outside sends by 2 queues" in item["reason"]
    done = lab.xdplb("up", "--iface", "balancer", "--backend", BACKEND)
    assert "using generic mode" in done.stderr
    assert results(lab) == {(OF_INTERFACE, "mode"): "warn"}
    lab.xdplb("down")
    typed(item["fix"]["command"])
    assert wrong(lab, "balancer") == {}


def test_what_is_broken_before_up_is_named(lab: Lab) -> None:
    foreign(lab, "balancer")
    inside(lab, "b", "ip link add br0 type bridge", "ip link set balancer master br0")
    inside(lab, "h", "ip link set outside mtu 1400", "ip link set outside down")
    found = wrong(lab, "balancer", "br0", "nowhere")
    assert {place: item["result"] for place, item in found.items()} == {
        (OF_INTERFACE, "link"): "fail",
        (OF_INTERFACE, "program"): "fail",
        (OF_INTERFACE, "mtu"): "fail",
        ("interface br0", "link"): "fail",
        ("interface br0", "mode"): "warn",
        ("interface br0", "address"): "warn",
        ("interface nowhere", "link"): "fail",
    }
    assert "stranger" in found[OF_INTERFACE, "program"]["reason"]
    for name in ("link", "program", "mtu"):
        typed(found[OF_INTERFACE, name]["fix"]["command"])
    (item,) = wrong(lab, "balancer").values()
    assert "a part of br0" in item["reason"]
    typed(item["fix"]["command"])
    assert wrong(lab, "balancer") == {}


def test_a_wrong_peer_is_named_and_mended(lab: Lab) -> None:
    lab.up(backends=(BACKEND,))
    server, client = lab.socket(BACKEND, 53), lab.socket("172.11.0.22")
    exchange(client, server, b"well", 53)
    inside(lab, "h", "ethtool -K outside gro off")
    found = wrong(lab)
    assert [*found] == [(OF_INTERFACE, "peer")]
    client.sendto(b"lost", (SERVICE, 53))
    server.settimeout(0.2)
    with pytest.raises(TimeoutError):
        server.recvfrom(10)
    server.settimeout(3)
    done = lab.xdplb("doctor", "--fix", "--json")
    answer = json.loads(done.stdout)
    (fixed,) = answer["fixed"]
    assert (fixed["name"], fixed["problem"]) == ("peer", None)
    assert not any(is_wrong(item) for item in answer["checks"])
    exchange(client, server, b"well again", 53)
    typed(fixed["fix"]["undo"])
    assert [*wrong(lab)] == [(OF_INTERFACE, "peer")]
    typed(fixed["fix"]["command"])
    assert wrong(lab) == {}


def test_what_has_happened_to_a_balancer_is_named(lab: Lab) -> None:
    lab.second_network()
    lab.up("--iface", "second", "--mode", "generic", "--port", "53", backends=("172.12.0.20",))
    inside(lab, "s", "ethtool -K servers tx-udp-segmentation on")
    assert results(lab)["interface second", "peer"] == "fail"
    with examiner(lab) as asked:
        mend(asked, examine(asked))
    assert ("interface second", "peer") not in results(lab)
    inside(lab, "b", "ip link set second xdpgeneric off", "ip link set second mtu 1400")
    found = results(lab)
    assert found["interface second", "program"] == "fail"
    assert found["interface second", "mtu"] == "fail"
    assert found["balancer balancer,second", "widths"] == "warn"
    foreign(lab, "second")
    assert "stranger" in wrong(lab)["interface second", "program"]["reason"]
    inside(lab, "b", "ip link delete second")
    assert results(lab)["balancer balancer,second", "interfaces"] == "fail"
    lab.ip("b", "link set balancer netns", lab.path("s").name)
    with examiner(lab, "s") as asked:
        (moved,) = (item for item in examine(asked) if item.name == "interfaces")
    assert "was moved here from another network namespace" in moved.opinion.reason


def test_a_dead_backend_and_one_that_is_not_there_are_named(lab: Lab) -> None:
    lab.up("--hash", "5-tuple", backends=(BACKEND, ABSENT))
    client = lab.socket("172.11.0.22")

    def verdicts() -> dict[str, int]:
        for port in range(1, 30):
            client.sendto(b"anybody?", (SERVICE, port))
        found: dict[str, int] = lab.status()["verdicts"]
        return found

    wait_for(lambda: verdicts()["return_error"] and verdicts()["drop_unresolved"])
    found = wrong(lab)
    assert {place: item["result"] for place, item in found.items()} == {
        (f"backend {ABSENT}", "next-hop"): "fail",
        (f"backend {BACKEND}", "answers"): "warn",
        (OF_BALANCER, "drops"): "warn",
    }
    assert "does not answer" in found[f"backend {ABSENT}", "next-hop"]["reason"]
    assert "nobody is at its port" in found[f"backend {BACKEND}", "answers"]["reason"]
    assert "times drop_unresolved" in found[OF_BALANCER, "drops"]["reason"]


def test_next_hops_that_nobody_keeps_and_leftovers_are_mended(lab: Lab) -> None:
    """Also one that somebody else had the kernel keep when the balancer was started."""
    inside(lab, "b", f"ip neighbour add {BACKEND} dev balancer managed")
    lab.up(backends=(BACKEND,))
    wait_for(lambda: lab.status()["services"][0]["backends"][0]["mac"])
    (before,) = lab.ip("b", "neighbour show").splitlines()
    left = f"ip neighbour replace {LEFT} dev balancer managed protocol 120"
    inside(lab, "b", f"ip neighbour del {BACKEND} dev balancer", left)
    found = wrong(lab)
    assert {place: item["result"] for place, item in found.items()} == {
        ("machine", "leftovers"): "warn",
        (f"backend {BACKEND}", "next-hop"): "fail",
    }
    with examiner(lab) as asked:
        done = mend(asked, examine(asked))
    assert [item.finding.name for item in done] == ["leftovers", "next-hop"]
    assert wrong(lab) == {}
    (after,) = lab.ip("b", "neighbour show").splitlines()
    assert after.split()[:6] == before.split()[:6]
    lladdr = after.split()[4]
    inside(
        lab,
        "b",
        f"ip neighbour del {BACKEND} dev balancer",
        f"ip neighbour add {BACKEND} lladdr {lladdr} dev balancer nud stale",
    )
    (item,) = wrong(lab).values()
    assert (item["name"], item["result"]) == ("next-hop", "warn")
    typed(item["fix"]["command"])
    wait_for(lambda: not wrong(lab))
    typed(item["fix"]["undo"])
    assert results(lab) == {(f"backend {BACKEND}", "next-hop"): "fail"}
    typed(item["fix"]["command"])
    lab.xdplb("down")
    assert "managed" not in lab.ip("b", "neighbour show")


def test_what_the_host_does_to_a_balancer_is_named(lab: Lab) -> None:
    lab.up(backends=(BACKEND,))
    lab.socket(SERVICE, 5353, where="b")
    inside(
        lab,
        "b",
        "sysctl -qw net.ipv4.conf.balancer.arp_ignore=8",
        "sysctl -qw net.ipv4.ip_local_port_range='20000 60999'",
        "nft add table inet wall",
        "nft add chain inet wall arrives '{ type filter hook input priority 0; policy drop; }'",
        f"ip route add {BACKEND}/32 dev balancer mtu 1400",
    )
    found = wrong(lab)
    assert {place: item["result"] for place, item in found.items()} == {
        ("machine", "firewall"): "warn",
        (OF_BALANCER, "address"): "fail",
        (OF_BALANCER, "nat-ports"): "warn",
        (OF_BALANCER, "sockets"): "warn",
        (f"backend {BACKEND}", "route"): "warn",
    }
    assert "inet wall arrives" in found["machine", "firewall"]["reason"]
    assert "udp 5353" in found[OF_BALANCER, "sockets"]["reason"]
    assert "takes 1400 bytes" in found[f"backend {BACKEND}", "route"]["reason"]
    for name in ("address", "nat-ports"):
        typed(found[OF_BALANCER, name]["fix"]["command"])
    left = {name for _, name in wrong(lab)}
    assert left == {"firewall", "sockets", "route"}


def test_an_address_or_a_mac_address_that_is_no_longer_the_balancers_is_named(lab: Lab) -> None:
    lab.up(backends=(BACKEND,))
    old = lab.link("b", "balancer")[1]
    inside(
        lab,
        "b",
        "ip address add 172.11.0.2/24 dev balancer",
        "sysctl -qw net.ipv4.conf.balancer.promote_secondaries=1",
        f"ip address del {SERVICE}/24 dev balancer",
    )
    place = (OF_BALANCER, "address")
    gone = wrong(lab)[place]
    assert (gone["result"], "nobody answers for it" in gone["reason"]) == ("fail", True)
    inside(lab, "h", f"ip address add {SERVICE}/24 dev outside")
    taken = wrong(lab)[place]
    assert (taken["result"], "another host has" in taken["reason"]) == ("warn", True)
    typed(gone["fix"]["command"])
    assert "another host has 172.11.0.1, too" in wrong(lab)[place]["reason"]
    inside(lab, "h", f"ip address del {SERVICE}/24 dev outside")
    inside(lab, "b", "ip link set balancer address 02:00:00:00:00:55")
    moved = wrong(lab)
    assert moved[OF_INTERFACE, "mac"]["result"] == "fail"
    assert place not in moved
    typed(moved[OF_INTERFACE, "mac"]["fix"]["command"])
    assert lab.link("b", "balancer")[1] == old


@pytest.mark.parametrize(
    ("gro", "says"),
    [("on", "out of reach, but takes what is sent to it"), ("off", "and its GRO is off")],
)
def test_a_peer_out_of_reach_is_judged_by_what_the_kernel_says_of_it(
    lab: Lab, gro: str, says: str
) -> None:
    """A namespace that only a descriptor holds has no path to enter it by."""
    inside(lab, "h", f"ethtool -K outside gro {gro}")
    with lab.path("h").open():
        run("ip", "netns", "delete", lab.hosts)
        try:
            with examiner(lab) as asked:
                found = examine(asked, ("balancer",))
        finally:
            run("ip", "netns", "add", lab.hosts)  # for the lab to remove
    (seen,) = (item for item in found if item.name == "peer")
    assert says in seen.opinion.reason


def test_an_agent_is_known_by_the_interfaces_that_it_has_claimed(lab: Lab) -> None:
    with examiner(lab) as asked:
        assert asked.agents() == frozenset()
        with Claims() as claims:
            claims.take(("balancer", "second"))
            assert asked.agents() == {"balancer"}  # the other one is not here


def test_whoever_may_nothing_is_told_so(lab: Lab) -> None:
    nobody = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = run(*lab.inside("b", *nobody, f"{XDPLB}", "doctor", "--iface", "balancer"), check=False)
    assert done.returncode == 3
    assert "FAIL  privileges" in done.stdout
    assert "cannot be looked at: no privilege" in done.stdout
    assert "Traceback" not in done.stderr
