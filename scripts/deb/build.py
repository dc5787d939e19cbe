"""Build a Debian package of this tree, xdplb_VERSION_ARCHITECTURE.deb.

Libraries come from Debian where its versions do. The others, pinned in pins.txt, and xdplb itself
lie in /usr/lib/xdplb, where no other program sees them. The same tree makes the same package.

usage: build.py DIRECTORY
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.metadata import Distribution, distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from packaging.requirements import Requirement

HERE: Final = Path(__file__).resolve().parent
TREE: Final = HERE.parents[1]
PRIVATE: Final = Path("usr/lib/xdplb")
DOC: Final = Path("usr/share/doc/xdplb")
UNITS: Final = Path("lib/systemd/system")
REVISION: Final = 1
FROM_DEBIAN: Final = {"dnspython", "prometheus-client", "rich", "tomli-w"}
BCC: Final = "python3-bpfcc (>= 0.26)"
COMMON: Final = {
    "Apache License": "/usr/share/common-licenses/Apache-2.0",
    "GNU GENERAL PUBLIC LICENSE": "/usr/share/common-licenses/GPL-2",
}
"""Licences that Debian has, each by how its title begins."""
OF_PIP: Final = (
    *("INSTALLER", "RECORD", "REQUESTED", "direct_url.json"),
    *("entry_points.txt", "top_level.txt"),
)
PROJECT: Final = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]


def run(*command: str | Path, cwd: Path = TREE) -> str:
    """Run a command and return what it prints; the script ends if it fails."""
    done = subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}deb: {' '.join(map(str, command))} failed")
    return done.stdout.strip()


def of_debian() -> list[str]:
    """The libraries that Debian has, in its own words.

    Every other one that the project asks for has to be pinned.
    """
    found = []
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (HERE / "pins.txt").read_text(), re.MULTILINE))
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["agent"]]
    for item in map(Requirement, wanted):
        if item.name in FROM_DEBIAN:
            found += [f"python3-{item.name} (>= {floor.version})" for floor in item.specifier]
        elif pins.get(item.name, "0") not in item.specifier:
            sys.exit(f"deb: {item} is not what pins.txt has")
    return sorted(found)


def install(root: Path, scratch: Path) -> None:
    """Let pip lay xdplb and what is pinned into its directory, and the rest where it belongs."""
    python = sys.executable
    run(python, "-m", "hatchling", "build", "--target", "wheel", "--directory", scratch)
    (wheel,) = scratch.glob("*.whl")
    place = root / PRIVATE
    options = ("--quiet", "--no-compile", "--no-deps", "--only-binary", ":all:")
    run(python, "-m", "pip", "install", *options, "--target", place, wheel, "-r", HERE / "pins.txt")
    shutil.rmtree(place / "bin", ignore_errors=True)
    (place / "share").rename(root / "usr/share")
    share = place / "xdplb/share"
    (root / UNITS.parent).mkdir(parents=True)
    shutil.copytree(share / "systemd", root / UNITS)
    doc = root / DOC
    (doc / "bpf").mkdir(parents=True)
    (doc / "examples").symlink_to(Path("../../..", PRIVATE.relative_to("usr"), "xdplb/share"))
    (place / "xdplb/bpf/README.md").rename(doc / "bpf/README.md")
    shutil.copyfile(TREE / "README.md", doc / "README.md")
    (root / "usr/bin").mkdir()
    shutil.copyfile(HERE / "xdplb", root / "usr/bin/xdplb")
    (root / "etc/xdplb").mkdir(parents=True)


def licences(root: Path) -> str:
    """The copyright file: whose each part is, and under which licence."""
    parts = [
        "What is not named below is xdplb's own, under the GNU General Public License, version 2\n"
        "only, which is in /usr/share/common-licenses/GPL-2.\n"
        f"Copyright: {author()}\n"
    ]
    found = sorted(distributions(path=[f"{root / PRIVATE}"]), key=lambda item: item.name)
    return "\n".join(parts + [_licence(item) for item in found if item.name != "xdplb"])


def _licence(found: Distribution) -> str:
    meta = found.metadata
    name = meta["License-Expression" if "License-Expression" in meta else "License"]
    lines = [f"{'-' * 78}\n{found.name} {found.version}, in /{PRIVATE}: {name}\n"]
    texts = found.read_text("RECORD") or ""
    for path in re.findall(r"^([^,\n]*dist-info/licenses/[^,\n]+),", texts, re.MULTILINE):
        text = Path(f"{found.locate_file(path)}").read_text()
        common = [
            f"The licence is in {place}.\n"
            for title, place in COMMON.items()
            if text.lstrip().startswith(title)
        ]
        lines += common or [text]
    return "\n".join(lines)


def author() -> str:
    """Who made the commit that is built."""
    return run("git", "log", "-1", "--format=%an <%ae>")


def clean(root: Path) -> None:
    """Leave out what is pip's, compress what Debian compresses, strip what is machine code."""
    for place in (root / PRIVATE).glob("*.dist-info"):
        shutil.rmtree(place / "licenses", ignore_errors=True)
        for name in OF_PIP:
            (place / name).unlink(missing_ok=True)
    for page in [*root.glob("usr/share/man/*/*"), *root.glob(f"{DOC}/changelog*")]:
        packed = gzip.compress(page.read_bytes(), compresslevel=9, mtime=0)
        page.with_name(f"{page.name}.gz").write_bytes(packed)
        page.unlink()
    run("strip", "--strip-unneeded", "--remove-section=.comment", *root.rglob("*.so"))


def needs_of_machine_code(root: Path, scratch: Path) -> str:
    """The libraries that machine code asks for, as Debian's own tool finds them."""
    (scratch / "debian").mkdir()
    (scratch / "debian/control").write_text("Source: xdplb\n\nPackage: xdplb\nArchitecture: any\n")
    files = sorted(root.rglob("*.so"))
    needs = run("dpkg-shlibdeps", "-O", *(f"-e{file}" for file in files), cwd=scratch)
    return needs.removeprefix("shlibs:Depends=")


def describe(root: Path, scratch: Path, version: str) -> None:
    """Write what dpkg wants to know."""
    minor = sys.version_info.minor
    depends = [f"python3 (>= 3.{minor})", f"python3 (<< 3.{minor + 1})", BCC, *of_debian()]
    depends.append(needs_of_machine_code(root, scratch))
    control = root / "DEBIAN"
    control.mkdir()
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n"  # noqa: S324
            for path in files]  # fmt: skip
    (control / "md5sums").write_text("".join(sums))
    size = sum(path.stat().st_size for path in files) // 1024
    fields = {
        "Package": "xdplb",
        "Version": version,
        "Section": "net",
        "Priority": "optional",
        "Architecture": run("dpkg", "--print-architecture"),
        "Maintainer": author(),
        "Installed-Size": f"{size}",
        "Depends": ", ".join(depends),
        "Description": "load balancer for UDP and TCP at the speed of XDP\n"
        " One command starts it on an interface: a full NAT that spreads DNS, syslog,\n"
        " SIP, NetFlow, RADIUS or game traffic over a handful of servers, which need\n"
        " no change. The program and its flows live in the kernel, so that forwarding\n"
        " needs no process; an agent checks the servers and follows interfaces.",
    }
    (control / "control").write_text("".join(f"{key}: {item}\n" for key, item in fields.items()))
    for name in ("postinst", "prerm", "postrm"):
        shutil.copyfile(HERE / name, control / name)


def settle(root: Path, epoch: int) -> None:
    """Let every file have the mode that Debian wants, and the day of the commit."""
    scripts = {root / "usr/bin/xdplb", *(root / "DEBIAN").glob("p*")}
    shipped = [path for path in (root / PRIVATE / "xdplb/share").rglob("*") if path.is_file()]
    scripts |= {path for path in shipped if path.read_bytes().startswith(b"#!")}
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path in scripts else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def main(directory: Path) -> None:
    """Build it, and say where it is."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or run("git", "log", "-1", "--format=%ct"))
    os.environ["SOURCE_DATE_EPOCH"] = f"{epoch}"
    with TemporaryDirectory() as name:
        scratch = Path(name)
        root = scratch / "root"
        install(root, scratch)
        (found,) = (item for item in distributions(path=[f"{root / PRIVATE}"])
                    if item.name == "xdplb")  # fmt: skip
        version = f"{found.version}-{REVISION}"
        (root / DOC / "copyright").write_text(licences(root))
        day = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(epoch))
        (root / DOC / "changelog.Debian").write_text(
            f"xdplb ({version}) unstable; urgency=medium\n\n"
            f"  * What has changed for users is in README.md.\n\n -- {author()}  {day}\n"
        )
        overrides = root / "usr/share/lintian/overrides/xdplb"
        overrides.parent.mkdir(parents=True)
        shutil.copyfile(HERE / "overrides", overrides)
        clean(root)
        describe(root, scratch, version)
        settle(root, epoch)
        directory.mkdir(exist_ok=True)
        made = directory / f"xdplb_{version}_{run('dpkg', '--print-architecture')}.deb"
        run("dpkg-deb", "--root-owner-group", "--build", root, made.absolute())
    print(made)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
