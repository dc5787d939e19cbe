"""Programs that people run, on both sides of one balancer for both IP versions."""

from __future__ import annotations

import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from lab import SERVICE, SERVICE6, Lab, process, run, wait_for
from unpacked import unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serve = Callable[..., object]
    Counted = Callable[[], dict[str, int]]

DNS, NTP, SYSLOG, QUIC, SIP = 53, 123, 514, 4433, 5060
PORTS = (DNS, NTP, SYSLOG, QUIC, SIP)
QUIC_PEER = Path(__file__).parents[1] / "quic_peer.py"


class Way(NamedTuple):
    """From a client by the service to two backends."""

    version: int
    client: str
    service: str
    backends: tuple[str, str]

    def literal(self, address: str) -> str:
        """As it is written with a port behind it."""
        return address if self.version == 4 else f"[{address}]"


WAYS = {
    4: Way(4, "172.11.0.22", SERVICE, ("172.11.0.20", "172.11.0.21")),
    6: Way(6, "2001:db8::22", SERVICE6, ("2001:db8::20", "2001:db8::21")),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab((22, 20, 21)) as built:
        words = [word for port in PORTS for word in ("--port", f"{port}")]
        for way in WAYS.values():
            words += ["--service", way.service]
            built.ip("h", f"route add {way.service} dev outside src {way.client}")
        built.up(
            *words,
            *("--protocol", "udp", "--protocol", "tcp", "--hash", "5-tuple"),
            backends=tuple(address for way in WAYS.values() for address in way.backends),
        )
        yield built


@pytest.fixture(params=WAYS, ids=["ipv4", "ipv6"])
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def counted(lab: Lab) -> Iterator[Callable[[], dict[str, int]]]:
    """What was counted since the test began; in the end nothing may have been dropped."""
    before = lab.status()["verdicts"]

    def since() -> dict[str, int]:
        return {name: n - before[name] for name, n in lab.status()["verdicts"].items()}

    yield since
    assert not any(n for name, n in since().items() if name.startswith("drop"))
    assert lab.bad_checksums() == lab.counter6("Udp6InCsumErrors") == 0
    assert lab.counter("Tcp", "InCsumErrors") == 0


@pytest.fixture
def serve(lab: Lab) -> Iterator[Serve]:
    """Start a server among the hosts; it is ended with the test."""
    with ExitStack() as stack:
        yield lambda *command: process(stack, *lab.inside("h", *command))


def await_port(lab: Lab, way: Way, port: int, kind: str = "udp", many: int = 2) -> None:
    """Return when so many servers have opened ``port``."""
    table = f"/proc/net/{kind}" + ("" if way.version == 4 else "6")
    local = re.compile(rf"^ *\d+: [0-9A-F]+:{port:04X} ", re.MULTILINE)
    wait_for(lambda: len(local.findall(run(*lab.inside("h", "cat", table)).stdout)) >= many)


def test_dnsperf_loses_no_question(
    lab: Lab, way: Way, serve: Serve, counted: Counted, tmp_path: Path
) -> None:
    for number, backend in enumerate(way.backends):
        serve(
            "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
            "--bind-interfaces", f"--listen-address={backend}", "--user=root", "--cache-size=0",
            f"--address=/name.test/192.0.2.{number + 1}", "--no-ping",
        )  # fmt: skip
    await_port(lab, way, DNS)
    questions = tmp_path / "questions"
    questions.write_text("name.test A\n" * 5000)
    words = ("-s", way.service, "-a", way.client, "-c", "20", "-q", "40")
    done = run(*lab.inside("h", "dnsperf", *words, "-n", "1", "-d", f"{questions}"))
    assert re.search(r"Queries lost: +0 ", done.stdout), done.stdout
    assert re.search(r"NOERROR 5000 ", done.stdout), done.stdout
    assert counted()["forward"] == counted()["return"] == 5000


def test_chrony_asks_the_time(
    lab: Lab, way: Way, serve: Serve, counted: Counted, tmp_path: Path
) -> None:
    """Nobody here can set the clock: neither is it asked for (-x), nor allowed."""
    program = f"{unpacked('chrony', 'chrony')}/usr/sbin/chronyd"
    words = ("setpriv", "--bounding-set=-sys_time", program, "-x", "-U", "-u", "root")
    for number, backend in enumerate(way.backends):
        settings = ("local stratum 5", "allow all", f"bindaddress {backend}", "cmdport 0")
        serve(*words, "-d", *settings, f"pidfile {tmp_path}/{number}.pid")
    await_port(lab, way, NTP)
    asked = f"server {way.service} iburst maxsamples 1"
    done = run(
        *lab.inside("h", *words, "-Q", "-t", "5", asked, "cmdport 0", f"pidfile {tmp_path}/pid")
    )
    assert "System clock wrong by" in done.stderr + done.stdout
    assert "(ignored)" in done.stderr + done.stdout
    assert counted()["forward"] == counted()["return"] >= 1


def test_sipp_makes_its_calls(
    lab: Lab, way: Way, serve: Serve, counted: Counted, tmp_path: Path
) -> None:
    for backend in way.backends:
        place = ("-i", way.literal(backend), "-p", f"{SIP}")
        serve("sipp", "-sn", "uas", "-nostdin", *place)
    await_port(lab, way, SIP)
    calls = ("-i", way.literal(way.client), "-m", "300", "-r", "1000", "-timeout", "20")
    target = f"{way.literal(way.service)}:{SIP}"
    run(*lab.inside("h", "sipp", "-sn", "uac", "-nostdin", *calls, target), cwd=tmp_path)
    assert counted()["forward"] >= 3 * 300
    assert counted()["return"] >= 3 * 300


SYSLOG_SETTINGS = """
global(workDirectory="{place}")
module(load="imudp")
input(type="imudp" address="{backends[0]}" port="514")
input(type="imudp" address="{backends[1]}" port="514")
action(type="omfile" file="{place}/log")
"""


def test_logger_is_heard_though_nobody_answers(
    lab: Lab, way: Way, serve: Serve, counted: Counted, tmp_path: Path
) -> None:
    root = unpacked("rsyslog", "rsyslog", "libestr0", "libfastjson4")
    (libraries,) = root.glob("usr/lib/*-linux-gnu")
    settings, log = tmp_path / "settings", tmp_path / "log"
    settings.write_text(SYSLOG_SETTINGS.format(place=tmp_path, backends=way.backends))
    modules = ("-M", f"{libraries}/rsyslog")
    words = (f"{root}/usr/sbin/rsyslogd", "-n", "-f", f"{settings}", "-i", f"{tmp_path}/pid")
    serve("env", f"LD_LIBRARY_PATH={libraries}", *words, *modules)
    await_port(lab, way, SYSLOG)

    def heard() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split("test ")[-1] for line in lines]

    address = ("--udp", "--server", way.service, "--port", f"{SYSLOG}")
    for round_ in range(8):  # of fewer than a socket takes while its owner sleeps
        text = "\n".join(f"message {round_} {number}" for number in range(50))
        run(*lab.inside("h", "logger", *address, "--tag", "test"), input=text)
        wait_for(lambda round_=round_: len(heard()) == 50 * (round_ + 1))  # type: ignore[misc]
    assert set(heard()) == {f"message {item} {number}" for item in range(8) for number in range(50)}
    assert (counted()["forward"], counted()["return"]) == (400, 0)


def test_quic_carries_a_megabyte_there_and_back(
    lab: Lab, way: Way, serve: Serve, counted: Counted, tmp_path: Path
) -> None:
    certificate, key = f"{tmp_path}/certificate", f"{tmp_path}/key"
    run(
        "openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=service.test",
        "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", key, "-out", certificate,
    )  # fmt: skip
    python = (sys.executable, f"{QUIC_PEER}")
    for backend in way.backends:
        serve(*python, "serve", backend, f"{QUIC}", certificate, key)
    await_port(lab, way, QUIC)
    run(*lab.inside("h", *python, "ask", way.service, f"{QUIC}", f"{1 << 20}"))
    assert counted()["forward"] > (1 << 20) // 1400
    assert counted()["return"] > (1 << 20) // 1400
