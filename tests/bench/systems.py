"""What does the same job today: nftables NAT and nginx, each in the namespace of a balancer."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import nginx
from bench.frames import SERVICE_PORT
from lab import process, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

_NFT: Final = r"""
table {family} balancer {{
  chain arriving {{
    type nat hook prerouting priority dstnat;
    {family} daddr {service} udp dport {port} \
      dnat to jhash {family} saddr . {family} daddr mod {count} map {{ {map} }}
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat;
    {family} daddr {{ {backends} }} masquerade
  }}
}}
"""

_NGINX: Final = """
load_module {module};
daemon off;
user root;
pid {scratch}/pid;
error_log stderr crit;
worker_processes {workers};
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
stream {{
  upstream servers {{
    hash $remote_addr$server_addr consistent;
    {servers}
  }}
  server {{
    listen {service}:{port} udp reuseport;
    proxy_pass servers;
    proxy_timeout 60s;
  }}
}}
"""


def start_nft(namespace: str, service: str, backends: Sequence[str]) -> None:
    """Full NAT by nftables: a hash of both addresses picks the backend, masquerade the source."""
    text = _NFT.format(
        family="ip6" if ":" in service else "ip",
        service=service,
        port=SERVICE_PORT,
        count=len(backends),
        map=", ".join(f"{number} : {backend}" for number, backend in enumerate(backends)),
        backends=", ".join(backends),
    )
    inside = ("nsenter", f"--net=/run/netns/{namespace}")
    settings = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0"]
    settings.append("net.ipv4.conf.balancer.send_redirects=0")
    if ":" in service:
        settings = ["net.ipv6.conf.all.forwarding=1"]
    for setting in settings:
        run(*inside, "sysctl", "-q", "-w", setting)
    run(*inside, "nft", "-f", "-", input=text)


def start_nginx(cleanup: ExitStack, namespace: str, service: str, backends: Sequence[str]) -> None:
    """Nginx as a UDP proxy with a consistent hash; it is ended by ``cleanup``."""
    scratch = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
    settings = _NGINX.format(
        module=nginx.directory() / nginx.STREAM_MODULE,
        scratch=scratch,
        workers=len(os.sched_getaffinity(0)),
        servers=" ".join(f"server {backend}:{SERVICE_PORT};" for backend in backends),
        service=service,
        port=SERVICE_PORT,
    )
    inside = ("nsenter", f"--net=/run/netns/{namespace}")
    child = process(cleanup, *inside, *nginx.command(scratch, settings))
    nginx.await_listening(child, lambda *words: [*inside, *words], "udp", SERVICE_PORT)
