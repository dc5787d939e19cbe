"""The parts of the page for users that say what the program itself says: commands, keys, metrics.

Each part stands between two comments that name it. ``python tests/reference.py`` writes them into
the page; a test says when they are not what the program says.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from inspect import cleandoc
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final

import click
from full_status import STATUS
from prometheus_client.parser import text_string_to_metric_families
from recipes import PAGE
from served import report

from xdplb.cli import commands
from xdplb.config.schema import schema
from xdplb.metrics import Status, text_of
from xdplb.serving.figures import Figures
from xdplb.verdicts import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_NUMBER: Final = re.compile("^INTEGER( RANGE)?$")
_DEFAULT: Final = re.compile(r"\s*\[default: ([^\]]+)\]$")
_REF: Final = "#/definitions/"
_COMMON: Final = "NoCheckTable"
_HEADINGS: Final = {
    "BalancerTable": "`[balancer]`",
    "ServiceTable": "`[[service]]`",
    "BackendTable": "`[[service.backend]]`",
    "TimeoutsTable": "`timeouts` of a service",
    _COMMON: "`[service.health]`",
}
_OWN_KEYS: Final = {
    "HttpTable": "http",
    "HttpsTable": "https",
    "UdpTable": "udp",
    "DnsTable": "dns",
    "ExecTable": "exec",
}
_WITHOUT_CHECK: Final = "How they are asked; without, they are judged by the traffic alone."
_KEY_COLUMNS: Final = ("key", "values", "default", "meaning")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(' '.join(cell.split()) for cell in row)} |\n" for row in lines)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _quoted(text: str) -> str:
    """Prose with commands, which a terminal gets between apostrophes, as Markdown has them."""
    return re.sub(r"(?<!\w)'([^']+)'(?!\w)", r"`\1`", text).replace("|", "\\|")


# Commands


def command_lines() -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it, in the order of the help."""
    yield from _below("xdplb", commands)


def _below(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from _below(f"{words} {name}", one)


def command_reference() -> str:
    """Every command with its options, as its help has them."""
    return "\n".join(_command(words, command) for words, command in command_lines())


def _command(words: str, command: click.Command) -> str:
    context = click.Context(command)
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    usage = " ".join([words, *(one.make_metavar(context) for one in arguments)])
    prose, _, example = cleandoc(command.help or "").partition("\b\nExample:\n")
    paragraphs = [" ".join(it.split()) for it in prose.strip().split("\n\n")]
    options = [one for one in command.params if isinstance(one, click.Option)]
    rows = [_option(one, context) for one in options if "--help" not in one.opts]
    parts = [f"#### `{usage}`\n", *(f"{_quoted(paragraph)}\n" for paragraph in paragraphs)]
    if rows:
        parts.append(_table(("option", "meaning", "default"), rows))
    return "\n".join([*parts, f"```sh\n{dedent(example).strip()}\n```\n"])


def _option(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    names = [*option.opts, *option.secondary_opts]
    value = "" if option.is_flag else f" {_NUMBER.sub('N', option.make_metavar(context))}"
    shown = " ".join(_code(f"{name}{value}") for name in names)
    meaning = option.help or ""
    found = _DEFAULT.search(meaning)
    default = found[1] if found else ""
    if option.show_default and not found:
        default = _shown(option)
    return shown, _quoted(_DEFAULT.sub("", meaning)), default


def _shown(option: click.Option) -> str:
    if option.secondary_opts:
        return _code((option.opts if option.default else option.secondary_opts)[0])
    values = option.default if isinstance(option.default, list) else [option.default]
    return " ".join(_code(f"{value}") for value in values)


# The configuration file


def file_reference() -> str:
    """Every key of the configuration file, as the schema has it."""
    definitions = schema()["definitions"]
    parts = []
    for name, heading in _HEADINGS.items():
        node = definitions[name]
        what = node["description"] if name != _COMMON else "How the backends are watched."
        keys = _keys(node, definitions)
        parts += [f"#### {heading}\n", f"{what}\n", _table(_KEY_COLUMNS, keys)]
    parts += ["Each `check` has keys of its own:\n", _table(("`check`", "what it does"), _checks())]
    common = definitions[_COMMON]["properties"]
    own = [
        (_code(check), *row)
        for name, check in _OWN_KEYS.items()
        for row in _keys(definitions[name], definitions)
        if row[0].strip("`") not in common
    ]
    return "\n".join([*parts, _table(("`check`", *_KEY_COLUMNS), own)])


def _checks() -> Iterator[tuple[str, str]]:
    for name, node in schema()["definitions"].items():
        if "check" in node.get("properties", {}) and name != _COMMON:
            (kind,) = node["properties"]["check"]["enum"]
            yield _code(kind), node["description"].replace("\n\n", " ")


def _keys(node: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    needed = node.get("required", ())
    for key, entry in node["properties"].items():
        values, meaning = _values(entry, definitions), entry["description"]
        if key == "check":
            values, meaning = ", ".join(kind for kind, _ in _checks()), _WITHOUT_CHECK
        default = "needed" if key in needed else ""
        if "default" in entry:
            default = _code(_literal(entry["default"]))
        yield _code(key), values, default, meaning


def _literal(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, bool) or value == "" else f"{value}"


def _values(entry: dict[str, Any], definitions: dict[str, Any]) -> str:  # noqa: PLR0911
    """What a key can be."""
    for reference in [entry, *entry.get("allOf", [])]:
        if "$ref" in reference:
            name = reference["$ref"].removeprefix(_REF)
            return _values(definitions[name], definitions)
    if "enum" in entry:
        return ", ".join(_code(one) for one in entry["enum"])
    if "anyOf" in entry:
        return " or ".join(dict.fromkeys(_values(one, definitions) for one in entry["anyOf"]))
    match entry["type"]:
        case "array":
            return f"a list of: {_values(entry['items'], definitions)}"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number":
            return f"{entry['minimum']:,} to {entry['maximum']:,}"
        case "object":
            return "a table"
    return "text" + "".join(f" like {_code(one)}" for one in entry.get("examples", ())[:1] if one)


# Metrics and verdicts


def metric_reference() -> str:
    """Every metric, as an agent has it."""
    status = replace(STATUS, verdicts=dict.fromkeys(VERDICTS, 0))
    text = text_of(Status([status]), Figures(report(), readable=True))
    return _table(
        ("metric", "type", "labels", "meaning"),
        (
            (
                _code(family.samples[0].name),
                family.type,
                ", ".join(_code(label) for label in family.samples[0].labels),
                family.documentation,
            )
            for family in text_string_to_metric_families(text)
        ),
    )


def verdict_reference() -> str:
    """Every verdict, with what to do about it."""
    return _table(
        ("verdict", "meaning", "what to do"),
        ((_code(name), it.meaning, _quoted(it.hint)) for name, it in VERDICTS.items()),
    )


# The page

PARTS: Final[dict[str, Callable[[], str]]] = {
    "commands": command_reference,
    "file": file_reference,
    "metrics": metric_reference,
    "verdicts": verdict_reference,
}


def rewritten(page: str) -> str:
    """The page with the parts as they are now."""
    for name, make in PARTS.items():
        before, rest = page.split(f"<!-- {name} -->\n")
        _, after = rest.split(f"<!-- end of {name} -->\n")
        page = f"{before}<!-- {name} -->\n\n{make()}\n<!-- end of {name} -->\n{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
