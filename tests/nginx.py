"""nginx for tests and benchmarks: unpacked, not installed, so that no service starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from lab import run, wait_for
from unpacked import unpacked

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from lab import Lab

STREAM_MODULE: Final = "usr/lib/nginx/modules/ngx_stream_module.so"

_SETTINGS: Final = """
daemon off;
user root;
pid {scratch}/pid;
error_log stderr crit;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  client_body_temp_path {scratch}/body;
  proxy_temp_path {scratch}/proxy;
  fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi;
  scgi_temp_path {scratch}/scgi;
  server {{
    listen {address}:{port};
    root {root};
  }}
}}
"""


def directory() -> Path:
    """Where nginx and its stream module lie."""
    return unpacked("nginx", "nginx", "libnginx-mod-stream")


def command(scratch: Path, settings: str) -> list[str]:
    """The command that runs nginx with these settings, and its files in ``scratch``."""
    file = scratch / "nginx.conf"
    file.write_text(settings)
    return [f"{directory()}/usr/sbin/nginx", "-p", f"{scratch}", "-c", f"{file}", "-e", "stderr"]


def await_listening(
    child: subprocess.Popen[bytes], inside: Callable[..., list[str]], table: str, port: int
) -> None:
    """Return when ``port`` is in /proc/net/``table``."""
    wanted = f":{port:04X} "
    wait_for(
        lambda: (
            wanted in run(*inside("cat", f"/proc/net/{table}")).stdout or child.poll() is not None
        )
    )
    assert child.poll() is None, f"nginx ended with {child.returncode}"


def start_nginx(lab: Lab, address: str, port: int, root: Path) -> None:
    """A web server among the hosts of a lab."""
    scratch = root / f"nginx-{address}-{os.getpid()}"
    scratch.mkdir()
    settings = _SETTINGS.format(scratch=scratch, address=address, port=port, root=root)
    child = lab.process("h", *command(scratch, settings))
    await_listening(child, lambda *words: lab.inside("h", *words), "tcp", port)
