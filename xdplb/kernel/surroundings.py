"""What the machine says of itself: settings, limits, the compiler, filters, sockets."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyroute2.netlink.diag import SS_ALL, DiagSocket
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.nftables.main import NFTables

from xdplb.doctor.evidence import Bcc, Chain, HostSocket
from xdplb.errors import NotReadyError
from xdplb.kernel import netns
from xdplb.model import IPV4, IPV6, Endpoint, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYSCTL: Final = Path("/proc/sys")
_LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")
_OF_MACHINE: Final = "net/core/bpf_"
"""What only the machine's first network namespace shows."""

_ASK_BCC: Final = """
import json
try:
    import bcc
except ImportError as error:
    print(json.dumps({"problem": f"BCC's Python module cannot be loaded: {error}"}))
else:
    right = hasattr(bcc, "BPF")
    wrong = f"the module bcc at {bcc.__file__} is another package of that name"
    version = getattr(bcc, "__version__", "")
    print(json.dumps({"version": version, "path": bcc.__file__, "problem": "" if right else wrong}))
"""

_FAMILIES: Final = {0: "any", 1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
_NETDEV: Final = 5
_INCOMING: Final = frozenset({0, 1})
"""Hooks: before the route is chosen, or on the way to the host; of netdev 0 is that of arrival."""

_DROP: Final = 0
_TCP_LISTENS: Final = 1 << 10
_TCP_TALKS: Final = 1 << 1


def setting(name: str) -> str | None:
    """A sysctl by its name with slashes; None where there is none of that name."""
    text = _read(_SYSCTL / name)
    if text is None and name.startswith(_OF_MACHINE):
        for path in _first_namespaces():
            with netns.inside(path):
                text = _read(_SYSCTL / name)
            if text is not None:
                break
    return text


def set_setting(name: str, value: str) -> None:
    """Set a sysctl of the whole machine.

    Raises:
        OSError: The kernel said no, or shows it nowhere in reach.
    """
    for path in (None, *_first_namespaces()):
        with netns.inside(path):
            if (_SYSCTL / name).exists():
                (_SYSCTL / name).write_text(value)
                return
    raise FileNotFoundError(2, os.strerror(2), name)


def _first_namespaces() -> Iterator[Path]:
    """Where the machine's first network namespace may be, as far as it can be entered."""
    for process in (1, os.getppid()):
        path = Path(f"/proc/{process}/ns/net")
        if os.access(path, os.R_OK):
            yield path


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (FileNotFoundError, PermissionError):
        return None


def memlock() -> int | None:
    """How many bytes a process may lock; None for any."""
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def lockdown() -> str:
    """The kernel's lockdown mode: the one in brackets."""
    text = _read(_LOCKDOWN) or ""
    return text.partition("[")[2].partition("]")[0]


def bcc() -> Bcc:
    """The compiler, as the child that compiles finds it."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", _ASK_BCC], capture_output=True, text=True, check=False
    )
    try:
        return Bcc(**json.loads(done.stdout))
    except ValueError:
        words = done.stderr.strip().splitlines()[-1:] or ["it ends the process"]
        return Bcc(problem=f"BCC's Python module cannot be loaded: {words[0]}")


def chains() -> tuple[Chain, ...]:
    """The chains of nftables that refuse something that comes in, or have rules for it.

    Raises:
        NotReadyError: The kernel does not tell.
    """
    try:
        with NFTables(nfgen_family=0) as tables:
            every = list(tables.get_chains())
            rules = {_place(item, "RULE") for item in tables.get_rules()}
    except NetlinkError as error:
        raise NotReadyError(f"nftables does not answer: {error.args[-1]}") from None
    return tuple(
        Chain(*_place(item, "CHAIN"))
        for item in every
        if _filters(item)
        and (item.get_attr("NFTA_CHAIN_POLICY") == _DROP or _place(item, "CHAIN") in rules)
    )


def _filters(chain: Any) -> bool:  # noqa: ANN401 - netlink attributes
    if chain.get_attr("NFTA_CHAIN_TYPE") != "filter":
        return False
    hook = chain.get_nested("NFTA_CHAIN_HOOK", "NFTA_HOOK_HOOKNUM")
    return hook == 0 if chain["nfgen_family"] == _NETDEV else hook in _INCOMING


def _place(message: Any, what: str) -> tuple[str, str, str]:  # noqa: ANN401 - netlink attributes
    name = "CHAIN_NAME" if what == "CHAIN" else "RULE_CHAIN"
    family = message["nfgen_family"]
    return (
        _FAMILIES.get(family, f"{family}"),
        message.get_attr(f"NFTA_{what}_TABLE"),
        message.get_attr(f"NFTA_{name}"),
    )


def sockets() -> tuple[HostSocket, ...]:
    """Those of UDP, and of TCP that listen or are connected."""
    with DiagSocket() as diag:
        diag.bind()
        return tuple(
            _host_socket(message, protocol, version)
            for protocol, states in (
                (Protocol.UDP, SS_ALL),
                (Protocol.TCP, _TCP_LISTENS | _TCP_TALKS),
            )
            for version, family in ((IPV4, socket.AF_INET), (IPV6, socket.AF_INET6))
            for message in diag.get_sock_stats(
                states=states, family=family, protocol=protocol.number, extensions=0xFF
            )
        )


def _host_socket(message: Any, protocol: Protocol, version: int) -> HostSocket:  # noqa: ANN401 - netlink attributes
    address, remote = ip_address(message["idiag_src"]), ip_address(message["idiag_dst"])
    port = message["idiag_dport"]
    return HostSocket(
        protocol,
        version,
        None if address.is_unspecified else address,
        message["idiag_sport"],
        is_dual=version == IPV6 and not message.get_attr("INET_DIAG_SKV6ONLY"),
        remote=Endpoint(remote, port) if port and not remote.is_unspecified else None,
    )
