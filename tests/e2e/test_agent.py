"""``xdplb run`` as a process: what it takes out and brings back, follows, and leaves alone."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket as sockets
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, XDPLB, Lab, wait_for

import xdplb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket

A, B, C = "172.11.0.20", "172.11.0.21", "172.11.0.24"
FALL, INTERVAL_S, TIMEOUT_S = 2, 0.2, 0.1
CHECK = (
    f'check = "udp", send = "ping", expect = "172.11", interval = {INTERVAL_S}, '
    f"timeout = {TIMEOUT_S}, jitter = 0"
)
QUICK = f"health = {{ {CHECK}, rise = 2, fall = {FALL} }}"
WITHIN_S = 10.0


def service(*more: str, backends: tuple[str, ...] = (A, B), head: str = "") -> str:
    """A file with one service at port 53."""
    listed = ", ".join(
        item if item.startswith("{") else f'{{ address = "{item}" }}' for item in backends
    )
    lines = [f'address = "{SERVICE}"', "ports = 53", 'hash = "5-tuple"', *more]
    lines.append(f"backend = [{listed}]")
    interfaces = head or '[balancer]\ninterfaces = ["balancer"]\n'
    return interfaces + '[[service]]\nname = "dns"\n' + "\n".join(lines) + "\n"


class Run:
    """An ``xdplb run``, what it logs, and what it tells its service manager."""

    def __init__(
        self,
        lab: Lab,
        tmp: Path,
        *arguments: str,
        within: tuple[str, ...] = (),
        **environment: str,
    ) -> None:
        self._manager = sockets.socket(sockets.AF_UNIX, sockets.SOCK_DGRAM)
        manager = tmp / f"notify{time.monotonic_ns()}"
        self._manager.bind(f"{manager}")
        lab.keep(self._manager)
        self._log = tmp / f"log{time.monotonic_ns()}"
        env = os.environ | {"NOTIFY_SOCKET": f"{manager}"} | environment
        env.pop("JOURNAL_STREAM", None)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*lab.inside("b", *within), str(XDPLB), "run", *arguments], stderr=log, env=env
            )
        lab.finally_(self.end)
        self.told: list[dict[str, str]] = []

    def end(self, number: int = signal.SIGKILL) -> int:
        """End it by a signal; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(10)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def says(self, text: str, times: int = 1) -> str:
        """Wait for a line of the log."""
        deadline = time.monotonic() + WITHIN_S
        while self.log.count(text) < times:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.01)
        return self.log

    def tells(self, name: str, value: str) -> dict[str, str]:
        """Wait until the service manager is told something; returns all of that message."""
        deadline = time.monotonic() + WITHIN_S
        while True:
            ready, _, _ = select.select([self._manager], [], [], 0.5)
            if ready:
                text = self._manager.recv(4096).decode()
                message = dict(line.split("=", 1) for line in text.splitlines())
                self.told.append(message)
                if message.get(name) == value:
                    return message
            assert time.monotonic() < deadline, (self.told, self.log)
            assert ready or self.process.poll() is None, self.log

    def is_ready(self) -> Run:
        self.tells("READY", "1")
        return self


class Echo:
    """A server that answers checks and clients, or does not."""

    def __init__(self, lab: Lab, address: str, where: str = "h", answer: str = "") -> None:
        self._lab, self._address, self._where = lab, address, where
        self._answer = answer or address
        self._child = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        program = (
            "import signal,socket,sys\na=sys.argv[1:]\n"
            "signal.signal(signal.SIGUSR1,lambda *_:a.append('nonsense'))\n"
            "x=socket.socket(2,2);x.bind((a[0],53))\n"
            "while 1:\n d,p=x.recvfrom(999);x.sendto(a[-1].encode(),p)"
        )
        child = self._lab.process(
            self._where, "python3", "-Sc", program, self._address, self._answer
        )
        wait_for(lambda: f"{self._address}:53" in self._sockets())
        return child

    def _sockets(self) -> str:
        command = self._lab.inside(self._where, "ss", "-lnu")
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def hang(self) -> None:
        """Be silent."""
        self._child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def die(self) -> None:
        """Let the kernel refuse."""
        self._child.kill()
        self._child.wait()

    def err(self) -> None:
        """Answer something else than is expected, from now on."""
        self._child.send_signal(signal.SIGUSR1)

    def start_again(self) -> None:
        self.die()
        self._child = self._start()


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "xdplb.toml"
    path.write_text(service(QUICK))
    path.chmod(0o600)
    return path


@pytest.fixture
def servers(lab: Lab) -> Iterator[dict[str, Echo]]:
    started = {address: Echo(lab, address) for address in (A, B, C)}
    yield started
    for server in started.values():
        server.go_on()


def states(lab: Lab) -> dict[str, str]:
    """The states of the backends of the only service."""
    (found,) = lab.status()["services"]
    return {item["address"]: item["state"] for item in found["backends"]}


def becomes(lab: Lab, **wanted: str) -> None:
    """Wait for the states of backends: ``a="down"``."""
    named = {{"a": A, "b": B, "c": C}[key]: value for key, value in wanted.items()}
    wait_for(lambda: named.items() <= states(lab).items(), WITHIN_S)


def answers(client: socket) -> str:
    """Who answers a client, which asks until somebody does."""
    client.settimeout(0.05)
    found: list[str] = []

    def is_answered() -> bool:
        client.sendto(b"?", (SERVICE, 53))
        try:
            found.append(client.recv(100).decode())
        except TimeoutError:
            return False
        return True

    wait_for(is_answered, WITHIN_S)
    return found[0]


def client_of(lab: Lab, server: str) -> socket:
    """A client whose flow is with a server."""
    for number in range(100):
        client = lab.socket(f"172.11.0.{22 + number % 4}")
        if answers(client) == server:
            return client
    raise AssertionError(server)


def managed(lab: Lab) -> set[str]:
    """The neighbours that the kernel keeps asking for."""
    text = lab.ip("b", "neighbour show")
    return {line.split()[0] for line in text.splitlines() if " managed " in line}


# Health


@pytest.mark.parametrize("way", ["hang", "die", "err"])
def test_a_backend_that_fails_is_taken_out_at_once_and_comes_back(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo], way: str
) -> None:
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    client = client_of(lab, A)
    began = time.monotonic()
    getattr(servers[A], way)()
    agent.tells("STATUS", "1 service, 1 of 2 backends up")
    took = time.monotonic() - began
    assert took < FALL * INTERVAL_S + TIMEOUT_S + 1.0
    assert answers(client) == B
    reason = {
        "hang": "no answer within 0.1 s",
        "die": "port unreachable",
        "err": "does not contain",
    }
    assert reason[way] in agent.says(f"backend {A} of {SERVICE} udp is down: ")
    servers[A].go_on() if way == "hang" else servers[A].start_again()
    agent.tells("STATUS", "1 service, 2 of 2 backends up")
    agent.says(f"backend {A} of {SERVICE} udp is up: 2 good answers in a row")
    assert states(lab) == {A: "up", B: "up"}
    assert answers(client) in {A, B}
    client_of(lab, A)


def test_flows_of_a_backend_are_held_where_that_is_wanted(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    file.write_text(service('on-down = "drop"', QUICK))
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    client = client_of(lab, A)
    servers[A].hang()
    agent.tells("STATUS", "1 service, 1 of 2 backends up")
    forwarded = lab.status()["verdicts"].get("drop_backend_down", 0)
    client.sendto(b"?", (SERVICE, 53))
    wait_for(lambda: sum(lab.status()["verdicts"].values()) > forwarded)
    with pytest.raises(TimeoutError):
        client.recv(100)
    servers[A].go_on()
    agent.tells("STATUS", "1 service, 2 of 2 backends up")
    assert answers(client) == A


@pytest.mark.parametrize(
    ("below", "both"), [("fail-open", {A: "up", B: "up"}), ("fail-closed", {A: "down", B: "down"})]
)
def test_with_too_few_healthy_backends_the_file_decides(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo], below: str, both: dict[str, str]
) -> None:
    health = f'health = {{ {CHECK}, fall = 1, min-healthy = 2, below-min = "{below}" }}'
    file.write_text(service(health))
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    for address in (A, B):
        servers[address].die()
        agent.says(f"backend {address} of {SERVICE} udp is down")
        if below == "fail-open":
            agent.says(f"backend {address} of {SERVICE} udp is not healthy, and stays")
    wait_for(lambda: states(lab) == both)
    for server in servers.values():
        server.start_again()
    becomes(lab, a="up", b="up")


def test_a_silent_backend_is_taken_out_by_what_the_traffic_tells(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    file.write_text(service("health = { fall = 1 }"))
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    clients = [client_of(lab, address) for address in (A, B)]
    servers[A].hang()

    def ask() -> bool:
        for client in clients:
            client.sendto(b"?", (SERVICE, 53))
        return "is down" in agent.log

    wait_for(ask)
    assert "while others answer" in agent.says(f"backend {A} of {SERVICE} udp is down: ")
    becomes(lab, a="down", b="up")
    assert agent.end() == -signal.SIGKILL
    again = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    assert states(lab) == {A: "down", B: "up"}
    assert "is up" not in again.log  # and it begins with the pause before a trial


def test_what_the_traffic_tells_makes_a_check_come_early(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    health = 'check = "udp", send = "ping", interval = 60, fall = 1'
    file.write_text(service(f"health = {{ {health} }}"))
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    clients = [client_of(lab, address) for address in (A, B)]
    servers[A].die()

    def ask() -> bool:
        for client in clients:
            client.sendto(b"?", (SERVICE, 53))
        return "is down" in agent.log

    wait_for(ask, 10)
    assert f"backend {A} of {SERVICE} udp is suspect: port unreachable" in agent.log
    becomes(lab, a="down", b="up")


# The end of the agent, and its beginning


def test_nothing_changes_when_it_is_killed_and_a_new_one_adopts_what_runs(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    file.write_text(service(QUICK, backends=(A, B, C)))
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    client = client_of(lab, C)
    servers[A].hang()
    becomes(lab, a="down")
    lab.xdplb("backend", "drain", B)
    program = lab.status()["program"]
    assert agent.end() == -signal.SIGKILL
    wanted = {A: "down", B: "drain", C: "up"}
    assert states(lab) == wanted
    assert answers(client) == C
    again = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    assert (states(lab), lab.status()["program"]) == (wanted, program)
    servers[C].hang()  # which shows that it has looked
    again.says(f"backend {C} of {SERVICE} udp is down")
    assert states(lab)[A] == "down"
    servers[A].go_on()
    again.says(f"backend {A} of {SERVICE} udp is up: 2 good answers in a row")
    becomes(lab, a="up", b="drain", c="down")
    assert lab.status()["program"] == program


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_by_a_signal_and_forwarding_goes_on(
    lab: Lab, tmp_path: Path, servers: dict[str, Echo], number: signal.Signals
) -> None:
    del servers
    lab.up("--port", "53")
    agent = Run(lab, tmp_path).is_ready()
    assert agent.end(number) == 0
    agent.tells("STOPPING", "1")
    assert agent.log == ""
    assert answers(lab.socket("172.11.0.22")) in {A, B}


def test_what_it_cannot_do_is_said_with_exit_code_3(lab: Lab, file: Path, tmp_path: Path) -> None:
    def refusal(arguments: list[str], *words: str, **environment: str) -> str:
        done = subprocess.run(
            [*lab.inside("b", *words), f"{XDPLB}", "run", *arguments],
            capture_output=True, text=True, check=False, timeout=30, env=os.environ | environment,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (3, ""), done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    config = ["--config", f"{file}"]
    assert "no balancer is up" in refusal([])
    lab.second_network()
    lab.xdplb("up", "--iface", "second", "--backend", "172.12.0.20")
    lab.up("--port", "53")
    assert "several balancers are up" in refusal([])
    assert "without CAP_SYS_ADMIN" in refusal([], "setpriv", "--bounding-set=-sys_admin")
    assert "no balancer is up on nowhere" in refusal(["--iface", "nowhere"])
    assert "without CAP_NET_ADMIN" in refusal(config, "setpriv", "--bounding-set=-net_admin")
    before = lab.status_of("balancer")["program"]
    for check, package in (("http", "aiohttp"), ("dns", "dns")):
        (tmp_path / f"{package}.py").write_text("raise ImportError")
        query = ', query = "a.example"' if check == "dns" else ""
        file.write_text(service(f'health = {{ check = "{check}"{query} }}'))
        path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
        assert package in refusal(config, PYTHONPATH=path)
    assert lab.status_of("balancer")["program"] == before

    file.write_text(service(QUICK))
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    for arguments in (config, ["--iface", "balancer"]):
        assert "another 'xdplb run' looks after balancer" in refusal(arguments)
    other = Run(lab, tmp_path, "--iface", "second").is_ready()
    assert (agent.end(signal.SIGTERM), other.end(signal.SIGTERM)) == (0, 0)


def test_it_does_with_what_its_unit_leaves_it(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    """Capabilities, and no memory that is written first and executed then (PR_SET_MDWE)."""
    unit = Path(xdplb.__file__).parent / "share" / "systemd" / "xdplb-agent@.service"
    (found,) = re.findall(r"^CapabilityBoundingSet=(.*)$", unit.read_text(), re.MULTILINE)
    kept = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in found.split())
    program = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    before = ("setpriv", "--no-new-privs", f"--bounding-set=-all,{kept}", sys.executable, "-c")
    file.write_text(service(QUICK.replace('"udp", send = "ping", expect = "172.11"', '"icmp"')))
    agent = Run(lab, tmp_path, "--config", f"{file}", within=(*before, program)).is_ready()
    assert answers(lab.socket("172.11.0.22")) in servers
    lab.ip("h", f"address delete {B}/24 dev outside")  # A is the first: all would go with it
    agent.tells("STATUS", "1 service, 1 of 2 backends up")
    lab.ip("b", "link set balancer address 02:00:00:00:00:77")
    agent.says("has changed: followed")
    assert agent.end(signal.SIGTERM) == 0


# Who else is there


def test_commands_are_respected_while_it_runs(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    lab.xdplb("backend", "add", C, "--weight", "3")
    lab.xdplb("backend", "drain", A)
    servers[A].hang()
    becomes(lab, a="down", b="up", c="up")
    servers[A].go_on()
    becomes(lab, a="drain")
    servers[A].hang()
    becomes(lab, a="down")
    lab.xdplb("backend", "undrain", A)
    servers[A].go_on()
    becomes(lab, a="up")
    servers[C].hang()  # the new one is watched, too
    agent.says(f"backend {C} of {SERVICE} udp is down")
    becomes(lab, c="down")
    lab.xdplb("backend", "remove", C)

    servers[C].go_on()
    wanted = (A, f'{{ address = "{B}", state = "down" }}', C)
    file.write_text(service(QUICK, backends=wanted))
    lab.xdplb("apply", f"{file}")
    for _ in range(2):
        servers[C].hang()  # each of these is a look after which B is as it was wanted
        becomes(lab, b="down", c="down")
        servers[C].go_on()
        becomes(lab, a="up", b="down", c="up")
    lab.xdplb("apply", f"{file}")
    file.write_text(service(QUICK, backends=(A, B, C)))
    lab.xdplb("apply", f"{file}")
    becomes(lab, a="up", b="up", c="up")
    assert f"{B} of" not in agent.log


def test_a_balancer_that_is_taken_down_stays_down_until_somebody_starts_it(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    lab.xdplb("down")
    agent.says("the balancer has been taken down")
    recreate(lab)
    agent.tells("STATUS", "nothing is balanced")
    assert json.loads(lab.xdplb("status", "--json").stdout)["balancers"] == []
    lab.xdplb("up", "--config", f"{file}")
    agent.tells("STATUS", "1 service, 2 of 2 backends up")
    servers[A].hang()
    becomes(lab, a="down", b="up")
    assert agent.log.count("taken down") == 1


# The file


def test_a_wrong_file_changes_nothing_and_a_right_one_keeps_what_is_known(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    servers[A].hang()
    becomes(lab, a="down")
    before = lab.status()["program"], states(lab)
    right = file.read_text()
    for wrong, reason in (
        (right.replace(A, "172.11.0.300"), "'172.11.0.300'"),
        (right.replace('["balancer"]', '["nowhere"]'), "no interface named 'nowhere'"),
        (None, "xdplb.toml"),
        (None, "xdplb.toml"),
    ):
        if wrong is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(wrong)
        lines = len(agent.log.splitlines())
        agent.process.send_signal(signal.SIGHUP)
        message = agent.tells("RELOADING", "1")
        assert int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        agent.tells("READY", "1")
        wait_for(lambda seen=lines: agent.log.splitlines()[seen:])  # type: ignore[misc]
        assert reason in "".join(agent.log.splitlines()[lines:])
        assert (lab.status()["program"], states(lab)) == before

    file.write_text(right.replace("ports = 53", "ports = [53, 54]").replace("]\n", "]\n"))
    file.chmod(0o600)
    agent.process.send_signal(signal.SIGHUP)
    agent.tells("RELOADING", "1")
    agent.tells("READY", "1")
    assert "the file has been read again: replace" in agent.log
    assert states(lab) == {A: "down", B: "up"}
    servers[A].go_on()
    becomes(lab, a="up", b="up")


def test_an_interface_that_is_not_there_yet_is_waited_for(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    del servers
    lab.ip("b", "link set balancer name later")
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    agent.says("balancer is not there; waiting for it")
    lab.ip("b", "link set later down")
    lab.ip("b", "link set later name balancer")
    lab.ip("b", "link set balancer up")
    agent.tells("STATUS", "1 service, 2 of 2 backends up")
    assert answers(lab.socket("172.11.0.22")) in {A, B}


# Interfaces, ways and neighbours


def recreate(lab: Lab) -> None:
    """Delete the interface, and make another one of the same name."""
    lab.ip("b", "link delete balancer")
    lab.ip("b", "link add balancer type veth peer name outside netns", lab.hosts)
    lab.ip("h", "link set outside up")
    for host in range(20, 26):
        lab.ip("h", f"address add 172.11.0.{host}/24 dev outside")
    lab.ip("b", f"address add {SERVICE}/24 dev balancer")
    lab.ip("b", "link set balancer up")


def test_an_interface_that_is_made_anew_is_balanced_again(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    del servers
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    client = client_of(lab, A)
    recreate(lab)
    began = time.monotonic()
    answers(client)
    assert time.monotonic() - began < 5
    agent.says("balancer is back: balancing again")
    becomes(lab, a="up", b="up")


def test_an_interface_and_the_ways_by_it_are_followed(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    del servers
    line = "has changed: followed"
    with lab.far_network():
        file.write_text(service(backends=(A, '{ address = "10.9.0.2", weight = 0 }')))
        agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
        client = client_of(lab, A)

        lab.ip("b", "link set balancer address 02:00:00:00:00:77")
        agent.says(line)
        assert answers(client) == A

        lab.ip("b", "link set balancer mtu 1400")
        agent.says(line, 2)
        assert answers(client) == A

        lab.ip("b", "route replace 10.9.0.0/24 via 172.11.0.23")
        agent.says(line, 3)
        hops = {
            item["address"]: item["next_hop"] for item in lab.status()["services"][0]["backends"]
        }
        assert hops == {A: A, "10.9.0.2": "172.11.0.23"}
        assert answers(client) == A
        lab.ip("b", "link set balancer name renamed")
        agent.says(line, 4)
        assert answers(client) == A
        (interface,) = lab.status()["interfaces"]
        assert interface["name"] == "renamed"
        assert agent.end(signal.SIGTERM) == 0


def test_next_hops_that_the_kernel_forgot_are_asked_for_again(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    del servers
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    client = client_of(lab, A)
    assert managed(lab) == {A, B}
    lab.ip("b", "neighbour flush dev balancer")
    wait_for(lambda: managed(lab) == {A, B})
    lab.ip("b", "link set balancer down")
    lab.ip("b", "link set balancer up")
    wait_for(lambda: managed(lab) == {A, B})
    assert answers(client) in {A, B}
    lab.ip("b", f"neighbour replace {A} lladdr 02:00:00:00:00:55 dev balancer nud permanent")
    wait_for(lambda: "02:00:00:00:00:55" in {
        item["mac"] for item in lab.status()["services"][0]["backends"]
    })  # fmt: skip
    assert agent.end(signal.SIGTERM) == 0
    lab.xdplb("down")
    assert managed(lab) == set()


def test_one_of_two_interfaces_may_go_and_come_back(
    lab: Lab, file: Path, tmp_path: Path, servers: dict[str, Echo]
) -> None:
    lab.second_network()
    head = '[balancer]\ninterfaces = ["balancer", "second"]\n'
    file.write_text(service(QUICK, backends=(A, "172.12.0.20"), head=head))
    far = Echo(lab, "172.12.0.20", "s", "172.11")
    far.hang()
    agent = Run(lab, tmp_path, "--config", f"{file}").is_ready()
    agent.says("backend 172.12.0.20 of 172.11.0.1 udp is down")
    becomes(lab, a="up")
    far.go_on()
    lab.ip("b", "link delete second")
    agent.says("second is not there; waiting for it")
    assert answers(lab.socket("172.11.0.22")) == A
    servers[A].hang()  # its service needs it
    agent.says(f"backend {A} of {SERVICE} udp is not healthy, and stays")
    servers[A].go_on()
    lab.ip("b", f"link add second type veth peer name servers netns {lab.hosts}s")
    for where, device, last in (("b", "second", 1), ("s", "servers", 20)):
        lab.ip(where, f"address add 172.12.0.{last}/24 dev {device}")
        lab.ip(where, f"link set {device} up")
    lab.ip("s", "route add default via 172.12.0.1")
    agent.says("has changed: followed")
    wait_for(lambda: states(lab) == {A: "up", "172.12.0.20": "up"})


# What it costs


@pytest.mark.alone
def test_the_watchdog_hears_of_it_and_nothing_is_left_behind(
    lab: Lab, file: Path, tmp_path: Path
) -> None:
    every = tuple(f"172.11.0.{number}" for number in range(100, 110))
    file.write_text(service(QUICK.replace("fall = 2", "fall = 1000"), backends=every))
    agent = Run(lab, tmp_path, "--config", f"{file}", WATCHDOG_USEC="600000")
    heard: list[float] = []
    while len(heard) < 10 or not any("READY" in message for message in agent.told):
        agent.tells("WATCHDOG", "1")  # also while it compiles
        heard.append(time.monotonic())
    assert max(after - before for before, after in pairwise(heard)) < 0.6
    descriptors = Path(f"/proc/{agent.process.pid}/fd")
    most = len(list(descriptors.iterdir())) + len(every)  # each check has one while it waits
    for _ in range(3):
        agent.process.send_signal(signal.SIGHUP)
        agent.tells("RELOADING", "1")
        agent.is_ready()
        lab.ip("b", "neighbour flush dev balancer")
        agent.tells("WATCHDOG", "1")
    assert len(list(descriptors.iterdir())) <= most
    assert agent.end(signal.SIGTERM) == 0
