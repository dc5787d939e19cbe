"""The JSON Schema of the file, for editors: ``python -m xdplb.config.schema`` prints it.

It is made of the tables. What JSON Schema cannot say (who is whose backend, which ports meet) is
left to ``load``: what the schema refuses is wrong, what it takes may still be.
"""

from __future__ import annotations

import json
import re
import sys
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, Final, get_args

from msgspec import json as msgspec_json
from msgspec import structs

from xdplb.config import tables
from xdplb.config.checking import NO_CHECK
from xdplb.config.files import SHARE

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH: Final = SHARE / "xdplb.schema.json"
_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
_REF: Final = "#/definitions/"
_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def schema() -> dict[str, Any]:
    """The schema, of the draft that editors for TOML know."""
    kinds: list[type[tables.Table]] = [tables.File, *_below(tables.File)]
    definitions = msgspec_json.schema_components([tables.File], ref_template=f"{_REF}{{name}}")[1]
    cleaned: dict[str, Any] = {name: _clean(one) for name, one in definitions.items()}
    for kind in kinds:
        _describe(kind, cleaned[kind.__name__])
    for one in cleaned.values():
        one["title"] = one["title"].removesuffix("Table")
        one["description"] = _prose(one["description"])
    _let_check_out(cleaned[tables.NoCheckTable.__name__])
    file = cleaned.pop(tables.File.__name__)
    return {
        "$schema": _DRAFT,
        **file,
        "title": "xdplb",
        "definitions": dict(sorted(cleaned.items())),
    }


def text() -> str:
    """The schema as it is written into a file."""
    return json.dumps(schema(), indent=2) + "\n"


def _below(kind: type[tables.Table]) -> Iterator[type[tables.Table]]:
    """All tables in a table."""
    for field in structs.fields(kind):
        yield from _in(field.type)


def _in(kind: object) -> Iterator[type[tables.Table]]:
    if isinstance(kind, type) and issubclass(kind, tables.Table):
        yield kind
        yield from _below(kind)
    for one in get_args(kind):
        yield from _in(one)


def _clean(node: Any) -> Any:  # noqa: ANN401 - JSON
    """A part of the schema without what TOML does not have, and what editors do not know."""
    if isinstance(node, list):
        return [_clean(one) for one in node]
    if not isinstance(node, dict):
        return node
    clean = {name: _clean(one) for name, one in node.items() if name != "discriminator"}
    if clean.get("default", 0) in (None, [], {}):
        del clean["default"]
    options = [one for one in clean.pop("anyOf", []) if one != {"type": "null"}]
    if len(options) == 1:
        clean = {**options[0], **clean}
    elif options:
        clean["anyOf"] = options
    return clean


def _describe(kind: type[tables.Table], node: dict[str, Any]) -> None:
    """Give a table and its keys the words of their docstrings."""
    node["description"] = _summary(kind)
    words = {
        name: description for base in reversed(kind.__mro__) for name, description in _keys(base)
    }
    for field in structs.fields(kind):
        entry = node["properties"][field.encode_name]
        if "$ref" in entry:  # beside which this draft takes nothing
            entry["allOf"] = [{"$ref": entry.pop("$ref")}]
        entry["description"] = words[field.name]
    if kind.__struct_config__.tag_field:
        node["properties"]["check"]["description"] = _summary(kind)


def _summary(kind: type) -> str:
    """A docstring without the list of attributes."""
    return _prose(cleandoc(kind.__doc__ or "").partition("\n\nAttributes:")[0])


def _prose(words: str) -> str:
    """Each paragraph on one line, without the margin that docstrings have before Python 3.13."""
    return "\n\n".join(_one_line(paragraph) for paragraph in words.split("\n\n"))


def _keys(kind: type) -> Iterator[tuple[str, str]]:
    """The attributes in a docstring, each with its description."""
    listed = cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    for name, description in _ATTRIBUTE.findall(listed):
        yield name, _one_line(description)


def _one_line(words: str) -> str:
    return " ".join(words.split())


def _let_check_out(node: dict[str, Any]) -> None:
    """A table of health that names no check has none."""
    node["required"].remove("check")
    node["properties"]["check"]["default"] = NO_CHECK


if __name__ == "__main__":
    sys.stdout.write(text())
