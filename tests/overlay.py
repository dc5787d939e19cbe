"""This machine's files in a copy that is never kept: what is installed there harms nobody."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from lab import run

from xdplb.kernel.closing import Closing

_SETUP: Final = """
mount -t tmpfs overlay "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mkdir -p "$1/root/run/netns"
for place in proc sys dev run/netns; do
    [ ! -d "/$place" ] || mount --rbind "/$place" "$1/root/$place"
done
mount -t tmpfs overlay "$1/root/tmp"
echo ready
read -r line
"""
"""What is mounted is seen by this process and its children alone, and goes with them."""


class Overlay(Closing):
    """That copy."""

    def __init__(self, place: Path) -> None:
        """Lay it over an empty directory."""
        self._upper, self._root = place / "upper", place / "root"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", _SETUP, "sh", place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def close(self) -> None:
        """Throw it away."""
        self._holder.communicate()

    def command(self, *words: str, netns: str | None = None) -> list[str]:
        """A command as it runs there, in a network namespace of ``ip netns``."""
        options = [f"--mount=/proc/{self._holder.pid}/ns/mnt"]
        options += [f"--net=/run/netns/{netns}"] if netns else []
        return ["nsenter", *options, "chroot", f"{self._root}", *words]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        return run(*self.command(*words), check=check)

    def put(self, source: Path) -> str:
        """Copy a file there; its path."""
        target = f"/tmp/{source.name}"
        with source.open("rb") as data:
            subprocess.run(
                self.command("tee", target), stdin=data, stdout=subprocess.DEVNULL, check=True
            )
        return target

    def changed(self) -> set[str]:
        """Every file that is not as it is on the machine, and every directory that is not there."""
        words = ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "find")
        found = run(*words, f"{self._upper}", "-printf", "%y /%P\n").stdout.splitlines()
        return {
            path
            for kind, _, path in (line.partition(" ") for line in found)
            if kind != "d" or not Path(path).is_dir()
        }
