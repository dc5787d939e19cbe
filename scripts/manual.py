"""The manual, a page for each command, and the completion of each shell: made from the commands.

usage: manual.py DIRECTORY
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import get_completion_class

from xdplb import __version__, errors
from xdplb.cli import commands

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME: Final = "xdplb"
_COMPLETE: Final = f"_{NAME.upper()}_COMPLETE"
_COMPLETIONS: Final = {
    "bash": f"bash-completion/completions/{NAME}",
    "zsh": f"zsh/site-functions/_{NAME}",
    "fish": f"fish/vendor_completions.d/{NAME}.fish",
}
"""Where each shell looks, below ``share``."""
_EXAMPLE: Final = "Example:\n"
_AS_IT_IS: Final = "\b\n"
_LONGEST: Final = 1000
_WORD: Final = re.compile(r"[^\s,/|]+")
"""Of an option's names, and of what stands for its values."""


@dataclass(frozen=True, slots=True)
class Page:
    """A command and those around it.

    Attributes:
        context: The command, and what it is called.
        siblings: The other commands of its group.
    """

    context: click.Context
    siblings: tuple[str, ...] = ()

    @property
    def command(self) -> click.Command:
        """The command."""
        return self.context.command

    @property
    def name(self) -> str:
        """Of the page."""
        return self.context.command_path.replace(" ", "-")

    @property
    def under(self) -> dict[str, click.Command]:
        """The commands of a group, each by the name of its page."""
        group = self.command
        found = group.commands if isinstance(group, click.Group) else {}
        return {f"{self.name}-{name}": found[name] for name in sorted(found)}


def pages(context: click.Context | None = None, siblings: tuple[str, ...] = ()) -> Iterator[Page]:
    """A page for a command and for each under it; for all of them without a context."""
    page = Page(context or _context(commands, NAME), siblings)
    yield page
    for name, command in page.under.items():
        inner = _context(command, name.removeprefix(f"{page.name}-"), page.context)
        yield from pages(inner, tuple(other for other in page.under if other != name))


def _context(
    command: click.Command, name: str, parent: click.Context | None = None
) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, **command.context_settings)


def text(page: Page) -> str:
    """The page in the macros of man(7)."""
    prose, examples = _help(page.command)
    return "\n".join(
        [
            f'.TH {_plain(page.name.upper())} 1 "{_date()}" "{NAME} {_plain(__version__)}"',
            ".nh",
            ".ad l",
            ".SH NAME",
            f"{_plain(page.name)} \\- {_plain(_lowered(_summary(page.command)))}",
            ".SH SYNOPSIS",
            _synopsis(page),
            ".SH DESCRIPTION",
            *_paragraphs(prose),
            *_options(page),
            *_commands(page),
            ".SH EXAMPLES",
            *_as_it_is(examples),
            ".SH EXIT STATUS",
            *_exit_codes(),
            *_see_also(page),
            "",
        ]
    )


def _date() -> str:
    """The day of the sources, where whoever builds the page knows it; else none."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return time.strftime("%Y-%m-%d", time.gmtime(int(epoch))) if epoch else ""


def _plain(words: str) -> str:
    """Text that means nothing to roff."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


def _summary(command: click.Command) -> str:
    """The first sentence of the help."""
    return command.get_short_help_str(_LONGEST).removesuffix(".")


def _lowered(sentence: str) -> str:
    """A sentence as it goes on behind a name; an abbreviation stays one."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence


def _help(command: click.Command) -> tuple[list[str], str]:
    """The paragraphs of the help, and the lines of its example."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    prose = [item for item in paragraphs if not item.startswith(_AS_IT_IS + _EXAMPLE)]
    lines = [item.partition(_EXAMPLE)[2] for item in paragraphs if item not in prose]
    return prose, inspect.cleandoc("\n" + "\n".join(lines))


def _synopsis(page: Page) -> str:
    pieces = [f"\\fI{_plain(item)}\\fR" for item in page.command.collect_usage_pieces(page.context)]
    return " ".join([f"\\fB{_plain(page.context.command_path)}\\fR", *pieces])


def _paragraphs(prose: list[str]) -> Iterator[str]:
    for number, paragraph in enumerate(prose):
        if number:
            yield ".PP"
        if paragraph.startswith(_AS_IT_IS):
            yield from _as_it_is(paragraph.removeprefix(_AS_IT_IS))
        else:
            yield from map(_plain, paragraph.splitlines())


def _as_it_is(lines: str) -> Iterator[str]:
    yield ".nf"
    yield from map(_plain, lines.splitlines())
    yield ".fi"


def _options(page: Page) -> Iterator[str]:
    yield ".SH OPTIONS"
    for parameter in page.command.get_params(page.context):
        names, said = parameter.get_help_record(page.context) or ("", "")
        if said:
            yield ".TP"
            yield _WORD.sub(_font, names).replace("|", "|\\:")
            yield _plain(said)
    if page.context.parent is not None:
        yield ".PP"
        yield f"Options before the command are those of \\fB{NAME}\\fR(1)."


def _font(found: re.Match[str]) -> str:
    """A word, told from those that are typed otherwise."""
    font = "B" if found[0].startswith("-") else "I"
    return f"\\f{font}{_plain(found[0])}\\fR"


def _commands(page: Page) -> Iterator[str]:
    if page.under:
        yield ".SH COMMANDS"
    for name, command in page.under.items():
        yield ".TP"
        yield f"\\fB{_plain(name)}\\fR(1)"
        yield _plain(_summary(command)) + "."


def _exit_codes() -> Iterator[str]:
    """Each code with what the documentation of its error says."""
    kinds = [errors.XdplbError, *errors.XdplbError.__subclasses__()]
    said = {kind.exit_code: inspect.getdoc(kind) or "" for kind in kinds}
    said[errors.XdplbError.exit_code] = f"A fault of {NAME}."
    for code, meaning in sorted({0: "Done.", **said}.items()):
        yield ".TP"
        yield f"\\fB{code}\\fR"
        yield _plain(meaning.partition("\n")[0])


def _see_also(page: Page) -> Iterator[str]:
    parent = page.context.parent
    others = [parent.command_path.replace(" ", "-")] if parent else []
    others += page.siblings if parent and parent.parent else ()
    if not others:
        return
    yield ".SH SEE ALSO"
    yield ",\n".join(f".BR {_plain(name)} (1)" for name in others)


def completion(shell: str) -> str:
    """The script that makes a shell complete."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(shell)
    return kind(commands, {}, NAME, _COMPLETE).source()


def write(directory: Path) -> dict[Path, str]:
    """Write everything; each file with its place below ``share``."""
    texts = {f"man/man1/{page.name}.1": text(page) for page in pages()}
    texts |= {place: completion(shell) for shell, place in _COMPLETIONS.items()}
    for place, content in texts.items():
        path = directory / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return {directory / place: place for place in texts}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
