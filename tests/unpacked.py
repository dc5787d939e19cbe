"""Servers from Debian packages that are unpacked, not installed, so that no service starts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from lab import run

CACHE: Final = Path(__file__).resolve().parents[1] / ".cache"


def unpacked(name: str, *packages: str) -> Path:
    """The directory ``name`` of the cache, with the files of ``packages`` in it."""
    place = CACHE / name
    if not place.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            Path(scratch).chmod(0o777)  # apt downloads as a user of its own
            run("apt-get", "download", *packages, cwd=scratch)
            root = Path(scratch) / "root"
            for package in Path(scratch).glob("*.deb"):
                run("dpkg", "-x", f"{package}", f"{root}")
            shutil.move(root, place)  # all of it is there, or nothing
    return place
