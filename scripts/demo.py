"""The main job, in network namespaces of its own: clients, a balancer, two servers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NoReturn

SCRIPTS = Path(__file__).resolve().parent
XDPLB = Path(sys.executable).parent / "xdplb"
LAB = f"xdplb-demo-{os.getpid()}"
HOSTS = f"{LAB}-hosts"
SERVICE = "172.11.0.1:7777"
EXAMPLE = "172.11.0.22:5555"
MORE_CLIENTS = [f"172.11.0.{host}" for host in range(100, 160)]
ANSWER = re.compile(r"(\S+) answered by (\S+), which saw (\S+)")


def run(*command: str | Path, output: int | None = subprocess.PIPE) -> str:
    """Run a command and return what it prints, if that is kept; the demo ends if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        stdout=output,
        text=True,
        check=False,
        env={**os.environ, "LAB": LAB, "PYTHON": sys.executable},
    )
    if done.returncode:
        print(done.stdout or "", end="")
        sys.exit(f"demo: {' '.join(str(word) for word in command)} failed")
    return done.stdout or ""


def say(command: str) -> None:
    """Show a command, and what it prints as it does on this terminal."""
    print(f"\n$ xdplb {command}", flush=True)
    run(XDPLB, "--netns", LAB, *command.split(), output=None)


def ask(*clients: str) -> list[tuple[str, str, str]]:
    """Let clients ask the service: client, server, and whom the server saw, for each answer."""
    output = run(
        "nsenter",
        f"--net=/run/netns/{HOSTS}",
        sys.executable,
        SCRIPTS / "echo_client.py",
        SERVICE,
        *clients,
    )
    return [(match[1], match[2], match[3]) for match in ANSWER.finditer(output)]


def demo() -> None:
    """Everything between building the lab and removing it."""
    for client in MORE_CLIENTS:
        run("ip", "-n", HOSTS, "address", "add", f"{client}/24", "dev", "outside")
    say(
        "up --iface balancer --backend 172.11.0.20 --backend 172.11.0.21 "
        "--client 172.11.0.22:5555=6666"
    )
    print("\nfour clients ask the service at 172.11.0.1, port 7777:")
    answers = ask(EXAMPLE, "172.11.0.23", "172.11.0.24", "172.11.0.25")
    for client, server, _ in answers:
        print(f"  {client} was answered by {server}")
    _, server, seen = answers[0]
    print("\none flow, as it was translated:")
    print(f"  client {EXAMPLE} -> balancer {SERVICE}")
    print(f"  balancer {seen} -> backend {server}")
    print(f"  backend {server} -> balancer {seen}")
    print(f"  balancer {SERVICE} -> client {EXAMPLE}")
    answers += ask(*MORE_CLIENTS)
    print(f"\n{len(MORE_CLIENTS)} more clients ask; who answered:")
    for server, count in sorted(Counter(answer[1] for answer in answers).items()):
        print(f"  {server}  {count:3d} clients  {'#' * count}")
    say("status")
    say("down")


def stop(number: int, frame: object) -> NoReturn:
    """End like an error does, so that the lab is removed."""
    del frame
    sys.exit(128 + number)


def main() -> None:
    """Build the lab, run the demo, remove the lab whatever happens."""
    signal.signal(signal.SIGTERM, stop)
    try:
        run(SCRIPTS / "lab", "up")
        demo()
    finally:
        run(SCRIPTS / "lab", "down")


if __name__ == "__main__":
    main()
