"""Round trips of a real UDP echo, one at a time, over a small network with a switch.

A client, an echo server and one balancer of each kind hang on one bridge, each in a network
namespace of its own. The balancers take turns, so that a slow moment of the machine hits all,
and every process is on one processor: waking another one would cost more than all the rest,
on a virtual machine above all, and only when the scheduler happens to choose it.
"""

from __future__ import annotations

import os
import socket
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.figures import Figure
from bench.frames import SERVICE_PORT
from bench.programs import one_processor
from bench.systems import start_nft, start_nginx
from lab import XDPLB, process, run, wait_for

from xdplb.kernel import netns
from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from bench.figures import Report

SECTION: Final = "round trip of a UDP echo at low load"
SERVERS: Final = ("172.11.0.20", "172.11.0.21")
CLIENT: Final = "172.11.0.22"
BALANCERS: Final = {"xdplb": "172.11.0.1", "nftables": "172.11.0.2", "nginx": "172.11.0.3"}
DIRECT: Final = "no balancer"
_ECHO: Final = Path(__file__).resolve().parents[2] / "scripts" / "echo_server.py"
_PAYLOAD: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Size:
    """How many rounds, and how many round trips a round."""

    rounds: int
    trips: int


FULL: Final = Size(9, 3000)
QUICK: Final = Size(7, 700)


class Lan(Closing):
    """Namespaces on one bridge."""

    def __init__(self) -> None:
        """Make the bridge."""
        self.name = f"xl{os.getpid()}"
        self.cleanup = ExitStack()
        self._namespace("s")
        self._ip("s", "link add bridge type bridge")
        self._ip("s", "link set bridge up")

    def close(self) -> None:
        """Remove everything."""
        self.cleanup.close()

    def namespace(self, short: str) -> str:
        """The name of a namespace of this network."""
        return f"{self.name}{short}"

    def _ip(self, short: str, command: str) -> str:
        return run("ip", "-n", self.namespace(short), *command.split()).stdout

    def _namespace(self, short: str) -> None:
        run("ip", "netns", "add", self.namespace(short))
        self.cleanup.callback(run, "ip", "netns", "delete", self.namespace(short))
        self._ip(short, "link set lo up")

    def join(self, short: str, interface: str, *addresses: str) -> None:
        """Hang a new namespace on the bridge."""
        self._namespace(short)
        port = f"port{short}"
        self._ip("s", f"link add {port} type veth peer name {interface}")
        self._ip("s", f"link set {interface} netns {self.namespace(short)}")
        self._ip("s", f"link set {port} master bridge up")
        for address in addresses:
            self._ip(short, f"address add {address}/24 dev {interface}")
        self._ip(short, f"link set {interface} up")

    def listens(self, short: str) -> int:
        """How many UDP sockets there are."""
        inside = ("nsenter", f"--net=/run/netns/{self.namespace(short)}")
        return len(run(*inside, "cat", "/proc/net/udp").stdout.splitlines()) - 1

    def start(self, short: str, *command: str) -> None:
        """Start a program, to be ended with the network."""
        process(self.cleanup, "nsenter", f"--net=/run/netns/{self.namespace(short)}", *command)


def measure(report: Report, *, quick: bool) -> None:
    """Every row of this section."""
    size = QUICK if quick else FULL
    with one_processor(), Lan() as lan:
        lan.join("c", "eth0", CLIENT)
        lan.join("e", "eth0", *SERVERS)
        for server in SERVERS:
            lan.start("e", sys.executable, f"{_ECHO}", f"{server}:{SERVICE_PORT}")
        wait_for(lambda: lan.listens("e") == len(SERVERS))
        for number, address in enumerate(BALANCERS.values()):
            lan.join(f"b{number}", "balancer", address)
        words = [word for server in SERVERS for word in ("--backend", server)]
        run(f"{XDPLB}", "--netns", lan.namespace("b0"), "up", "--iface", "balancer", *words)
        start_nft(lan.namespace("b1"), BALANCERS["nftables"], SERVERS)
        start_nginx(lan.cleanup, lan.namespace("b2"), BALANCERS["nginx"], SERVERS)
        targets = {DIRECT: SERVERS[0], **BALANCERS}
        trips = {name: Trips(lan, address) for name, address in targets.items()}
        for number in range(size.rounds + 1):
            for client in trips.values():
                client.round(size.trips if number else size.trips // 10)
            if not number:
                for client in trips.values():
                    client.forget()
    _rows(report, trips)


class Trips:
    """A client of one address, and how long its answers took."""

    def __init__(self, lan: Lan, address: str) -> None:
        """Open its socket."""
        with netns.inside(Path("/run/netns") / lan.namespace("c")):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        lan.cleanup.callback(self._socket.close)
        self._socket.settimeout(2)
        self._socket.connect((address, SERVICE_PORT))
        self.rounds: list[tuple[float, float]] = []

    def forget(self) -> None:
        """Start counting anew."""
        self.rounds.clear()

    def round(self, count: int) -> None:
        """So many round trips; notes their 50th and 99th percentile, in microseconds."""
        took = []
        for _ in range(count):
            started = time.perf_counter_ns()
            self._socket.send(_PAYLOAD)
            self._socket.recv(2048)
            took.append((time.perf_counter_ns() - started) / 1e3)
        cuts = statistics.quantiles(took, n=100)
        self.rounds.append((cuts[49], cuts[98]))


def _rows(report: Report, trips: dict[str, Trips]) -> None:
    for place, words in enumerate(("p50", "p99")):
        values = {name: [item[place] for item in client.rounds] for name, client in trips.items()}
        for name, rounds in values.items():
            if name == DIRECT:
                report.add(Figure(SECTION, f"{words}, {name}", "µs", rounds))
                continue
            is_ours = name == "xdplb"
            against = "nftables" if is_ours else DIRECT
            bound = 1.0 if is_ours and words == "p50" else None
            report.add(
                Figure(
                    *(SECTION, f"{words}, {name}", "µs", rounds, values[against], against),
                    target=bound,
                    of_ratio=True,
                )
            )
