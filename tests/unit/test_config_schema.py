"""The JSON Schema for editors: it is that of the code, and means what the code means."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from config_texts import BAD_FOR_BOTH, GOOD
from hypothesis import given
from request_strategies import requests

from xdplb.checks import Health
from xdplb.config import dump
from xdplb.config.files import EXAMPLE
from xdplb.config.schema import PATH, schema, text
from xdplb.config.tables import NoCheckTable
from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdplb.request import Request

VALIDATOR = jsonschema.Draft7Validator(schema())


def _errors(toml: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(tomllib.loads(toml))]


def _nodes(node: object) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for one in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _nodes(one)


def test_the_file_is_what_the_code_makes() -> None:
    assert PATH.read_text() == text(), "python -m xdplb.config.schema > xdplb/share/..."


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(json.loads(PATH.read_text()))


def test_every_key_is_described_and_no_other_is_known() -> None:
    tables = [node for node in _nodes(schema()) if "additionalProperties" in node]
    assert len(tables) == 14
    for table in tables:
        assert table["additionalProperties"] is False
        assert table["description"]
        assert all(entry["description"] for entry in table["properties"].values())


def test_nothing_is_in_it_that_toml_does_not_have() -> None:
    assert not [node for node in _nodes(schema()) if node.get("type") == "null"]


def test_the_example_is_good_and_names_the_schema() -> None:
    example = EXAMPLE.read_text()
    assert example.startswith(f"#:schema ./{PATH.name}\n")
    assert _errors(example) == []


@pytest.mark.parametrize("toml", GOOD)
def test_a_good_file_is_good(toml: str) -> None:
    assert _errors(toml) == []


@pytest.mark.parametrize("toml", [toml for toml, *_ in BAD_FOR_BOTH])
def test_a_mistake_is_a_mistake(toml: str) -> None:
    assert _errors(toml)


@given(requests())
def test_what_is_written_is_good(request: Request) -> None:
    assert _errors(dump(request)) == []


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("interval", "interval"),
        ("timeout", "timeout"),
        ("rise", "rise"),
        ("fall", "fall"),
        ("jitter", "jitter"),
        ("min-healthy", "min_healthy"),
    ],
)
def test_ranges_are_those_of_health(name: str, field: str) -> None:
    entry = schema()["definitions"][NoCheckTable.__name__]["properties"][name]
    least, most = entry["minimum"], entry["maximum"]
    for good in (least, most):
        values: dict[str, Any] = {field: good}
        Health(**values)
    for bad in (least - 0.001, most + 0.001):
        values = {field: bad}
        with pytest.raises(InvalidValueError, match="out of range"):
            Health(**values)
