"""The whole path over veth: packets a second that reach the backends.

A program sends live frames into the clients' end of a veth pair; whatever does the job
sends them on; a program at the backends' end counts and drops them. All of that runs on
one processor, so the generator's and the receiver's cost is in every figure, the limit's too.
"""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.figures import Figure
from bench.frames import SERVICE, Template, mac_bytes, requests
from bench.programs import Own, Sink, Source, one_processor
from bench.systems import start_nft, start_nginx
from lab import Lab, run

from xdplb.kernel import libbpf, netns
from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from bench.figures import Report

SECTION: Final = "the whole path over veth, 64-byte frames"
FLOWS: Final = 1024
BACKENDS: Final = ("172.11.0.20", "172.11.0.21")
BEHIND: Final = ("172.12.0.20", "172.12.0.21")
_WINDOW: Final = 64
_STUCK_S: Final = 0.2
_MIN_BARE: Final = 0.75
_MIN_NFT: Final = 6.0
_MIN_NGINX: Final = 50.0


@dataclass(frozen=True, slots=True)
class Size:
    """How many rounds, and how many packets a round."""

    rounds: int
    packets: int
    packets_nginx: int


FULL: Final = Size(9, 500_000, 12_000)
QUICK: Final = Size(7, 200_000, 4_000)


class Wire(Closing):
    """A lab with a generator and a sink: one interface, or clients and backends apart."""

    def __init__(self, *, two: bool = False) -> None:
        """Build it; with ``two`` the backends are behind a second interface."""
        self._cleanup = ExitStack()
        try:
            self._build(two=two)
        except BaseException:
            self._cleanup.close()
            raise

    def _build(self, *, two: bool) -> None:
        self.lab = self._cleanup.enter_context(Lab())
        self.home = Path("/run/netns") / self.lab.hosts
        self.backends = BEHIND if two else BACKENDS
        out_here, out_there = ("behind", "servers") if two else ("balancer", "outside")
        if two:
            self.lab.ip("b", "link add behind type veth peer name servers netns", self.lab.hosts)
            self.lab.ip("b", "address add 172.12.0.1/24 dev behind")
            self.lab.ip("b", "link set behind up")
            self.lab.ip("h", "link set servers up")
        self.out_index = self.lab.link("b", out_here)[0] if two else 0
        there, mac = self.lab.link("h", out_there)
        for backend in self.backends:
            self.lab.ip("b", f"neighbour replace {backend} lladdr {mac} dev {out_here}")
        self.sink = self._cleanup.enter_context(Sink())
        with netns.inside(self.home):
            libbpf.xdp_attach(there, self.sink.fd, libbpf.XDP_DRV_MODE)
        index, client_mac = self.lab.link("h", "outside")
        template = Template(mac_bytes(client_mac), mac_bytes(self.lab.link("b", "balancer")[1]))
        items = [item.summed(template) for item in requests(0, FLOWS)]
        self.source = self._cleanup.enter_context(Source("generate", index))
        self.source.give(template, items)
        self.frames = [template.fill(item) for item in items]

    def attach_swap(self) -> None:
        """Put the least there is on the balancer's interface."""
        swap = self._cleanup.enter_context(Own("swap", self.out_index))
        with netns.inside(Path("/run/netns") / self.lab.balancer):
            libbpf.xdp_attach(socket.if_nametoindex("balancer"), swap.fd, libbpf.XDP_DRV_MODE)

    def start_nginx(self) -> None:
        """Let nginx balance, on the processors that this process may use."""
        start_nginx(self._cleanup, self.lab.balancer, f"{SERVICE}", self.backends)

    def close(self) -> None:
        """Remove everything."""
        self._cleanup.close()

    def rate(self, packets: int) -> float:
        """Million packets a second that arrived, of live frames sent as fast as they go."""
        before = self.sink.count()
        with netns.inside(self.home):
            took_ns = self.source.send(packets) * packets
        return (self.sink.count() - before) / took_ns * 1e3

    def rate_windowed(self, packets: int) -> float:
        """The same where more than a few packets on the way would only be thrown away."""
        with netns.inside(self.home):
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with sender:
            sender.bind(("outside", 0))
            first = self.sink.count()
            started = moved = time.perf_counter()
            arrived = sent = 0
            while arrived < packets:
                while sent - arrived < _WINDOW:
                    sender.send(self.frames[sent % len(self.frames)])
                    sent += 1
                now = self.sink.count() - first
                if now != arrived:
                    arrived, moved = now, time.perf_counter()
                elif time.perf_counter() - moved > _STUCK_S:
                    raise RuntimeError(f"{sent - arrived} packets did not arrive")
            return arrived / (time.perf_counter() - started) / 1e6


def measure(report: Report, *, quick: bool) -> None:
    """Every row of this section."""
    size = QUICK if quick else FULL
    with ExitStack() as labs:
        paths = {
            name: labs.enter_context(Wire(two=name.endswith("two")))
            for name in (
                *("bare", "xdplb", "nftables", "nginx", "nginx apart"),
                *("bare two", "xdplb two"),
            )
        }
        paths["bare"].attach_swap()
        paths["bare two"].attach_swap()
        paths["xdplb"].lab.up(backends=BACKENDS)
        paths["xdplb two"].lab.up("--iface", "behind", backends=BEHIND)
        start_nft(paths["nftables"].lab.balancer, f"{SERVICE}", BACKENDS)
        with one_processor():
            paths["nginx"].start_nginx()
        paths["nginx apart"].start_nginx()
        _prepare(paths["nftables"])
        rates: dict[str, list[float]] = {name: [] for name in paths}
        with one_processor():
            for number in range(size.rounds + 1):
                for name, path in paths.items():
                    if name.startswith("nginx"):
                        value = path.rate_windowed(size.packets_nginx)
                    else:
                        value = path.rate(size.packets)
                    if number:  # the first round opens flows and fills caches
                        rates[name].append(value)
    _rows(report, rates)


def _prepare(path: Wire) -> None:
    """Let the kernel's own stack take frames that XDP redirects: its veth needs NAPI."""
    run(*path.lab.inside("b", "ethtool", "-K", "balancer", "gro", "on"))


def _rows(report: Report, rates: dict[str, list[float]]) -> None:
    report.add(
        Figure(SECTION, "the limit: swap MAC addresses, send back", "Mpps", rates["bare"]),
        Figure(SECTION, "nftables NAT (jhash, dnat, masquerade)", "Mpps", rates["nftables"],
               rates["bare"], "the limit"),
        Figure(SECTION, "nginx stream (hash consistent)", "Mpps", rates["nginx"],
               rates["bare"], "the limit"),
        Figure(SECTION, "nginx stream, with all other processors to itself", "Mpps",
               rates["nginx apart"], rates["bare"], "the limit"),
        *(
            Figure(SECTION, "xdplb", "Mpps", rates["xdplb"], rates[other], words, bound,
                   at_most=False, of_ratio=True)
            for other, words, bound in (
                ("bare", "the limit", _MIN_BARE),
                ("nftables", "nftables", _MIN_NFT),
                ("nginx", "nginx", _MIN_NGINX),
            )
        ),
        Figure(SECTION, "the limit, two interfaces", "Mpps", rates["bare two"]),
        Figure(SECTION, "xdplb, two interfaces", "Mpps", rates["xdplb two"], rates["bare two"],
               "the limit", _MIN_BARE, at_most=False, of_ratio=True),
    )  # fmt: skip
