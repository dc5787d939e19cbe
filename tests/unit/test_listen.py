"""Where the agent is spoken to, as it is written; and who must not be able to."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from xdplb.errors import InvalidValueError
from xdplb.listen import Listen, parse_place
from xdplb.model import Endpoint


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:9170", Endpoint(ip_address("127.0.0.1"), 9170)),
        ("[::1]:9170", Endpoint(ip_address("::1"), 9170)),
        ("192.0.2.1:80", Endpoint(ip_address("192.0.2.1"), 80)),
        ("/run/xdplb/agent.sock", Path("/run/xdplb/agent.sock")),
        ("/" + "a" * 106, Path("/" + "a" * 106)),
    ],
)
def test_it_is_an_address_and_a_port_or_a_path(text: str, place: Endpoint | Path) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text",
    ["", "9170", "127.0.0.1", "::1", "[::1]", "localhost:9170", "127.0.0.1:0", "127.0.0.1:65536",
     "run/agent.sock", "/" + "a" * 107, "/a\0b", "*:9170"],
)  # fmt: skip
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_place(text)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["127.0.0.1:1", "127.8.9.10:1", "[::1]:1", "/run/a"])
def test_this_machine_alone_may_always_come(text: str) -> None:
    assert f"{Listen(parse_place(text))}" == text


@pytest.mark.parametrize("text", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "10.0.0.1:1"])
def test_others_may_come_only_if_that_is_said(text: str) -> None:
    with pytest.raises(InvalidValueError, match="nobody is asked for a password") as caught:
        Listen(parse_place(text))
    assert "--allow-remote" in caught.value.hint
    assert f"{Listen(parse_place(text), allow_remote=True)}" == text
