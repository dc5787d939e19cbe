"""Completion in bash, zsh and fish, from a balancer that runs in another namespace."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from lab import XDPLB, Lab, run
from unpacked import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BACKENDS = ["172.11.0.20", "172.11.0.21"]
BOTH = [*BACKENDS, "2001:db8::20"]
LIBRARIES = f"usr/lib/{platform.machine()}-linux-gnu"

BASH = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
_xdplb_completion xdplb
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
module_path=($1)
zmodload zsh/zpty
zpty shell "$2/bin/zsh -f -i"
zpty -w shell "module_path=($1); fpath=($3 $2/usr/share/zsh/functions/**/*(/N)); PROMPT="
zpty -w shell "autoload -Uz compinit; compinit -u -D; echo sta''rted"
zpty -r -m shell text '*started*'
zpty -n -w shell "$4"$'\\t'
zpty -r -m shell text "*$5*"
print -r -- "$text"
zpty -d shell
"""


@pytest.fixture(scope="module")
def shells() -> Path:
    packages = ("fish", "fish-common", "libpcre2-32-0", "zsh", "zsh-common")
    return unpacked("shells", *packages)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as built:
        services = ("--service", "172.11.0.1", "--service", "2001:db8::1")
        built.up(*services, backends=(*BOTH,))
        built.xdplb("backend", "drain", "172.11.0.21")
        yield built


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, shells: Path) -> dict[str, str]:
    """Where ``xdplb`` is the one under test, and nothing of anybody's home is read."""
    return {
        "PATH": f"{XDPLB.parent}:{os.environ['PATH']}",
        "HOME": f"{tmp_path_factory.mktemp('home')}",
        "LD_LIBRARY_PATH": f"{shells / LIBRARIES}",
        "TERM": "dumb",
    }


def script(shell: str, place: Path) -> Path:
    """What makes a shell complete, as a file in ``place``."""
    source = {**os.environ, "_XDPLB_COMPLETE": f"{shell}_source"}
    place.write_text(run(f"{XDPLB}", env=source).stdout)
    return place


def lines(*command: str, environment: dict[str, str]) -> list[str]:
    done = run(*command, env=environment)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_bash_offers_the_backends_that_run(
    lab: Lab, environment: dict[str, str], tmp_path: Path
) -> None:
    source = f"{script('bash', tmp_path / 'xdplb')}"
    line = f"xdplb --netns {lab.balancer} backend remove "
    for typed, replies in (("", BOTH), ("172.11.0.2", BACKENDS), ("2001:db", ["db8::20"])):
        command = ("bash", "--norc", "-c", BASH, "bash", source, line + typed)
        assert lines(*command, environment=environment) == replies


def test_fish_offers_them_with_their_states(
    lab: Lab, environment: dict[str, str], shells: Path, tmp_path: Path
) -> None:
    source = script("fish", tmp_path / "xdplb.fish")
    line = f"xdplb --netns {lab.balancer} flows --backend "
    program = f"source {source}; complete -C '{line}'"
    found = lines(f"{shells}/usr/bin/fish", "--no-config", "-c", program, environment=environment)
    assert sorted(found) == ["172.11.0.20\tup", "172.11.0.21\tdrain", "2001:db8::20\tup"]


def test_zsh_writes_the_only_one_that_fits(
    lab: Lab, environment: dict[str, str], shells: Path, tmp_path: Path
) -> None:
    script("zsh", tmp_path / "_xdplb")
    line = f"xdplb --netns {lab.balancer} backend drain 2001:d"
    modules = next((shells / LIBRARIES / "zsh").iterdir())
    words = (f"{modules}", f"{shells}", f"{tmp_path}", line, "2001:db8::20")
    shown = lines(f"{shells}/bin/zsh", "-f", "-c", ZSH, "zsh", *words, environment=environment)
    assert "backend drain 2001:db8::20" in shown[-1]


def test_what_takes_long_to_load_is_not_loaded(lab: Lab) -> None:
    code = (
        "import sys; from xdplb.cli import commands\n"
        "try: commands(prog_name='xdplb')\n"
        "finally: sys.exit(bool({'pyroute2', 'bcc', 'aiohttp'} & {*sys.modules}))"
    )
    line = f"xdplb --netns {lab.balancer} backend remove 172"
    environment = {"COMP_LINE": line, "COMP_WORDBREAKS": ":", "_XDPLB_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"plain,{backend}" for backend in BACKENDS]
