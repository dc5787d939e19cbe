"""The Debian package, installed in a copy of this machine that is thrown away."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import Lab, run
from main_job import main_job
from overlay import Overlay
from unpacked import downloaded

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    platform.freedesktop_os_release().get("VERSION_CODENAME") != "bookworm",
    reason="the package is for Debian 12",
)

BUILD = Path(__file__).resolve().parents[2] / "scripts" / "deb" / "build.py"
NEEDED = (
    *("python3-tomli-w", "python3-dnspython", "python3-prometheus-client"),
    *("python3-decorator", "netbase", "python3-rich", "python3-pygments"),
    *("python3-markdown-it", "python3-mdurl", "python3-typing-extensions"),
)
SYSTEMCTL = '#!/bin/sh\necho "$*" >>/tmp/systemctl\n'
OF_OTHERS = ("/var/lib/dpkg", "/var/log", "/var/cache/debconf", "/var/cache/man", "/run", "/tmp")
INDEX_OF_MANUALS = "/var/lib/man-db/auto-update"
"""Without it dpkg does not rebuild that index after each of its commands, which takes 3 s."""
LIBRARIES = "aiohttp, click, dns.message, msgspec, prometheus_client, pyroute2, rich, tomli_w"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The package, built twice at the same time by users of different habits."""
    places = [tmp_path_factory.mktemp("deb") for _ in range(2)]
    builds = [
        subprocess.Popen([sys.executable, BUILD, place], umask=umask, cwd=place, text=True,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for place, umask in zip(places, (0o022, 0o077), strict=True)
    ]  # fmt: skip
    for build in builds:
        assert build.communicate(timeout=100)[1] == ""
    return [next(place.glob("*.deb")) for place in places]


@pytest.fixture(scope="module")
def package(packages: list[Path]) -> Path:
    return packages[0]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Iterator[Overlay]:
    """Without xdplb, and with what it needs; systemd seems to run, and what it is told is kept."""
    assert lab.balancer  # its namespaces are there before the overlay is, which then sees them
    with Overlay(tmp_path_factory.mktemp("overlay")) as built:
        built.run("rm", "-f", INDEX_OF_MANUALS)
        built.run("dpkg", "--purge", "xdplb", check=False)
        built.run("dpkg", "-i", *(built.put(item) for item in downloaded("needed", *NEEDED)))
        built.run("mkdir", "-p", "/run/systemd/system")
        built.run("sh", "-c", f"rm /bin/systemctl; echo '{SYSTEMCTL}' >/bin/systemctl")
        built.run("chmod", "+x", "/bin/systemctl")
        built.run("rm", "-f", "/usr/sbin/policy-rc.d")
        yield built


def told(overlay: Overlay) -> list[str]:
    """What systemd was told since the last time."""
    script = "touch /tmp/systemctl; cat /tmp/systemctl; rm /tmp/systemctl"
    return overlay.run("sh", "-c", script).stdout.splitlines()


def test_the_same_tree_makes_the_same_package(packages: list[Path]) -> None:
    first, second = packages
    assert first.read_bytes() == second.read_bytes()


def test_lintian_has_nothing_to_say(package: Path) -> None:
    done = run("lintian", "--display-info", "--fail-on", "info", "--allow-root", f"{package}")
    assert done.stdout == ""


def test_it_is_installed_does_the_main_job_and_leaves_nothing(
    overlay: Overlay, lab: Lab, package: Path
) -> None:
    before = overlay.changed()
    deb = overlay.put(package)
    overlay.run("dpkg", "-i", deb)
    assert told(overlay) == ["--system daemon-reload"]
    main_job(lab, *overlay.command("/usr/bin/xdplb", netns=lab.balancer))
    overlay.run("dpkg", "-i", deb)
    assert told(overlay) == ["--system daemon-reload", "try-restart xdplb-agent@*.service"]
    _look_around(overlay)
    overlay.run("dpkg", "--remove", "xdplb")
    assert told(overlay) == ["stop xdplb-agent@*.service xdplb@*.service", "--system daemon-reload"]
    overlay.run("dpkg", "--purge", "xdplb")
    left = overlay.changed() - before
    assert [path for path in sorted(left) if not path.startswith(OF_OTHERS)] == []


def _look_around(overlay: Overlay) -> None:
    """Libraries, units, manual, completion and licences, where a user of the machine finds them."""
    code = f"import sys; sys.path.insert(0, '/usr/lib/xdplb'); import {LIBRARIES}"
    overlay.run("/usr/bin/python3", "-I", "-c", code)
    for unit in ("xdplb@dns.service", "xdplb-agent@dns.service"):
        verified = overlay.run("systemd-analyze", "verify", unit)
        assert (verified.stdout, verified.stderr) == ("", "")
    page = overlay.run("man", "--where", "xdplb-flows-kill").stdout
    assert page == "/usr/share/man/man1/xdplb-flows-kill.1.gz\n"
    for name in ("bash-completion/completions/xdplb", "zsh/site-functions/_xdplb",
                 "fish/vendor_completions.d/xdplb.fish"):  # fmt: skip
        overlay.run("test", "-s", f"/usr/share/{name}")
    overlay.run("sh", "-euc", "for file in /usr/share/doc/xdplb/examples/*; do test -s $file; done")
    licences = overlay.run("cat", "/usr/share/doc/xdplb/copyright").stdout
    for path in overlay.run("find", "/usr/lib/xdplb", "-name", "*.dist-info").stdout.split():
        name, _, version = Path(path).stem.partition("-")
        assert name == "xdplb" or f"{name} {version}, in /usr/lib/xdplb: " in licences
