"""Debian packages, unpacked and not installed, so that no service starts; or only downloaded."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

from lab import run
from locks import locked

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE: Final = Path(__file__).resolve().parents[1] / ".cache"


def unpacked(name: str, *packages: str) -> Path:
    """The directory ``name`` of the cache, with the files of ``packages`` in it."""

    def unpack(scratch: Path) -> Path:
        root = scratch / "root"
        for package in scratch.glob("*.deb"):
            run("dpkg", "-x", f"{package}", f"{root}")
        return root

    return _fetched(name, packages, unpack)


def downloaded(name: str, *packages: str) -> list[Path]:
    """The packages themselves, which are kept in the directory ``name`` of the cache."""

    def gather(scratch: Path) -> Path:
        root = scratch / "root"
        root.mkdir()
        for package in scratch.glob("*.deb"):
            package.rename(root / package.name)
        return root

    return sorted(_fetched(name, packages, gather).iterdir())


def _fetched(name: str, packages: tuple[str, ...], use: Callable[[Path], Path]) -> Path:
    """A directory of the cache, which is made once: ``use`` says what of a download is in it."""
    place = CACHE / f"{name}-{crc32(' '.join(packages).encode()):08x}"  # others, other place
    CACHE.mkdir(exist_ok=True)
    with locked(CACHE):  # several processes may run tests at once
        if place.exists():
            return place
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            Path(scratch).chmod(0o777)  # apt downloads as a user of its own
            run("apt-get", "download", *packages, cwd=scratch)
            shutil.move(use(Path(scratch)), place)  # all of it is there, or nothing
    return place
