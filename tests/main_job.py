"""The product's main job, by an xdplb that was installed somewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lab import SERVICE, run

if TYPE_CHECKING:
    from lab import Lab

CLIENT, RESERVED, PORT = ("172.11.0.22", 5555), 6666, 7777
BACKENDS = ("172.11.0.20", "172.11.0.21")


def main_job(lab: Lab, *xdplb: str, **options: Any) -> None:
    """Start a balancer, send a datagram through it and back, look at it, and end it.

    Args:
        lab: Where.
        xdplb: The command, as it is run in the balancer's namespace.
        options: For the process.
    """
    sockets = [lab.socket(backend, PORT) for backend in BACKENDS]
    client = lab.socket(*CLIENT)
    words = [word for backend in BACKENDS for word in ("--backend", backend)]
    reservation = f"{CLIENT[0]}:{CLIENT[1]}={RESERVED}"
    run(*xdplb, "up", "--iface", "balancer", *words, "--client", reservation, **options)
    client.sendto(b"question", (SERVICE, PORT))
    server = lab.first_ready(*sockets)
    assert server.recvfrom(100) == (b"question", (SERVICE, RESERVED))
    server.sendto(b"answer", (SERVICE, RESERVED))
    assert client.recvfrom(100) == (b"answer", (SERVICE, PORT))
    (balancer,) = json.loads(run(*xdplb, "status", "--json", **options).stdout)["balancers"]
    assert balancer["verdicts"]["forward"] == balancer["verdicts"]["return"] == 1
    assert run(*xdplb, "down", **options).stdout.startswith("down: balancer")
