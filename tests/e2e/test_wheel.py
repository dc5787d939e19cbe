"""The wheel: what is in it, and that it works where only it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import Lab, run
from main_job import main_job
from unpacked import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator

TREE = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
SHARE = "xdplb-0.1.0.data/data/share"
PICTURE = "screenshot.png"
"""For the README, where the sources are."""


def build(tree: Path, place: Path) -> Path:
    """Build both archives of a tree; the wheel."""
    command = (sys.executable, "-m", "hatchling", "build", "-d", f"{place}")
    run(*command, cwd=tree, env=ENVIRONMENT)
    (wheel,) = place.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(TREE, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def files(wheel: Path) -> dict[str, str]:
    """What is in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own, as pipx makes one, with the wheel in it."""
    place = tmp_path_factory.mktemp("environment")
    run("/usr/bin/python3", "-m", "venv", "--system-site-packages", "--without-pip", f"{place}")
    python = ("--python", f"{place}/bin/python")
    run(sys.executable, "-m", "pip", *python, "install", "--quiet", f"{wheel}")
    return place


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


def test_it_does_the_main_job_from_another_directory(
    installed: Path, lab: Lab, tmp_path: Path
) -> None:
    command = (f"{installed}/bin/xdplb", "--netns", lab.balancer)
    main_job(lab, *command, cwd=tmp_path)


def test_everything_that_ships_is_in_it(files: dict[str, str]) -> None:
    for tree, inside in (("xdplb", "xdplb"), ("bpf", "xdplb/bpf")):
        for path in (TREE / tree).rglob("*"):
            if path.is_file() and not {"__pycache__", PICTURE} & {*path.parts}:
                name = f"{inside}/{path.relative_to(TREE / tree)}"
                assert files[name] == path.read_text(), name
    assert not [name for name in files if "__pycache__" in name or PICTURE in name]


def test_the_manual_and_the_completion_are_where_they_are_looked_for(installed: Path) -> None:
    share = installed / "share"
    found = run("man", "--manpath", f"{share}/man", "--where", "1", "xdplb-backend-add")
    assert found.stdout.strip() == f"{share}/man/man1/xdplb-backend-add.1"
    for name in (
        "bash-completion/completions/xdplb",
        "zsh/site-functions/_xdplb",
        "fish/vendor_completions.d/xdplb.fish",
    ):
        assert "_XDPLB_COMPLETE" in (share / name).read_text()


def test_the_manual_is_well_formed(files: dict[str, str]) -> None:
    mandoc = unpacked("mandoc", "mandoc") / "usr/bin/mandoc"
    pages = {name: page for name, page in files.items() if name.startswith(f"{SHARE}/man/man1/")}
    assert len(pages) > 20
    for name, page in pages.items():
        for command in (
            [f"{mandoc}", "-Tlint", "-Wwarning"],
            ["groff", "-ww", "-Kutf8", "-Tutf8", "-man", "-z"],
        ):
            done = subprocess.run(command, input=page, capture_output=True, text=True, check=False)
            assert (done.stdout, done.stderr) == ("", ""), name


def test_the_source_archive_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (archive,) = wheel.parent.glob("*.tar.gz")
    run("tar", "-xzf", f"{archive}", cwd=tmp_path)
    again = build(tmp_path / "xdplb-0.1.0", tmp_path / "dist")
    assert again.read_bytes() == wheel.read_bytes()
