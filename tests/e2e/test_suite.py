"""The tests under another Debian's BCC and Python: what is said where that cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).resolve().parents[2]
SUITE = TREE / "scripts" / "suite"
SUITES = TREE / ".cache" / "suites"
NAME = "nowhere"


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Nothing of the suite is there, before and after."""
    yield
    (SUITES / f"{NAME}.log").unlink(missing_ok=True)
    shutil.rmtree(SUITES / f"{NAME}.new", ignore_errors=True)
    assert not (SUITES / NAME).exists()


def suite(name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SUITE, name, "", "tests/unit"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def fake(directory: Path, body: str) -> str:
    """A search path with a debootstrap of our own in front."""
    program = directory / "debootstrap"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


def mounted() -> list[str]:
    """What is mounted; but the network namespaces of other tests come and go."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if not line.startswith("nsfs ")]


@pytest.mark.parametrize("name", ["", "../etc", "Trixie"])
def test_what_is_no_name_of_a_suite_is_refused(name: str) -> None:
    done = suite(name)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"'{name}' is not the name of a suite" in done.stderr


@pytest.mark.usefixtures("nothing_left")
def test_a_suite_that_cannot_be_fetched_is_reported_with_its_mirror(tmp_path: Path) -> None:
    path = fake(tmp_path, 'echo "I: Retrieving"; echo "E: Failed getting release file"; exit 1')
    done = suite(NAME, PATH=path, MIRROR="http://192.0.2.1/debian")
    assert done.returncode == 3
    assert "E: Failed getting release file\n" in done.stderr
    assert "no Debian nowhere came from http://192.0.2.1/debian" in done.stderr
    assert "I: Retrieving" in (SUITES / f"{NAME}.log").read_text()


@pytest.mark.usefixtures("nothing_left")
def test_what_was_mounted_is_gone_when_the_script_ends(tmp_path: Path) -> None:
    """The root file system is an empty one here, in which nothing can be run."""
    before = mounted()
    for place in ("dev", "sys", "proc", "tmp", "run", "etc", "usr/local/share"):
        (SUITES / NAME / place).mkdir(parents=True)
    done = suite(NAME, PATH=fake(tmp_path, "exit 1"))
    assert done.returncode
    assert mounted() == before
    shutil.rmtree(SUITES / NAME)  # and only then: whatever were mounted there would go, too
