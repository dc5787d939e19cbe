"""The manual and the shells' completion, as they are made from the commands."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import click
import manual
import pytest

from xdplb.cli import commands

if TYPE_CHECKING:
    from pathlib import Path

PAGES = {page.name: page for page in manual.pages()}


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")


def names(command: click.Command, path: str) -> list[str]:
    """What the pages of a command, and of those under it, have to be called."""
    under = command.commands if isinstance(command, click.Group) else {}
    return [path, *(name for key in under for name in names(under[key], f"{path}-{key}"))]


def test_every_command_has_a_page() -> None:
    assert sorted(PAGES) == sorted(names(commands, "xdplb"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_all_that_the_help_has(name: str) -> None:
    page = PAGES[name]
    text = manual.text(page)
    for parameter in page.command.params:
        if isinstance(parameter, click.Option):
            for option in [*parameter.opts, *parameter.secondary_opts]:
                assert f"\\fB{option}\\fR".replace("-", "\\-") in text
    examples = (page.command.help or "").partition("Example:\n")[2].splitlines()
    assert examples
    for line in filter(None, map(str.strip, examples)):
        assert f"\n{line}\n".replace("-", "\\-") in text
    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS"):
        assert text.count(f"\n.SH {section}\n") == 1


def test_a_page_names_those_around_it() -> None:
    add = manual.text(PAGES["xdplb-backend-add"])
    assert ".SH SEE ALSO\n.BR xdplb\\-backend (1),\n.BR xdplb\\-backend\\-drain (1),\n" in add
    assert "xdplb\\-backend\\-add (1)" not in add
    assert "\\fBxdplb\\-backend\\-add\\fR(1)\nAdd a backend" in manual.text(PAGES["xdplb-backend"])


def test_a_page_says_what_each_exit_code_means() -> None:
    text = manual.text(PAGES["xdplb"])
    for code in range(5):
        assert f".TP\n\\fB{code}\\fR\n" in text
    assert "\\fB2\\fR\nA value in the request cannot be used.\n" in text


def test_a_page_has_a_day_only_where_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert manual.text(PAGES["xdplb"]).startswith('.TH XDPLB 1 "2026-01-01" "xdplb ')
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert manual.text(PAGES["xdplb"]).startswith('.TH XDPLB 1 "" "xdplb ')


def test_text_means_nothing_to_roff() -> None:
    """What roff would take for a macro, an escape or a hyphen comes out as it is written."""

    @click.command(help=".dot first, then\n'quote and a \\backslash\n\n\b\nExample:\n    xdplb -x")
    def strange() -> None:
        """Have the help above."""

    page = manual.Page(click.Context(strange, info_name="xdplb-UDP"))
    text = manual.text(page)
    assert "\n\\&.dot first, then\n\\&'quote and a \\ebackslash\n" in text
    assert "\nxdplb \\-x\n" in text


def test_bash_takes_the_script_of_completion(tmp_path: Path) -> None:
    made = manual.write(tmp_path)
    assert set(made.values()) == {f"{path.relative_to(tmp_path)}" for path in made}
    script = f"{tmp_path}/bash-completion/completions/xdplb"
    subprocess.run(["bash", "--norc", "-euc", f". {script}; complete -p xdplb"], check=True)
