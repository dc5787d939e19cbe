"""The pages for people: links lead somewhere, and what they say of the program is so."""

from __future__ import annotations

import re
import shlex
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner
from recipes import PAGE, SHARE, rows
from reference import command_lines, rewritten

from xdplb import config, source
from xdplb.cli import commands
from xdplb.errors import XdplbError
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
    """By itself, or by a directory that it is in."""
    linked = {(SHARE / link).resolve() for link in LINK.findall(prose(PAGE))} - {SHARE}
    files = {path for path in SHARE.rglob("*") if path.is_file()} - {PAGE}
    assert not [path for path in files if not linked & {path, *path.parents}]


def test_the_help_says_where_the_page_is() -> None:
    assert f" {PAGE}\n" in CliRunner().invoke(commands, ["--help"]).output


def test_the_reference_is_what_the_program_says() -> None:
    page = PAGE.read_text()
    assert rewritten(page) == page, "make pages"


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


def kinds(error: type[XdplbError]) -> Iterator[type[XdplbError]]:
    yield error
    for one in error.__subclasses__():
        yield from kinds(one)


def test_exit_codes_are_those_of_the_errors() -> None:
    codes = {int(code) for code, _ in rows(PAGE.read_text(), "Exit codes")}
    assert codes == {0, *(kind.exit_code for kind in kinds(XdplbError)), TERMINATED}
    said = README.read_text().split("Exit codes: ")[1].split("\n\n")[0]
    assert {int(code) for code in re.findall(r"\b(\d) \w", said)} == codes - {TERMINATED}


def test_verdicts_are_those_of_the_program() -> None:
    found = {
        name.strip("`"): what
        for name, what, _ in rows((ROOT / "bpf" / "README.md").read_text(), "One packet")
    }
    assert list(found) == list(VERDICTS) == list(source.verdicts())
    for name, what in found.items():
        assert (what == "dropped") == name.startswith(DROPPED), name
        assert (what == "to the kernel, untouched") == name.startswith(PASSED), name


def test_every_command_with_json_has_its_keys_in_the_page() -> None:
    with_json = {
        words.removeprefix("xdplb ")
        for words, command in command_lines()
        if any("--json" in option.opts for option in command.params)
    }
    named = set(re.findall(r"`([\w ]+) --json`", "\n".join(HEADING.findall(PAGE.read_text()))))
    assert named == with_json
