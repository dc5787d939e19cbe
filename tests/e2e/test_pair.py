"""Two balancers that stand in for each other, with real sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, Lab

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "0123456789abcdef"
HOSTS = ("172.11.0.20", "172.11.0.21")
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
