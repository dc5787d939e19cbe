"""What does the same job today: nftables NAT and nginx, each in the namespace of a balancer."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.frames import SERVICE_PORT
from lab import process, run, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "nginx"
_MODULE: Final = "usr/lib/nginx/modules/ngx_stream_module.so"

_NFT: Final = r"""
table ip balancer {{
  chain arriving {{
    type nat hook prerouting priority dstnat;
    ip daddr {service} udp dport {port} \
      dnat to jhash ip saddr . ip daddr mod {count} map {{ {map} }}
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat;
    ip daddr {{ {backends} }} masquerade
  }}
}}
"""

_NGINX: Final = """
load_module {root}/{module};
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
        service=service,
        port=SERVICE_PORT,
        count=len(backends),
        map=", ".join(f"{number} : {backend}" for number, backend in enumerate(backends)),
        backends=", ".join(backends),
    )
    inside = ("nsenter", f"--net=/run/netns/{namespace}")
    settings = ("net.ipv4.ip_forward=1", "net.ipv4.conf.all.send_redirects=0")
    for setting in (*settings, "net.ipv4.conf.balancer.send_redirects=0"):
        run(*inside, "sysctl", "-q", "-w", setting)
    run(*inside, "nft", "-f", "-", input=text)


def nginx_root() -> Path:
    """Where nginx with its stream module lies: unpacked, not installed, so that nothing starts.

    Raises:
        RuntimeError: The packages cannot be had.
    """
    if not (CACHE / _MODULE).exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        CACHE.mkdir(parents=True)
        CACHE.chmod(0o755)
        with tempfile.TemporaryDirectory() as scratch:
            Path(scratch).chmod(0o777)
            run("apt-get", "download", "nginx", "libnginx-mod-stream", cwd=scratch)
            for package in Path(scratch).glob("*.deb"):
                run("dpkg", "-x", f"{package}", f"{CACHE}")
    return CACHE


def start_nginx(cleanup: ExitStack, namespace: str, service: str, backends: Sequence[str]) -> None:
    """Nginx as a UDP proxy with a consistent hash; it is ended by ``cleanup``."""
    root = nginx_root()
    scratch = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
    settings = scratch / "nginx.conf"
    settings.write_text(
        _NGINX.format(
            root=root,
            module=_MODULE,
            scratch=scratch,
            workers=len(os.sched_getaffinity(0)),
            servers=" ".join(f"server {backend}:{SERVICE_PORT};" for backend in backends),
            service=service,
            port=SERVICE_PORT,
        )
    )
    child = process(
        cleanup,
        *("nsenter", f"--net=/run/netns/{namespace}"),
        *(f"{root}/usr/sbin/nginx", "-p", f"{scratch}", "-c", f"{settings}", "-e", "stderr"),
    )
    wait_for(lambda: _listens(namespace) or child.poll() is not None)
    if child.poll() is not None:
        raise RuntimeError(f"nginx ended with {child.returncode}")


def _listens(namespace: str) -> bool:
    table = run("nsenter", f"--net=/run/netns/{namespace}", "cat", "/proc/net/udp").stdout
    return f":{SERVICE_PORT:04X} " in table
