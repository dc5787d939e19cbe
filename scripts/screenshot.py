"""The picture of the page in the README: a balancer at work in network namespaces of its own."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from browser import Browser
from fetch import is_served
from lab import XDPLB, Lab, run, wait_for

import xdplb

PICTURE: Final = Path(xdplb.__file__).parent / "share" / "web" / "screenshot.png"
PNGQUANT: Final = "pngquant"
LARGEST: Final = 150_000
"""Bytes: it is part of every clone."""
PORT: Final = 9170
WATCH_S: Final = 62
"""As long as the curves of the page are."""
SETTLE_S: Final = 6
"""Until the flows of the server that is lost are with the others."""
OWN: Final = ("192.0.2.1/24", "198.51.100.1/24", "2001:db8::1/64")
SERVERS: Final = ("192.0.2.10", "192.0.2.11", "192.0.2.12", "2001:db8::10", "2001:db8::11")
CLIENTS: Final = tuple(f"198.51.100.{number}" for number in range(20, 60))
CLIENTS6: Final = tuple(f"2001:db8::c:{number}" for number in range(20, 40))
GONE: Final = "192.0.2.21"
FILE: Final = f"""
[balancer]
interfaces = ["eth0"]
[agent]
listen = "127.0.0.1:{PORT}"
[[service]]
name = "dns"
address = ["192.0.2.1", "2001:db8::1"]
ports = 53
hash = "5-tuple"
backend = [
    {{ address = "192.0.2.10" }},
    {{ address = "192.0.2.11", weight = 2 }},
    {{ address = "192.0.2.12", state = "drain" }},
    {{ address = "2001:db8::10" }},
    {{ address = "2001:db8::11" }},
]
health = {{ check = "icmp", interval = 1, timeout = 0.5 }}
[[service]]
name = "syslog"
address = "192.0.2.1"
ports = 514
hash = "src"
one-way = true
backend = [{{ address = "192.0.2.10", port = 5514 }}, {{ address = "{GONE}", port = 5514 }}]
health = {{ check = "icmp", interval = 1, timeout = 0.5 }}
"""
ANSWER: Final = """
import select, socket, sys
every = []
for address in sys.argv[1:]:
    for port in (53, 5514):
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(kind, socket.SOCK_DGRAM)
        sock.bind((address, port))
        every.append((sock, port))
ports = dict(every)
while True:
    for sock in select.select(ports, [], [])[0]:
        data, peer = sock.recvfrom(2000)
        if ports[sock] == 53:
            sock.sendto(data + bytes(60), peer)
"""
ASK: Final = """
import math, random, socket, sys, time
every = []
for address in sys.argv[1:]:
    for _ in range(8):
        kind = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(kind, socket.SOCK_DGRAM)
        sock.bind((address, 0))
        sock.setblocking(False)
        every.append((sock, "2001:db8::1" if ":" in address else "192.0.2.1"))
began = time.monotonic()
while True:
    turn = time.monotonic() - began
    for _ in range(int(90 + 45 * math.sin(turn / 4) + 18 * math.sin(turn * 1.3))):
        sock, service = random.choice(every)
        is_log = service == "192.0.2.1" and random.random() < 0.3
        sock.sendto(bytes(random.randrange(30, 90)), (service, 514 if is_log else 53))
        try:
            while True:
                sock.recv(2000)
        except BlockingIOError:
            pass
    time.sleep(0.05)
"""


def build(lab: Lab) -> None:
    """Give the lab an interface and addresses as they stand in documentation."""
    lab.ip("b", "link set balancer down")
    lab.ip("b", "link set balancer name eth0")
    for address in OWN:
        lab.ip("b", f"address replace {address} dev eth0" + (" nodad" if ":" in address else ""))
    lab.ip("b", "link set eth0 up")
    for address in (*SERVERS, *CLIENTS, *CLIENTS6, GONE):
        more = "/64 dev outside nodad" if ":" in address else "/24 dev outside"
        lab.ip("h", f"address add {address}{more}")


def take(lab: Lab, scratch: Path) -> None:
    """Let it work for a minute, lose a server, and look at it."""
    file = scratch / "xdplb.toml"
    file.write_text(FILE)
    file.chmod(0o600)
    agent = f"hostname lb1; exec {XDPLB} run --config {file}"
    lab.process("b", "unshare", "--uts", "sh", "-c", agent)
    lab.process("h", sys.executable, "-c", ANSWER, *SERVERS, GONE)
    wait_for(lambda: is_served(lab, PORT, "/healthz"))
    with Browser(lab.inside("b")) as browser:
        browser.look(1200, 900)
        browser.open(f"http://127.0.0.1:{PORT}/")
        browser.await_sight(".state")
        lab.process("h", sys.executable, "-c", ASK, *CLIENTS, *CLIENTS6)
        time.sleep(WATCH_S)
        lab.ip("h", f"address delete {GONE}/24 dev outside")
        browser.await_sight(".why:not(:empty)")
        time.sleep(SETTLE_S)
        browser.screenshot(PICTURE)


def main() -> None:
    """Take the picture, with as few colours as it needs."""
    if shutil.which(PNGQUANT) is None:
        sys.exit(f"screenshot: {PNGQUANT} is missing; 'apt-get install {PNGQUANT}'")
    with Lab(hosts=()) as lab, tempfile.TemporaryDirectory() as scratch:
        build(lab)
        take(lab, Path(scratch))
    run(PNGQUANT, "--force", "--strip", "--nofs", "--output", f"{PICTURE}", "128", f"{PICTURE}")
    size = PICTURE.stat().st_size
    if size > LARGEST:
        sys.exit(f"{PICTURE} has {size} bytes, more than {LARGEST}")
    print(f"{PICTURE}: {size} bytes")


if __name__ == "__main__":
    main()
