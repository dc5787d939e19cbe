"""The pages for people: links lead somewhere, and what they say of the program is so."""

from __future__ import annotations

import json
import re
import shlex
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import pytest
from click.testing import CliRunner
from fake_machine import FakeMachine, request
from recipes import PAGE, SHARE
from reference import command_lines, rewritten

from xdplb import config, source
from xdplb.balancer import Balancer
from xdplb.cli import commands
from xdplb.errors import XdplbError
from xdplb.model import IPV4, Protocol
from xdplb.saved import FLOW, Lane, Part, Saved
from xdplb.verdicts import DROPPED, PASSED, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (README, PAGE, ROOT / "bpf" / "README.md", ROOT / "tests" / "bench" / "README.md")
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
INDENTED = re.compile(r"^    +(.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CALL = re.compile(r"(?:^|[#$;(|] |\$\(|`)(?:\S*/)?xdplb +((?:[^|;&)>`\n]|(?<=N)\|(?=N))+)")
MADE = re.compile(r"<!-- (\w+) -->.*?<!-- end of \1 -->", re.DOTALL)
INNER = re.compile(r"\$\([^)]*\)")
NO_COMMANDS = ("--help", "COMMAND --help")
TERMINATED = 128 + 15
SERVER, OWN = ip_address("192.0.2.10"), ip_address("192.0.2.1")
PORTS = (number.to_bytes(2, "big") for number in (5555, 53, 2000))
FLOWS = Saved(
    at=0.0,
    interfaces=("eth0", ""),
    states=("unreplied",),
    parts=(
        Part(
            IPV4,
            (Lane(OWN, Protocol.UDP, SERVER, None, OWN),),
            memoryview(
                FLOW[IPV4].pack(bytes((198, 51, 100, 7)), *PORTS, 0, 500, 0, 0, bytes(6), bytes(8))
            ),
        ),
    ),
)


def by_path(page: Path) -> str:
    return f"{page.relative_to(ROOT)}"


def prose(page: Path) -> str:
    """A page without its code."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(prose(page))
    }


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_looked_at() -> None:
    found = {
        path for top in ("bpf", "xdplb", "scripts", "tests") for path in (ROOT / top).rglob("*.md")
    }
    assert {*found, *ROOT.glob("*.md")} == set(PAGES)


def test_whatever_ships_is_named_by_the_page() -> None:
    linked = {(SHARE / link).resolve() for link in LINK.findall(prose(PAGE))}
    files = {path for path in SHARE.rglob("*") if path.is_file()}
    assert files - {PAGE} <= linked


def test_the_help_says_where_the_page_is() -> None:
    assert f" {PAGE}\n" in CliRunner().invoke(commands, ["--help"]).output


def test_the_reference_is_what_the_program_says() -> None:
    page = PAGE.read_text()
    assert rewritten(page) == page, "make pages"


@pytest.mark.parametrize("words", [words for words, _ in command_lines()])
def test_every_command_shows_an_example(words: str) -> None:
    done = CliRunner().invoke(commands, [*words.split()[1:], "--help"])
    assert done.exit_code == 0
    assert "Example:\n" in done.output


# Examples


def blocks(page: Path, kind: str) -> Iterator[tuple[str, str]]:
    """The code of a kind, each with what stands behind its kind."""
    for info, text in FENCE.findall(page.read_text()):
        name, _, more = info.partition(" ")
        if name == kind:
            yield more, text


def calls() -> Iterator[str]:
    """What stands behind ``xdplb`` in code, but for what is made of the program's own help."""
    for page in (README, PAGE):
        text = MADE.sub("", page.read_text().replace("\\\n", " "))
        code = [block for info, block in FENCE.findall(text) if not info.startswith("toml")]
        code += INDENTED.findall(FENCE.sub("", text)) if page is README else []
        code += re.findall(r"`xdplb [^`]+`", FENCE.sub("", text))
        for line in chain.from_iterable(one.splitlines() for one in code):
            for call in CALL.findall(INNER.sub("1", line)):
                yield call.removesuffix(" ...").strip()


@pytest.mark.parametrize("call", sorted({*calls()} - {*NO_COMMANDS}))
def test_a_command_line_is_one(call: str) -> None:
    words = shlex.split(call, comments=True)
    command: click.Command = commands
    while isinstance(command, click.Group):
        _, rest, _ = command.make_parser(click.Context(command)).parse_args(words)
        if not rest:
            break
        command, words = command.commands[rest[0]], rest[1:]
    try:
        command.make_context("xdplb", words)
    except click.MissingParameter:
        assert len(call.split()) <= 2, "only the name of a command may go without its arguments"


def test_command_lines_are_found() -> None:
    assert {"status", "down", "backend list", "--netns lab status"} <= {
        call.strip() for call in calls()
    }


def test_files_in_the_readme_are_right(tmp_path: Path) -> None:
    (_, whole), (_, health) = blocks(README, "toml")
    assert "[service.health]" in health
    path = tmp_path / "xdplb.toml"
    for text in (whole, whole.partition('\n[[service]]\nname = "syslog"')[0] + health):
        path.write_text(text)
        path.chmod(0o600)
        assert config.load(path).services


def test_files_in_the_page_are_those_that_ship(tmp_path: Path) -> None:
    shown = dict(blocks(PAGE, "toml"))
    examples = SHARE / "examples"
    assert {SHARE / name for name in shown} == {*examples.iterdir()}
    for name, text in shown.items():
        assert (SHARE / name).read_text() == text
        path = tmp_path / Path(name).name
        path.write_text(text)
        path.chmod(0o600)
        assert config.load(path).services


# Tables


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    section = re.split(r"\n#+ ", page.read_text().split(f"# {heading}\n")[1])[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def kinds(error: type[XdplbError]) -> Iterator[type[XdplbError]]:
    yield error
    for one in error.__subclasses__():
        yield from kinds(one)


def test_exit_codes_are_those_of_the_errors() -> None:
    codes = {int(code) for code, _ in rows(PAGE, "Exit codes")}
    assert codes == {0, *(kind.exit_code for kind in kinds(XdplbError)), TERMINATED}
    said = README.read_text().split("Exit codes: ")[1].split("\n\n")[0]
    assert {int(code) for code in re.findall(r"\b(\d) \w", said)} == codes - {TERMINATED}


def test_verdicts_are_those_of_the_program() -> None:
    found = {
        name.strip("`"): what for name, what, _ in rows(ROOT / "bpf" / "README.md", "One packet")
    }
    assert list(found) == list(VERDICTS) == list(source.verdicts())
    for name, what in found.items():
        assert (what == "dropped") == name.startswith(DROPPED), name
        assert (what == "to the kernel, untouched") == name.startswith(PASSED), name


# JSON


class Machine(FakeMachine):
    """Stands in for ``xdplb.kernel.machine.Machine``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        """Nothing is open."""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with a balancer and flows."""
    made = Machine()
    Balancer(made).up(request())
    made.run_on()
    made.saved = FLOWS
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: made)
    return made


def keys(value: Any, path: str = "") -> Iterator[str]:
    """The keys of a JSON value, as the page writes them."""
    if isinstance(value, list):
        for one in value:
            yield from keys(one, f"{path}[]")
    elif isinstance(value, dict):
        for name, one in value.items():
            changing = path.endswith(("verdicts", "skipped"))
            yield from keys(one, f"{path}{'.' * bool(path)}{'*' if changing else name}")
    else:
        yield path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A configuration file that changes the balancer, and one with flows."""
    (tmp_path / "xdplb.toml").write_text(
        '[balancer]\ninterfaces = ["eth0"]\n[[service]]\nbackend = [{ address = "192.0.2.12" }]\n'
    )
    (tmp_path / "xdplb.toml").chmod(0o600)
    (tmp_path / "saved").write_bytes(b"".join(FLOWS.pieces()))
    return {name: f"{tmp_path / name}" for name in ("xdplb.toml", "saved")}


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("`status --json`", "status --json"),
        ("`backend list --json`", "backend list --json"),
        ("`flows --json`, `whois --json`", "flows --json"),
        ("`flows --json`, `whois --json`", "whois 192.0.2.1:2000 --json"),
        ("`apply --json`", "apply xdplb.toml --dry-run --json"),
        ("`restore --json`", "restore saved --json"),
    ],
)
def test_json_has_the_keys_that_the_page_names(
    machine: Machine, files: dict[str, str], heading: str, words: str
) -> None:
    assert machine.programs
    done = CliRunner().invoke(commands, [files.get(word, word) for word in words.split()])
    found = dict.fromkeys(keys(json.loads(done.stdout)))
    said = [cells[0] for cells in rows(PAGE, heading)]
    if "as `status --json` has them" in rows(PAGE, heading)[-1][1]:
        prefix = "balancers[].services[]."
        said[-1:] = [
            f"`{key.removeprefix(prefix)}`"
            for key, _ in rows(PAGE, "`status --json`")
            for key in [key.strip("`")]
            if key.startswith(f"{prefix}backends[]")
        ]
    assert [f"`{key}`" for key in found] == said


def test_every_command_with_json_has_its_keys_in_the_page() -> None:
    with_json = {
        words.removeprefix("xdplb ")
        for words, command in command_lines()
        if any("--json" in option.opts for option in command.params)
    }
    named = set(re.findall(r"`([\w ]+) --json`", "\n".join(HEADING.findall(PAGE.read_text()))))
    assert named == with_json
