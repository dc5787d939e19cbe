"""The help, the README and the units agree with the commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from textwrap import dedent

import click
import pytest
from click.testing import CliRunner
from reference import command_lines

from xdplb.cli import commands

TREE = Path(__file__).parents[2]
README = (TREE / "README.md").read_text()
UNITS = TREE / "xdplb" / "share" / "systemd"
_CODE = re.compile(r"^(xdplb .*)$", re.MULTILINE)
_STARTED = re.compile(r"^Exec\w+=/usr/bin/(xdplb .*)$", re.MULTILINE)


PATHS = [tuple(words.split()[1:]) for words, _ in command_lines()]
NAMES = [" ".join(path) for path in PATHS]


def examples_of(path: tuple[str, ...]) -> list[str]:
    """Those in the help of a command."""
    result = CliRunner().invoke(commands, [*path, "--help"])
    assert result.exit_code == 0
    return lines(dedent(result.output.partition("Example:\n")[2].partition("\n\n")[0]))


def lines(text: str) -> list[str]:
    """Those that a person could copy; those that end with a backslash go on."""
    return _CODE.findall(text.replace("\\\n", " "))


def words(line: str) -> list[str]:
    """A line as a shell splits it, up to what is the shell's own."""
    found = shlex.split(line, comments=True)
    ends = [number for number, word in enumerate(found) if word in {">", "|", "&&"}]
    return found[1 : min(ends, default=len(found))]


def parse(line: str) -> tuple[str, ...]:
    """Parse a line as ``xdplb`` would, and invoke nothing; the command that it is."""
    context = commands.make_context("xdplb", words(line))
    path: tuple[str, ...] = ()
    while isinstance(context.command, click.Group):
        left = [*context._protected_args, *context.args]  # noqa: SLF001 - where click has it
        if not left:
            break
        name, command, left = context.command.resolve_command(context, left)
        assert name is not None
        assert command is not None
        context = command.make_context(name, left, parent=context)
        path = (*path, name)
    return path


EXAMPLES = [
    *(line for path in PATHS for line in examples_of(path)),
    *(line for unit in UNITS.iterdir() for line in _STARTED.findall(unit.read_text())),
]


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_help_has_an_example_of_the_command_itself(path: tuple[str, ...]) -> None:
    assert [line for line in examples_of(path) if parse(line)[: len(path)] == path]


@pytest.mark.parametrize("line", dict.fromkeys(EXAMPLES))
def test_an_example_can_be_typed(line: str) -> None:
    assert parse(line) in PATHS


def test_there_are_examples_of_every_kind() -> None:
    assert len(EXAMPLES) > 40
    assert parse("xdplb --netns x flows kill --all") == ("flows", "kill")
    with pytest.raises(click.UsageError):
        parse("xdplb up --no-such-option")


@pytest.mark.parametrize("path", PATHS[1:], ids=NAMES[1:])
def test_the_readme_names_every_command(path: tuple[str, ...]) -> None:
    *group, name = path
    before = f"{' '.join(group)} [a-z|]*" if group else "xdplb "
    assert re.search(rf"{before}\b{name}\b", README)
