"""``xdplb health`` and ``xdplb down --drain`` with real interfaces, traffic and signals."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from lab import XDPLB, Lab, run, wait_for
from steady import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG = logging.getLogger(__name__)
BACKENDS = ("172.11.0.20", "172.11.0.21")
HEALTHY = "healthy  balancer: 1 of 1 service"
NOTHING = "unhealthy  no balancer is up"
DRAINING = "it is draining: 'xdplb down --drain' is to take it down"
AT_LAST = {signal.SIGINT: 0, signal.SIGTERM: 143}


class Watch:
    """``xdplb health --watch``, and what it has said."""

    def __init__(self, lab: Lab, path: Path, *options: str) -> None:
        self._path = path
        command = lab.inside("b", f"{XDPLB}", "health", "--watch", *options)
        with path.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)

    @property
    def lines(self) -> list[str]:
        """All whole lines so far."""
        return [line[:-1] for line in self._path.read_text().splitlines(keepends=True)]

    def says(self, line: str) -> None:
        """Return when that is the last line."""
        wait_for(lambda: self.lines[-1:] == [line])

    def used_s(self) -> float:
        """Seconds of a processor that it has used."""
        fields = run("cat", f"/proc/{self.process.pid}/stat").stdout.split(") ")[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@contextmanager
def watching(lab: Lab, path: Path, *options: str) -> Iterator[Watch]:
    made = Watch(lab, path / "watch", *options)
    try:
        yield made
    finally:
        made.process.terminate()
        made.process.communicate(timeout=20)


def health(lab: Lab, *words: str) -> tuple[int, str]:
    done = lab.xdplb("health", *words, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.removesuffix("\n")


def test_health_says_what_is_so(lab: Lab) -> None:
    assert health(lab) == (3, NOTHING)
    lab.up("--port", "53", "--protocol", "udp", "--protocol", "tcp")
    assert health(lab) == (0, "healthy  balancer: 2 of 2 services")
    lab.ip("b", "address delete 172.11.0.1/24 dev balancer")
    assert health(lab)[0] == 0, "the address may be moved here because of the answer"
    lab.ip("h", "link set outside down")
    gone = (3, "unhealthy  balancer: 2 of 2 services; balancer has no carrier")
    wait_for(lambda: health(lab) == gone)


def test_a_server_that_never_answered_for_its_mac_is_none(lab: Lab) -> None:
    lab.up(backends=("172.11.0.99",))
    reason = "172.11.0.1 udp: nobody answers for 172.11.0.99, the way to its backends"
    assert health(lab) == (3, f"unhealthy  balancer: 0 of 1 service; {reason}")
    lab.add_host(99)
    wait_for(lambda: health(lab) == (0, HEALTHY), 40)


def test_a_watch_survives_all_that_becomes_of_a_balancer(lab: Lab, tmp_path: Path) -> None:
    with watching(lab, tmp_path, "--interval", "0.2") as watch:
        watch.says(NOTHING)
        lab.up()
        watch.says(HEALTHY)
        before = len(watch.lines)
        lab.up("--hash", "src")
        lab.xdplb("backend", "drain", BACKENDS[0])
        assert len(watch.lines) == before, "replaced, and healthy all the time"
        lab.xdplb("backend", "drain", BACKENDS[1])
        reason = "172.11.0.1 udp: no backend takes new flows"
        watch.says(f"unhealthy  balancer: 0 of 1 service; {reason}")
        lab.xdplb("backend", "undrain", BACKENDS[1])
        watch.says(HEALTHY)
        lab.ip("b", "link set balancer down")
        watch.says("unhealthy  balancer: 1 of 1 service; balancer is down")
        lab.ip("b", "link set balancer up")
        watch.says(HEALTHY)
        lab.ip("b", "link delete balancer")
        watch.says(NOTHING)
        lab.ip("b", f"link add balancer type veth peer name outside netns {lab.hosts}")
        lab.ip("b", "address add 172.11.0.1/24 dev balancer")
        lab.ip("b", "link set balancer up")
        lab.ip_batch(
            "h", "link set outside up", *(f"address add {one}/24 dev outside" for one in BACKENDS)
        )
        lab.up()
        watch.says(HEALTHY)
        lab.xdplb("down")
        watch.says(NOTHING)
        assert watch.process.poll() is None


def test_what_becomes_of_an_interface_is_seen_at_once(lab: Lab, tmp_path: Path) -> None:
    """Not when it is time for the next look, which is in an hour."""
    lab.up()
    with watching(lab, tmp_path, "--interval", "3600") as watch:
        watch.says(HEALTHY)
        lab.ip("b", "link set balancer down")
        watch.says("unhealthy  balancer: 1 of 1 service; balancer is down")
        lab.ip("b", "link set balancer up")
        watch.says(HEALTHY)
        lab.xdplb("down")
        watch.says(NOTHING)
        lab.up()
        watch.says(HEALTHY)


def test_a_watch_of_two_interfaces_does_not_stumble_over_a_change(lab: Lab, tmp_path: Path) -> None:
    """A program is exchanged on one interface after the other, and seen in between."""
    lab.second_network()
    up = ("up", "--iface", "balancer", "--iface", "second", "--backend", "172.12.0.20")
    lab.xdplb(*up)
    with watching(lab, tmp_path, "--interval", "0.1") as watch:
        watch.says("healthy  balancer, second: 1 of 1 service")
        for kind in ("src", "src-dst"):
            lab.xdplb(*up, "--hash", kind)
        trace = lab.xdplb("trace", "--seconds", "0.3")
        assert trace.returncode == 0
        assert watch.lines == ["healthy  balancer, second: 1 of 1 service"]
        run(*lab.inside("b", "ip", "link", "set", "second", "xdp", "off"))
        watch.says(
            "unhealthy  balancer, second: 1 of 1 service; second does not carry the balancer's "
            "program any more"
        )


def test_for_programs_each_line_is_an_object(lab: Lab, tmp_path: Path) -> None:
    with watching(lab, tmp_path, "--json") as watch:
        wait_for(lambda: len(watch.lines) == 1)
        lab.up()
        wait_for(lambda: len(watch.lines) == 2)
        first, second = map(json.loads, watch.lines)
        assert (first["healthy"], second["healthy"]) == (False, True)
        assert first["time"] < second["time"]


@pytest.mark.parametrize("number", AT_LAST)
def test_a_signal_ends_a_watch(lab: Lab, tmp_path: Path, number: signal.Signals) -> None:
    with watching(lab, tmp_path) as watch:
        watch.says(NOTHING)
        watch.process.send_signal(number)
        assert watch.process.wait(20) == AT_LAST[number]
        assert watch.process.communicate()[1] == ""


def test_a_watch_that_nobody_reads_ends_though_nothing_changes(lab: Lab) -> None:
    command = lab.inside("b", f"{XDPLB}", "health", "--watch", "--interval", "3600")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        assert watch.stdout.readline().decode() == f"{NOTHING}\n"
        watch.stdout.close()
        assert watch.wait(20) == 1
        assert watch.stderr.read() == b""


@pytest.mark.parametrize("words", [(), ("--watch",)])
def test_without_privileges_there_is_no_verdict(lab: Lab, words: tuple[str, ...]) -> None:
    limited = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = run(*lab.inside("b", *limited, f"{XDPLB}", "health", *words), check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no privilege to use BPF" in done.stderr


@pytest.mark.alone
def test_a_watch_takes_little(lab: Lab, tmp_path: Path) -> None:
    """What it takes is logged; nothing is decided by that."""
    lab.up()
    with watching(lab, tmp_path) as watch:
        watch.says(HEALTHY)
        before = watch.used_s()
        with pytest.raises(subprocess.TimeoutExpired):
            watch.process.wait(5)
        LOG.info("a watch takes %.2f %% of a processor", (watch.used_s() - before) * 100 / 5)


# Down without loss


def down(lab: Lab, *words: str) -> subprocess.Popen[str]:
    """Begin to drain; it is waited for by the caller."""
    return subprocess.Popen(
        lab.inside("b", f"{XDPLB}", "down", "--drain", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_draining(lab: Lab) -> bool:
    return bool(lab.status()["draining"])


def test_while_requests_come_all_are_answered_and_then_it_is_down(lab: Lab, tmp_path: Path) -> None:
    lab.up("--port", "53")
    with watching(lab, tmp_path) as watch:
        watch.says(HEALTHY)
        with Traffic(lab) as traffic:
            traffic.flows()
            ends = down(lab, "--idle", "1")
            watch.says(f"unhealthy  balancer: 1 of 1 service; {DRAINING}")
            since = traffic.mark()
            traffic.flows()
            assert traffic.count(since).is_unharmed
            assert ends.poll() is None
            (warning,) = [it for it in lab.status()["warnings"] if "draining" in it["what"]]
            assert "'xdplb up'" in warning["hint"]
        out, err = ends.communicate(timeout=20)
        assert (ends.returncode, err) == (0, "")
        assert out.startswith("drains: balancer\ndown: balancer (program ")
        watch.says(NOTHING)
        assert sum(line.startswith("healthy") for line in watch.lines) == 1


def test_after_the_timeout_it_is_down_although_requests_come(lab: Lab) -> None:
    lab.up("--port", "53")
    with Traffic(lab) as traffic:
        traffic.flows()
        ends = down(lab, "--idle", "1", "--timeout", "2", "--json")
        out, err = ends.communicate(timeout=20)
    assert (ends.returncode, err) == (0, "")
    (found,) = json.loads(out)["down"]
    assert found["drained"]["idle"] is False
    assert found["drained"]["requests"] > 0
    assert health(lab) == (3, NOTHING)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_a_signal_undoes_the_draining(lab: Lab, number: signal.Signals, code: int) -> None:
    lab.up()
    program = lab.status()["program"]
    ends = down(lab)
    wait_for(lambda: is_draining(lab))
    ends.send_signal(number)
    ends.communicate(timeout=20)
    assert ends.returncode == code
    assert health(lab) == (0, HEALTHY)
    assert lab.status()["program"] == program


def test_one_that_was_killed_leaves_it_draining_until_up_or_down(lab: Lab) -> None:
    lab.up()
    ends = down(lab)
    wait_for(lambda: is_draining(lab))
    ends.kill()
    ends.communicate(timeout=20)
    assert health(lab)[0] == 3
    lab.up()
    assert health(lab) == (0, HEALTHY)


def test_up_meanwhile_keeps_it_up(lab: Lab) -> None:
    lab.up()
    ends = down(lab)
    wait_for(lambda: is_draining(lab))
    lab.up()
    _, err = ends.communicate(timeout=20)
    assert ends.returncode == 4
    assert err.startswith("xdplb: balancer is not draining any more: 'xdplb up' or 'xdplb apply' ")
    assert health(lab) == (0, HEALTHY)


def test_only_the_balancer_on_the_interface_drains(lab: Lab) -> None:
    lab.second_network()
    lab.up()
    lab.xdplb("up", "--iface", "second", "--backend", "172.12.0.20")
    done = lab.xdplb("down", "--drain", "--iface", "second", "--idle", "0.5")
    assert "down: second (program" in done.stdout
    assert health(lab) == (0, HEALTHY)
