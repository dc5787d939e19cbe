"""What is to be thought of the machine itself."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from xdplb.doctor.findings import ANYWHERE, Fix, Opinion, Repair, bad, good, poor
from xdplb.supported import doubt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.doctor.evidence import Bcc, Chain, Leftover, Trial

_MANAGES: Final = (5, 16)
"""NTF_EXT_MANAGED."""

_CHARGES_CGROUP: Final = (5, 11)
"""From here on RLIMIT_MEMLOCK says nothing about maps."""

_ENOUGH_LOCKED: Final = 1 << 28
_HARDENED: Final = "2"
_NAMED: Final = 3


def privileges(lacking: str) -> Opinion:
    """Whether the process may do what a balancer takes."""
    if lacking:
        return bad(
            lacking,
            hint="run it as root; root of a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN of the "
            "machine",
        )
    return good("may use BPF and change interfaces")


def _version(release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else _MANAGES


def kernel(release: str, lacking: str) -> Opinion:
    """Whether the kernel is new enough; ``lacking`` is what the program would miss."""
    if lacking:
        return bad(
            f"Linux {release} is too old: it has no {lacking}",
            hint="run a newer one; that of Debian 12, 6.1, will do",
        )
    if _version(release) < _MANAGES:
        return poor(
            f"Linux {release} does not keep next hops fresh by itself",
            hint="Linux 5.16 does; until then 'ip neighbour replace ADDR lladdr MAC dev NAME nud "
            "permanent' holds a next hop",
        )
    return good(f"Linux {release}")


def bcc(found: Bcc) -> Opinion:
    """Whether the compiler is there, is the right one, and of a version that is tested."""
    if found.problem:
        return bad(
            found.problem,
            Fix("apt-get install python3-bpfcc", "apt-get remove python3-bpfcc", place=ANYWHERE),
            hint="Fedora: 'dnf install python3-bcc'; a virtual environment needs "
            "--system-site-packages; PyPI's bcc is another package ('pip uninstall bcc')",
        )
    reason = doubt(found.version)
    if reason:
        return poor(reason, hint="the check named program shows whether this one works")
    return good(f"BCC {found.version} at {found.path}")


def libbpf(missing: Sequence[str]) -> Opinion:
    """Whether the library that loads programs is new enough."""
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        return bad(
            f"libbpf, as far as there is any, has no {', '.join(missing[:_NAMED])}{more}",
            Fix("apt-get install libbpf1", "apt-get remove libbpf1", place=ANYWHERE),
            hint="libbpf 1.0 has all that is needed",
        )
    return good("libbpf has all that is needed")


def program(trial: Trial) -> Opinion:
    """Whether this compiler and this kernel take the program."""
    if trial.problem:
        return bad(trial.problem, hint=trial.hint)
    return good("compiles, and the kernel takes it")


def jit(trial: Trial) -> Opinion:
    """Whether programs run as machine code."""
    if trial.problem:
        return poor("not known, since the program was not loaded")
    if not trial.is_compiled:
        setting = "net.core.bpf_jit_enable"
        return poor(
            "the kernel interprets programs, which takes several times as long for each packet",
            Fix(
                f"sysctl -w {setting}=1",
                f"sysctl -w {setting}=0",
                Repair("jit"),
                place=ANYWHERE,
            ),
            hint="the next 'up' brings it to a balancer that runs",
        )
    return good("programs run as machine code")


def hardening(value: str | None) -> Opinion:
    """Whether the kernel blinds the constants of root's programs, too."""
    if value is None:
        return poor("net.core.bpf_jit_harden is not to be seen from this network namespace")
    if value == _HARDENED:
        return poor(
            "net.core.bpf_jit_harden is 2: constants are blinded, and each packet takes longer",
            Fix(
                "sysctl -w net.core.bpf_jit_harden=1",
                "sysctl -w net.core.bpf_jit_harden=2",
                place=ANYWHERE,
            ),
        )
    return good(f"net.core.bpf_jit_harden is {value}")


def statistics(value: str | None) -> Opinion:
    """Whether the kernel takes the time of each run."""
    if value == "1":
        return poor(
            "kernel.bpf_stats_enabled is 1: the kernel takes the time of each packet, twice",
            Fix(
                "sysctl -w kernel.bpf_stats_enabled=0",
                "sysctl -w kernel.bpf_stats_enabled=1",
                place=ANYWHERE,
            ),
        )
    return good("the kernel does not take the time of each packet")


def unprivileged(value: str | None) -> Opinion:
    """Whether anybody may load programs."""
    if value == "0":
        return poor(
            "kernel.unprivileged_bpf_disabled is 0: every user may load BPF programs",
            Fix(
                "sysctl -w kernel.unprivileged_bpf_disabled=2",
                "sysctl -w kernel.unprivileged_bpf_disabled=0",
                place=ANYWHERE,
            ),
        )
    return good("only root may load BPF programs")


def memlock(release: str, limit: int | None) -> Opinion:
    """Whether maps fit into what a process may lock, where the kernel counts that."""
    if _version(release) >= _CHARGES_CGROUP or limit is None or limit >= _ENOUGH_LOCKED:
        return good("no limit on maps")
    return bad(
        f"a process may lock {limit >> 10} KiB, and this kernel counts maps as locked",
        Fix("ulimit -l unlimited", place=ANYWHERE),
    )


def lockdown(mode: str) -> Opinion:
    """Whether the kernel locks itself down against root."""
    if mode == "confidentiality":
        return poor(
            "the kernel is locked down for confidentiality, and may refuse programs and maps",
            hint="'lockdown=integrity' on the kernel's command line is enough against most",
        )
    return good(f"lockdown is {mode}" if mode else "the kernel has no lockdown")


def firewall(chains: Sequence[Chain]) -> Opinion:
    """Whether somebody counts on a filter that balanced packets never meet."""
    if chains:
        names = ", ".join(f"{item.family} {item.table} {item.name}" for item in chains)
        return poor(
            f"nftables filters what comes in ({names}), but balanced packets never get there",
            hint="whom a service is to keep out must be kept out before the balancer, or by the "
            "backends' own network",
        )
    return good("no filter of nftables that balanced packets would miss")


def leftovers(found: Sequence[Leftover]) -> list[Opinion]:
    """Whether a killed command has left something behind."""
    if not found:
        return [good("nothing is left of a killed command")]
    return [
        poor(
            f"the kernel keeps asking for {item.address} on {item.interface}, though no balancer "
            "wants it: a killed command has left that",
            Fix(
                f"ip neighbour del {item.address} dev {item.interface}",
                f"ip neighbour replace {item.address} dev {item.interface} managed protocol 120",
                Repair("forget", ifindex=item.ifindex, address=f"{item.address}"),
            ),
        )
        for item in found
    ]


def keeps_next_hops(release: str) -> bool:
    """Whether the kernel keeps next hops fresh by itself."""
    return _version(release) >= _MANAGES
