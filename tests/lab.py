"""Network namespaces for tests: made for one test, with no way out, removed whatever happens."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import (
    AF_INET,
    AF_INET6,
    AF_PACKET,
    SOCK_DGRAM,
    SOCK_RAW,
    SOCK_STREAM,
    SocketKind,
    htons,
)
from socket import socket as _Socket  # noqa: N812 - "socket" is a method here
from typing import TYPE_CHECKING, Any

from forked import forked

from xdplb.kernel import netns
from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

XDPLB = Path(sys.executable).parent / "xdplb"
SERVICE = "172.11.0.1"
SERVICE6 = "2001:db8::1"
ETH_P_ALL = htons(3)
PATIENCE = float(os.environ.get("XDPLB_PATIENCE", "1"))
"""How much longer than usual everything may take: in a virtual machine without KVM, ten times."""
_NUMBERS = itertools.count()


def run(*command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60 * PATIENCE, **options
    )
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def wait_for(predicate: Callable[[], object], timeout: float = 20.0) -> None:
    """Return when ``predicate`` holds; fail when it does not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout * PATIENCE
    while not predicate():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def process(cleanup: ExitStack, *command: str) -> subprocess.Popen[bytes]:
    """Start a program that ``cleanup`` ends."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end() -> None:
        child.terminate()
        try:
            child.wait(5 * PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    cleanup.callback(end)
    return child


def _host(number: int) -> tuple[str, str]:
    """The commands of ``ip`` that give the hosts another address of each IP version."""
    return (
        f"address add 172.11.0.{number}/24 dev outside",
        f"address add 2001:db8::{number}/64 dev outside nodad",
    )


class Lab(Closing):
    """A balancer at one end of a veth pair, hosts at the other, as in ``scripts/lab``."""

    def __init__(self, hosts: tuple[int, ...] = tuple(range(20, 26))) -> None:
        """Build it; ``hosts`` are the last numbers of addresses in 172.11.0.0/24."""
        name = f"xt{os.getpid()}n{next(_NUMBERS)}"
        self.balancer, self.hosts = f"{name}b", f"{name}h"
        self._cleanup = ExitStack()
        try:
            for namespace in (self.balancer, self.hosts):
                run("ip", "netns", "add", namespace)
                self._cleanup.callback(run, "ip", "netns", "delete", namespace)
                with netns.inside(Path("/run/netns") / namespace):
                    for name in ("all", "default"):  # nobody else is there to have an address, too
                        Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")
            self.ip_batch(
                "b",
                "link set lo up",
                f"link add balancer type veth peer name outside netns {self.hosts}",
                f"address add {SERVICE}/24 dev balancer",
                f"address add {SERVICE6}/64 dev balancer nodad",
                "link set balancer up",
            )
            addresses = [line for number in hosts for line in _host(number)]
            self.ip_batch("h", "link set lo up", "link set outside up", *addresses)
        except BaseException:
            self._cleanup.close()
            raise

    def close(self) -> None:
        """End processes, close sockets, remove the namespaces."""
        self._cleanup.close()

    def ip(self, where: str, command: str, *more: str) -> str:
        """``ip`` in a namespace; ``where`` is as for ``inside``."""
        return run("ip", "-n", self._namespace(where), *command.split(), *more).stdout

    def ip_batch(self, where: str, *commands: str) -> None:
        """Several commands of ``ip`` in one process, which takes no longer than one."""
        run("ip", "-n", self._namespace(where), "-batch", "-", input="\n".join(commands))

    def link(self, where: str, name: str) -> tuple[int, str]:
        """Index and MAC address of an interface."""
        (link,) = json.loads(self.ip(where, f"-j link show dev {name}"))
        return int(link["ifindex"]), str(link["address"])

    def add_host(self, number: int) -> None:
        """Give the hosts another address of each IP version."""
        self.ip_batch("h", *_host(number))

    def inside(self, where: str, *command: str) -> list[str]:
        """The command, to be run in a namespace; unlike ``ip netns exec`` it leaves mounts.

        Args:
            where: "b" for the balancer, "h" for the hosts; "f" and "s" for the hosts of
                ``far_network`` and ``second_network``.
            command: The command and its arguments.
        """
        return ["nsenter", f"--net=/run/netns/{self._namespace(where)}", *command]

    def path(self, where: str) -> Path:
        """Where a network namespace is to be found; ``where`` is as for ``inside``."""
        return Path("/run/netns") / self._namespace(where)

    def _namespace(self, where: str) -> str:
        return self.balancer if where == "b" else self.hosts + where.strip("h")

    def process(self, where: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a program; it is ended with the lab."""
        return process(self._cleanup, *self.inside(where, *command))

    def process_output(self, where: str, *command: str) -> Callable[[], list[str]]:
        """Start tcpdump or the like; the result waits for its end and returns its lines."""
        child = subprocess.Popen(
            self.inside(where, *command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._cleanup.callback(child.communicate)
        self._cleanup.callback(child.kill)
        assert child.stderr is not None
        while "listening on" not in child.stderr.readline():
            assert child.poll() is None

        def lines() -> list[str]:
            return child.communicate(timeout=20 * PATIENCE)[0].splitlines()

        return lines

    def socket(
        self,
        address: str,
        port: int = 0,
        where: str = "h",
        kind: SocketKind = SOCK_DGRAM,
    ) -> _Socket:
        """A socket in a namespace, bound; it is closed with the lab."""
        sock = self._socket(address, port, where, kind)
        self._cleanup.callback(sock.close)
        return sock

    def first_ready(self, *sockets: _Socket) -> _Socket:
        """The first of some sockets that has something to read."""
        ready, _, _ = select.select(sockets, [], [], 3 * PATIENCE)
        assert ready, "nothing has come"
        return next(iter(ready))

    def packet_socket(self, interface: str) -> _Socket:
        """A socket for whole frames, among the hosts."""
        with netns.inside(self.path("h")):
            sock = _Socket(AF_PACKET, SOCK_RAW, ETH_P_ALL)
            sock.bind((interface, 3))
        self._cleanup.callback(sock.close)
        return sock

    @contextmanager
    def far_network(self, mtu: int = 1500) -> Iterator[None]:
        """A host 10.9.0.2 behind a router, 172.11.0.22, whose link to it has this MTU."""
        far = self._namespace("f")
        run("ip", "netns", "add", far)
        try:
            self.ip("h", f"link add near type veth peer name far netns {far}")
            self.ip("h", "address add 10.9.0.1/24 dev near")
            self.ip("h", f"link set near mtu {mtu} up")
            self.ip("f", "address add 10.9.0.2/24 dev far")
            self.ip("f", "link set far up")
            self.ip("f", "route add default via 10.9.0.1")
            run(*self.inside("h", "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"))
            self.ip("b", "route add 10.9.0.0/24 via 172.11.0.22")
            yield
        finally:
            run("ip", "netns", "delete", far)

    @contextmanager
    def far_network6(self, mtu: int = 1500) -> Iterator[None]:
        """The same for IPv6: a host 2001:db8:9::2 behind a router, 2001:db8::22."""
        with self.far_network(mtu):
            self.ip("h", "address add 2001:db8:9::1/64 dev near nodad")
            self.ip("f", "address add 2001:db8:9::2/64 dev far nodad")
            self.ip("f", "route add default via 2001:db8:9::1")
            run(*self.inside("h", "sysctl", "-q", "-w", "net.ipv6.conf.all.forwarding=1"))
            self.ip("b", "route add 2001:db8:9::/64 via 2001:db8::22")
            yield

    def second_network(self) -> None:
        """A host 172.12.0.20 and 2001:db8:12::20, behind the balancer's interface "second"."""
        name = self._namespace("s")
        run("ip", "netns", "add", name)
        self._cleanup.callback(run, "ip", "netns", "delete", name)
        self.ip("b", "link add second type veth peer name servers netns", name)
        for where, device, last in (("b", "second", 1), ("s", "servers", 20)):
            self.ip(where, f"address add 172.12.0.{last}/24 dev {device}")
            self.ip(where, f"address add 2001:db8:12::{last}/64 dev {device} nodad")
            self.ip(where, f"link set {device} up")
        self.ip("s", "link set lo up")
        for gateway in ("172.12.0.1", "2001:db8:12::1"):
            self.ip("s", f"route add default via {gateway}")

    def keep(self, sock: _Socket) -> None:
        """Close a socket with the lab."""
        self._cleanup.callback(sock.close)

    def finally_(self, work: Callable[[], object]) -> None:
        """Do something when the lab is closed."""
        self._cleanup.callback(work)

    def client(self, address: str) -> _Socket:
        """A TCP socket among the hosts, bound, for the caller to close."""
        return self._socket(address, 0, "h", SOCK_STREAM)

    def _socket(self, address: str, port: int, where: str, kind: SocketKind) -> _Socket:
        with netns.inside(self.path(where)):
            sock = _Socket(AF_INET6 if ":" in address else AF_INET, kind)
        sock.bind((address, port))
        sock.settimeout(3 * PATIENCE)
        return sock

    def xdplb(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command line, in the balancer's namespace; what it does, without its start."""
        done = forked().run(("--netns", self.balancer, *arguments))
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def started(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The same as a process of its own, from its start."""
        return run(str(XDPLB), "--netns", self.balancer, *arguments, check=check)

    def up(self, *more: str, backends: tuple[str, ...] = ("172.11.0.20", "172.11.0.21")) -> None:
        """``xdplb up`` on the balancer's interface."""
        words = [word for backend in backends for word in ("--backend", backend)]
        self.xdplb("up", "--iface", "balancer", *words, *more)

    def status(self) -> dict[str, Any]:
        """The one balancer that is up."""
        (balancer,) = json.loads(self.xdplb("status", "--json").stdout)["balancers"]
        assert isinstance(balancer, dict)
        return balancer

    def status_of(self, interface: str) -> dict[str, Any]:
        """The balancer on an interface."""
        (found,) = (
            item
            for item in json.loads(self.xdplb("status", "--json").stdout)["balancers"]
            if interface in {on["name"] for on in item["interfaces"]}
        )
        assert isinstance(found, dict)
        return found

    def counter(self, protocol: str, name: str, where: str = "h") -> int:
        """One of the kernel's counters of a namespace, from /proc/net/snmp or netstat."""
        text = run(*self.inside(where, "cat", "/proc/net/snmp", "/proc/net/netstat")).stdout
        names, values = (
            line.split() for line in text.splitlines() if line.startswith(f"{protocol}:")
        )
        return int(dict(zip(names, values, strict=True))[name])

    def counter6(self, name: str, where: str = "h") -> int:
        """One of the kernel's counters of IPv6, from /proc/net/snmp6."""
        text = run(*self.inside(where, "cat", "/proc/net/snmp6")).stdout
        return int(dict(line.split() for line in text.splitlines())[name])

    def bad_checksums(self) -> int:
        """UDP datagrams that the hosts' kernel refused for their checksum."""
        return self.counter("Udp", "InCsumErrors")


def exchange(client: _Socket, server: _Socket, payload: bytes, port: int) -> tuple[str, int]:
    """One question and its answer through the balancer; returns whom the server saw."""
    service = SERVICE6 if client.family == AF_INET6 else SERVICE
    client.sendto(payload, (service, port))
    question, peer = server.recvfrom(65535)
    assert question == payload
    server.sendto(payload[::-1], peer)
    answer, source = client.recvfrom(65535)
    assert (answer, source[:2]) == (payload[::-1], (service, port))
    return str(peer[0]), int(peer[1])
