"""Two balancers that stand in for each other, with real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from lab import SERVICE, XDPLB, Lab, wait_for

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "0123456789abcdef"
HOSTS = ("172.11.0.20", "172.11.0.21")
OPTIONS = ("--hash", "5-tuple", "--port", "53-54")
NAT = ("172.11.0.2", "172.11.0.3")
"""What the two balancers speak from."""


@pytest.fixture
def labs() -> Iterator[tuple[Lab, Lab]]:
    with Lab() as one, Lab() as other:
        yield one, other


def secret(path: Path, text: str = SECRET) -> Path:
    """A secret as an administrator would leave it."""
    path.write_text(text)
    path.chmod(0o600)
    return path


def config(path: Path, key: Path, nat: str) -> Path:
    """A file with a secret and a NAT address."""
    backends = ", ".join(f'{{ address = "{host}" }}' for host in HOSTS)
    path.write_text(
        f'[balancer]\ninterfaces = ["balancer"]\nsecret = "{key}"\n'
        f'[[service]]\nports = [53]\nhash = "5-tuple"\nnat-addresses = ["{nat}"]\n'
        f"backend = [{backends}]\n"
    )
    path.chmod(0o600)
    return path


class Clients:
    """Clients of a lab, each with a socket of its own, and the servers that answer them."""

    def __init__(self, lab: Lab, count: int = 40) -> None:
        self._lab = lab
        self._servers = {lab.socket(host, 53): host for host in HOSTS}
        self._clients = [
            lab.socket(f"172.11.0.{22 + number % 4}", 5000 + number) for number in range(count)
        ]

    def ways(self) -> list[tuple[str, str, int]]:
        """Which server each client gets, and whom that sees."""
        return [self._way(client) for client in self._clients]

    def ways_to(self, host: str) -> None:
        """Let each ask, and be answered by one server."""
        assert {way[0] for way in self.ways()} == {host}

    def _way(self, client: socket.socket) -> tuple[str, str, int]:
        client.sendto(b"question", (SERVICE, 53))
        server = self._lab.first_ready(*self._servers)
        question, (address, port) = server.recvfrom(100)
        assert question == b"question"
        server.sendto(b"answer", (address, port))
        assert client.recv(100) == b"answer"
        return self._servers[server], address, port


def test_two_machines_with_one_secret_choose_the_same_server_and_port(
    labs: tuple[Lab, Lab], tmp_path: Path
) -> None:
    found = []
    for number, (lab, nat) in enumerate(zip(labs, NAT, strict=True)):
        lab.ip("b", f"address add {nat}/24 dev balancer")
        key = secret(tmp_path / f"secret{number}")
        lab.xdplb("up", "--config", f"{config(tmp_path / f'{number}.toml', key, nat)}")
        assert lab.status()["secret"] == f"{key}"
        found.append(Clients(lab).ways())
    macs = {lab.link("b", "balancer")[1] for lab in labs}
    assert len(macs) == 2
    one, other = found
    assert {way[1] for way in one} == {NAT[0]}
    assert {way[1] for way in other} == {NAT[1]}
    assert [(way[0], way[2]) for way in one] == [(way[0], way[2]) for way in other]
    assert {way[0] for way in one} == {*HOSTS}


def test_a_balancer_does_not_take_another_secret_while_it_runs(
    labs: tuple[Lab, Lab], tmp_path: Path
) -> None:
    lab, _ = labs
    key, new = secret(tmp_path / "secret"), secret(tmp_path / "new", SECRET[::-1])
    lab.up("--secret", f"{key}")
    clients = Clients(lab)
    before = clients.ways()
    words = ("--iface", "balancer", *(word for host in HOSTS for word in ("--backend", host)))
    done = lab.xdplb("up", *words, "--secret", f"{new}", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot take effect while the balancer runs with another secret" in done.stderr
    assert clients.ways() == before
    lab.xdplb("save", f"{tmp_path / 'flows'}")
    lab.xdplb("down")
    done = lab.xdplb("up", *words, "--secret", f"{new}", "--restore", f"{tmp_path / 'flows'}")
    assert "restored: 40 of 40 flows\n" in done.stdout
    assert lab.status()["secret"] == f"{new}"
    assert clients.ways() == before


# Flows as they change


class Stream:
    """``save --follow - | restore --follow -`` from one lab to another."""

    def __init__(self, lab: Lab, standby: Lab, *options: str) -> None:
        self.sends = self._start(lab, "save", *options, stdin=subprocess.DEVNULL)
        self.takes = self._start(standby, "restore", stdin=self.sends.stdout)
        assert self.sends.stdout is not None
        self.sends.stdout.close()
        assert self.said(self.takes).startswith("following: ")

    @staticmethod
    def _start(lab: Lab, command: str, *options: str, stdin: Any) -> subprocess.Popen[str]:
        words = (f"{XDPLB}", "--netns", lab.balancer, command, "--follow", *options, "-")
        pipe = subprocess.PIPE
        return subprocess.Popen(words, stdin=stdin, stdout=pipe, stderr=pipe, text=True)

    @staticmethod
    def said(child: subprocess.Popen[str]) -> str:
        """The next line that one end says to a person."""
        assert child.stderr is not None
        return child.stderr.readline()

    def ended(self) -> tuple[tuple[int, str], tuple[int, str]]:
        """How both ends have ended, without being told to: exit code, and what they said then."""
        codes = [child.wait(20) for child in (self.sends, self.takes)]
        texts = [child.stderr.read() for child in (self.sends, self.takes) if child.stderr]
        sent, taken = zip(codes, texts, strict=True)
        return sent, taken

    def close(self) -> None:
        for child in (self.sends, self.takes):
            child.kill()
            child.wait()
            for stream in (child.stdout, child.stderr):
                if stream is not None:
                    stream.close()


@contextmanager
def streaming(lab: Lab, standby: Lab, *options: str) -> Iterator[Stream]:
    """A stream that is on."""
    made = Stream(lab, standby, *options)
    try:
        yield made
    finally:
        made.close()


def flows(lab: Lab) -> dict[tuple[str, int], tuple[object, ...]]:
    """The flows of a balancer: backend, NAT port and state of each client's."""
    found = json.loads(lab.xdplb("flows", "--json", "--limit", "1000").stdout)["flows"]
    return {
        (item["client"]["address"], item["client"]["port"]): (
            item["backend"]["address"],
            item["nat"]["port"],
            item["state"],
        )
        for item in found
    }


def pair(labs: tuple[Lab, Lab]) -> tuple[Lab, Lab, Clients]:
    """Two balancers that run, and clients of the first one, each with a flow."""
    lab, standby = labs
    lab.up(*OPTIONS)
    backends = [word for host in HOSTS for word in ("--backend", host)]
    standby.started("up", "--iface", "balancer", *backends, *OPTIONS)  # not one of a few hash keys
    clients = Clients(lab)
    clients.ways()
    return lab, standby, clients


def test_the_other_one_has_the_flows_from_the_beginning_and_as_they_change(
    labs: tuple[Lab, Lab],
) -> None:
    lab, standby, clients = pair(labs)
    with streaming(lab, standby, "--interval", "0.1"):
        assert len(flows(lab)) == 40
        assert flows(standby) == flows(lab)
        late = lab.socket("172.11.0.22", 7000)
        late.sendto(b"nobody answers", (SERVICE, 54))
        wait_for(lambda: flows(standby) == flows(lab))
        assert flows(standby)["172.11.0.22", 7000][2] == "unreplied"
        lab.xdplb("flows", "kill", "--client", "172.11.0.23")
        assert len(flows(lab)) == 31
        wait_for(lambda: flows(standby) == flows(lab))
        for one in labs:
            one.xdplb("backend", "remove", HOSTS[0])
        clients.ways_to(HOSTS[1])
        wait_for(lambda: flows(standby) == flows(lab))


def test_what_the_other_one_had_makes_room(labs: tuple[Lab, Lab]) -> None:
    lab, standby, _ = pair(labs)
    Clients(standby).ways()
    before = flows(standby)
    assert before.keys() == flows(lab).keys()
    assert before != flows(lab), "each has keys of its own"
    with streaming(lab, standby):
        assert flows(standby) == flows(lab)


def test_a_stream_follows_a_balancer_that_is_changed_and_ends_with_it(
    labs: tuple[Lab, Lab],
) -> None:
    lab, standby, clients = pair(labs)
    with streaming(lab, standby, "--interval", "0.1") as stream:
        for one in labs:
            one.up(*OPTIONS, "--hash", "src", "--no-vlan")
        lab.xdplb("trace", "--seconds", "0.5")
        lab.socket("172.11.0.24", 7001).sendto(b"a new flow", (SERVICE, 53))
        wait_for(lambda: ("172.11.0.24", 7001) in flows(standby))
        assert len(flows(standby)) == 41
        lab.xdplb("down")
        sent, taken = stream.ended()
    assert sent[0] == 0
    assert "the stream has ended: the balancer has gone" in sent[1]
    assert taken == (0, "")
    assert len(flows(standby)) == 41
    assert clients is not None


def test_both_ends_end_when_the_other_balancer_goes(labs: tuple[Lab, Lab]) -> None:
    lab, standby, _ = pair(labs)
    with streaming(lab, standby, "--interval", "0.1") as stream:
        standby.xdplb("down")
        sent, taken = stream.ended()
    assert sent[0] == 0
    assert "the stream has ended: nobody reads it any more" in sent[1]
    assert taken[0] == 3
    assert "no balancer is up" in taken[1]


def test_a_balancer_that_is_started_anew_wants_a_stream_from_the_beginning(
    labs: tuple[Lab, Lab],
) -> None:
    lab, standby, _ = pair(labs)
    with streaming(lab, standby, "--interval", "2") as stream:
        standby.xdplb("down")
        standby.up(*OPTIONS)
        _, taken = stream.ended()
    assert taken[0] == 3
    assert "started anew meanwhile" in taken[1]
    with streaming(lab, standby):
        assert flows(standby) == flows(lab)


@pytest.mark.parametrize("which", ["sends", "takes"])
def test_a_signal_ends_either_end_and_the_other_one_follows(
    labs: tuple[Lab, Lab], which: str
) -> None:
    lab, standby, clients = pair(labs)
    with streaming(lab, standby, "--interval", "0.1") as stream:
        told = stream.sends if which == "sends" else stream.takes
        os.kill(told.pid, signal.SIGTERM)
        sent, taken = stream.ended()
    assert (sent[0], taken[0]) == ((143, 0) if which == "sends" else (0, 143))
    assert "Traceback" not in sent[1] + taken[1]
    assert flows(standby) == flows(lab)
    assert clients.ways()
