"""How backends are watched: what is refused before anything is asked."""

from __future__ import annotations

from typing import Any

import pytest

from xdplb.checks import Health
from xdplb.errors import InvalidValueError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": 0.09}, "health interval 0.09 is out of range"),
        ({"interval": 3601}, "health interval 3601 is out of range"),
        ({"timeout": 0}, "health timeout 0 is out of range"),
        ({"timeout": 3601}, "health timeout 3601 is out of range"),
        ({"rise": 0}, "health rise 0 is out of range"),
        ({"rise": 1001}, "health rise 1001 is out of range"),
        ({"fall": 0}, "health fall 0 is out of range"),
        ({"fall": 1001}, "health fall 1001 is out of range"),
        ({"jitter": -0.1}, "health jitter -0.1 is out of range"),
        ({"jitter": 1}, "health jitter 1 is out of range"),
        ({"min_healthy": -1}, "health min-healthy -1 is out of range"),
        ({"min_healthy": 65536}, "health min-healthy 65536 is out of range"),
        ({"port": 0}, "health port 0 is out of range"),
        ({"port": 65536}, "health port 65536 is out of range"),
    ],
)
def test_a_number_that_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Health(**options)
    assert f"{caught.value}" == message
    assert caught.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"interval": 0.1, "timeout": 0.01, "rise": 1, "fall": 1, "jitter": 0, "min_healthy": 0},
        {"interval": 3600, "timeout": 3600, "rise": 1000, "fall": 1000, "jitter": 0.9},
        {"port": 1, "min_healthy": 65535},
        {"port": 65535},
    ],
)
def test_a_number_at_the_end_of_its_range_is_taken(options: dict[str, Any]) -> None:
    health = Health(**options)
    assert {name: getattr(health, name) for name in options} == options
