"""Run the tests on a kernel of Debian's, in a virtual machine over this machine's root file system.

The kernel comes from Debian's package, unpacked into .cache/kernels; the machine is virtme-ng's:
qemu, with this file system underneath, where what is written is thrown away. Nothing is installed,
there is no network, and no KVM is needed, without which everything takes about ten times as long.
XDPLB_KVM=1 uses it; a /dev/kvm that is there says little, within another virtual machine.

usage: scripts/kernel.py PACKAGE [ARGUMENT OF PYTEST ...]
       PACKAGE is linux-image-amd64 or the like; those for clouds lack the file system that it takes
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
KERNELS = PROJECT / ".cache" / "kernels"
MODULES = (
    *("veth", "bridge", "macvlan", "vxlan", "8021q", "bonding", "dummy", "sch_netem", "tun"),
    *("ip_vs", "ip_vs_rr", "nft_masq"),
)
MEMORY = "6G"
BOOTS_WITHIN_S = 600
READS_EVERY_S = 0.2
SLOWER = "10"
"""What tests multiply their patience with."""


def say(text: str) -> None:
    """One line for whoever waits."""
    print(text, flush=True)


def concrete(package: str) -> str:
    """The package with the kernel that ``package`` stands for, which may be a meta-package."""
    ask = ["apt-cache", "depends", "--important", package]
    listed = subprocess.run(ask, capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        name = line.rpartition("Depends: ")[2].strip()
        if "Depends: " in line and name.startswith("linux-image-"):
            return name
    return package


def unpacked(package: str) -> Path:
    """The kernel in ``package``, its modules beside it.

    Raises:
        SystemExit: apt does not have it, or what it has is no such kernel.
    """
    package = concrete(package)
    place = KERNELS / package
    if not place.exists():
        say(f"fetching {package}")
        KERNELS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KERNELS) as name:
            work = Path(name)
            apt = ["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", package]
            if subprocess.run(apt, cwd=work, check=False).returncode:
                sys.exit(f"apt has no {package}: 'apt-get update', or another name")
            (archive,) = work.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, work / "root"], check=True)
            (work / "root").rename(place)
    kernels = sorted(place.glob("boot/vmlinuz-*"))
    if not kernels:
        sys.exit(f"{package} holds no kernel: take the linux-image that it stands for")
    return kernels[0]


def script(results: Path, arguments: list[str]) -> str:
    """What runs in the virtual machine: its output and its end go to files in ``results``."""
    return "\n".join(
        (
            "#!/bin/sh",
            f"exec >{results}/output 2>&1",
            f"cd {shlex.quote(f'{PROJECT}')}",
            f"for module in {' '.join(MODULES)}; do modprobe $module; done",
            "export XDPLB_REQUIRE_KERNEL=1 XDPLB_REQUIRE_DEVICES=1",
            f"export XDPLB_PATIENCE={SLOWER}",
            'echo "on Linux $(uname -r)"',
            shlex.join([f"{PROJECT}/.venv/bin/python", "-m", "pytest", *arguments]),
            f"echo $? >{results}/status",
            "",
        )
    )


def started(kernel: Path, results: Path) -> subprocess.Popen[bytes]:
    """The virtual machine, with a console that is kept in ``results``."""
    command = [
        f"{PROJECT}/.venv/bin/vng",
        *("--run", f"{kernel}", "--cpus", f"{os.cpu_count()}", "--memory", MEMORY),
        *("--force-9p", "--overlay-rwdir", f"{PROJECT}", "--overlay-rwdir", "/root"),
        *("--rwdir", f"{results}", "--verbose"),
        *([] if os.environ.get("XDPLB_KVM") == "1" else ["--disable-kvm"]),
        *("--", f"sh {results}/script"),
    ]
    # It wants a terminal: 'script' has one for it.
    terminal = ["script", "--quiet", "--flush", "--return", f"{results}/console", "--command"]
    return subprocess.Popen(
        [*terminal, shlex.join(command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{PROJECT}/.venv/bin:{os.environ['PATH']}"},
        start_new_session=True,
    )


def follow(machine: subprocess.Popen[bytes], results: Path) -> None:
    """Print the tests' output as it comes, until the machine is off.

    Raises:
        SystemExit: It has not come so far as to run them.
    """
    began = time.monotonic()
    output = (results / "output").open("rb")
    with output:
        while machine.poll() is None:
            text = output.read()
            sys.stdout.buffer.write(text)
            sys.stdout.flush()
            if not text:
                if not output.tell() and time.monotonic() - began > BOOTS_WITHIN_S:
                    sys.exit(_last_words(results))
                time.sleep(READS_EVERY_S)
        sys.stdout.buffer.write(output.read())
        sys.stdout.flush()


def _last_words(results: Path) -> str:
    console = (results / "console").read_text(errors="replace").splitlines()
    return "\n".join(["the virtual machine did not run the tests:", *console[-20:]])


def main() -> int:
    """Boot, test, and end as pytest did."""
    package, *arguments = sys.argv[1:] or ["linux-image-amd64"]
    kernel = unpacked(package)
    arguments = arguments or ["tests/bpf", "tests/e2e"]
    more = ["-p", "no:cacheprovider", "--timeout", "1800", "--color", "no"]
    with tempfile.TemporaryDirectory(prefix="xdplb-kernel-") as name:
        results = Path(name)
        (results / "output").touch()
        (results / "script").write_text(script(results, [*more, *arguments]))
        machine = started(kernel, results)
        try:
            follow(machine, results)
        finally:
            if machine.poll() is None:
                os.killpg(machine.pid, 15)
            machine.wait()
        ended = results / "status"
        if not ended.exists():
            say(_last_words(results))
            return 1
        return int(ended.read_text())


if __name__ == "__main__":
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
