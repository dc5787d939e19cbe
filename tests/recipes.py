"""The commands of a page, run as they stand there, and what they print beside what the page says.

A page has commands with their output in blocks of the kind ``console``. Each command begins with
the name of a machine of ``sandbox.sh`` and ``# ``, or with ``# `` alone for the balancer; ``both``
are the balancer and the other one. A line that ends with a backslash goes on in the next one. Of
the output, three dots stand for any lines.

``python tests/recipes.py PAGE [SECTION]`` prints what the commands do now; with ``--write`` it
puts that into the page, where a section says anything else.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click
from lab import XDPLB
from unpacked import unpacked

import xdplb
from xdplb.kernel.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SHARE: Final = Path(xdplb.__file__).parent / "share"
PAGE: Final = SHARE / "README.md"

_SANDBOX: Final = Path(__file__).with_name("sandbox.sh")
_UNSHARED: Final = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_ENGINES: Final = (
    *("keepalived", "libnl-3-200", "libnl-genl-3-200", "libpci3", "libsensors5", "libsnmp40"),
    *("bird2", "libssh-gcrypt-4"),
    *("exabgp", "python3-exabgp"),
)
"""Debian's packages of what moves and announces addresses, each with its libraries."""
_HERE: Final = "balancer"
_GROUPS: Final = {"both": ("balancer", "other")}
_BLOCK: Final = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^##+ (.+)\n", re.MULTILINE)
_PROMPT: Final = re.compile(r"^(\w*)# (.*)$")
_END: Final = re.compile(r"^--- (\d+)\n$")
_ONLY_LOOKS: Final = re.compile(
    r"^(ip (-\w+ )*(address|route) show|birdc show|grep|xdplb status)\b"
)
"""Commands that are asked again, for what a daemon has not done yet."""
_PATIENCE_S: Final = 10.0

_KINDS: Final = {
    "mac": r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}",
    "program": r"program \d+(?:, tag [0-9a-f]{16})?",
    "port": r"(?<=[\da-f\]]):\d{4,5}\b",
    "span": r"\b\d+ ?s(?:ec)?\b",
    "clock": r"\b\d\d:\d\d:\d\d(?:\.\d+)?\b",
}
"""What differs from run to run."""
_TIMES: Final = frozenset({"span", "clock"})
"""What of that need not be the same again where the page says the same again."""
_CHOSEN: Final = {**_KINDS, "server": r"\b192\.0\.2\.1[01]\b"}
"""And which of two servers a client meets."""
_SHOWS_CHOICE: Final = re.compile(r"^(for .*\bdig|dig|xdplb flows)\b")


class Step(NamedTuple):
    """A command of a page.

    Attributes:
        machines: Where it is run, one after the other.
        output: The lines that the page says it prints.
        span: Where in the page these lines are.
    """

    machines: tuple[str, ...]
    command: str
    output: tuple[str, ...]
    span: tuple[int, int]


class Done(NamedTuple):
    """What a command did."""

    code: int
    output: str


def sections(page: str) -> dict[str, list[Step]]:
    """The commands of each section that has any, by its heading."""
    headings = list(_HEADING.finditer(page))
    ends = [heading.start() for heading in headings[1:]] + [len(page)]
    found = {
        heading[1]: [
            step
            for block in _BLOCK.finditer(page, heading.end(), end)
            for step in _steps(block[1], block.start(1))
        ]
        for heading, end in zip(headings, ends, strict=True)
    }
    return {title: steps for title, steps in found.items() if steps}


def _steps(block: str, at: int) -> Iterator[Step]:
    lines = block.splitlines(keepends=True)
    while lines:
        line = lines.pop(0)
        at += len(line)
        prompt = _PROMPT.match(line)
        assert prompt, f"no command: {line!r}"
        machine, command = prompt.groups()
        while command.endswith("\\"):
            line = lines.pop(0)
            at += len(line)
            command = command[:-1].rstrip() + " " + line.strip()
        start, output = at, []
        while lines and not _PROMPT.match(lines[0]):
            output.append(lines.pop(0))
            at += len(output[-1])
        machine = machine or _HERE
        yield Step(_GROUPS.get(machine, (machine,)), command, tuple(output), (start, at))


def prepare() -> Path:
    """Where the engines are; brings them first, which takes a while."""
    return unpacked("engines", *_ENGINES)


def rows(page: str, heading: str, number: int = 0) -> list[list[str]]:
    """The cells of the first table below a heading, or of another one that ``number`` counts."""
    section = re.split(r"\n#+ ", page.split(f"# {heading}\n")[1])[0]
    tables = re.findall(r"(?:^\|.*\n?)+", section, re.MULTILINE)
    lines = tables[number].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


class Section(Closing):
    """Machines for the commands of a section, and what it has said so far."""

    def __init__(self) -> None:
        """Build them."""
        root = prepare()
        libraries = [*root.glob("lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu")]
        environment = {
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "PATH": f"/usr/local/bin:{os.environ['PATH']}:/usr/sbin:/sbin:{root}/usr/sbin",
            "PYTHONPATH": f"{root}/usr/lib/python3/dist-packages",
            "SHARE": f"{SHARE}",
        }
        self._values: dict[str, str] = {}
        self._child = subprocess.Popen(
            ["unshare", *_UNSHARED, "bash", f"{_SANDBOX}", f"{XDPLB}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def close(self) -> None:
        """End everything that runs there."""
        self._child.communicate()

    def namespace(self, machine: str) -> Path:
        """Where the network namespace of a machine is to be found from outside."""
        return Path(f"/proc/{self._child.pid}/root/run/netns/{machine}")

    def run(self, machine: str, command: str) -> Done:
        """Run a command on a machine to its end."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(f"{machine} {command}\n")
        self._child.stdin.flush()
        lines: list[str] = []
        for line in self._child.stdout:
            if end := _END.match(line):
                return Done(int(end[1]), "".join(lines).removesuffix("\n"))
            lines.append(line)
        raise AssertionError(f"{machine}# {command}: the sandbox has ended")

    def perform(self, step: Step) -> tuple[Done, bool]:
        """Run a command of the page, and say whether it did what the page says.

        One that only looks is asked until it sees that, or long enough.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            done = [self.run(machine, step.command) for machine in step.machines]
            as_said = all(one.code == 0 and self._fits(step, one.output) for one in done)
            if as_said or not _ONLY_LOOKS.match(step.command) or time.monotonic() > deadline:
                return done[-1], as_said
            time.sleep(0.05)

    def _fits(self, step: Step, printed: str) -> bool:
        """Whether a command printed what the page says.

        What differs from run to run may be anything of its kind, but is the same wherever the
        section says the same.
        """
        words: list[str] = []
        kinds = _CHOSEN if _SHOWS_CHOICE.match(step.command) else _KINDS
        pattern = "".join(
            _pattern(_plain(line), kinds, words) for line in step.output if line.strip()
        )
        lines = [f"{_plain(line)}\n" for line in printed.splitlines() if line.strip()]
        found = re.fullmatch(pattern, "".join(lines))
        return found is not None and all(
            self._values.setdefault(word, value) == value
            for word, value in zip(words, found.groups(), strict=True)
        )


def _plain(line: str) -> str:
    """A line without what only places things, and without the index of a veth's other end."""
    return re.sub(r"@if\d+", "", " ".join(line.split()))


def _pattern(line: str, kinds: Mapping[str, str], words: list[str]) -> str:
    """What fits a line of the page; ``words`` are what its groups stand for there."""
    if line == "...":
        return r"(?:.*\n)*?"
    pattern, at = "", 0
    for part in re.finditer("|".join(f"(?P<{kind}>{one})" for kind, one in kinds.items()), line):
        kind = part.lastgroup or ""
        pattern += re.escape(line[at : part.start()])
        if kind in _TIMES:
            pattern += kinds[kind]
        else:
            pattern += f"({kinds[kind]})"
            words.append(part[0])
        at = part.end()
    return f"{pattern}{re.escape(line[at:])}\n"


def _show(title: str, steps: Sequence[Step]) -> list[tuple[Step, Done, bool]]:
    """Run the commands of a section, and print what they do."""
    click.echo(f"\n## {title}")
    results = []
    with Section() as section:
        for step in steps:
            done, as_said = section.perform(step)
            results.append((step, done, as_said))
            click.echo(f"{'+'.join(step.machines)}# {step.command}\n{done.output}", nl=False)
            if not as_said:
                click.echo(f"   ^--- not what the page says; ended with {done.code}")
    return results


@click.command()
@click.argument("page", type=click.Path(path_type=Path))
@click.argument("titles", nargs=-1)
@click.option("--write", is_flag=True)
def _main(*, page: Path, titles: Sequence[str], write: bool) -> None:
    """Print what the commands of a page do, and put it into the page."""
    text = page.read_text()
    rewritten, shift = text, 0
    for title, steps in sections(text).items():
        if titles and not any(word in title for word in titles):
            continue
        results = _show(title, steps)
        for step, done, as_said in results:
            if all(fine for *_, fine in results) or (as_said and "...\n" in step.output):
                continue
            start, end = (at + shift for at in step.span)
            rewritten = rewritten[:start] + done.output + rewritten[end:]
            shift += len(done.output) - (end - start)
    if write:
        page.write_text(rewritten)


if __name__ == "__main__":
    _main()
