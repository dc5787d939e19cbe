"""What a terminal sends, as keys."""

from __future__ import annotations

import pytest

from xdplb.cli.terminal import keys_in


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("q", ["q"]),
        ("sr", ["s", "r"]),
        (" ", ["space"]),
        ("\x1b[A", ["up"]),
        ("\x1bOB", ["down"]),
        ("\x1b[5~\x1b[6~", ["page up", "page down"]),
        ("\x1b[Hx\x1b[F", ["home", "x", "end"]),
        ("\x1b[1~\x1b[4~", ["home", "end"]),
        ("\x04", ["q"]),
        ("\x1b[1;5A", []),  # a key with Ctrl is another one
        ("\x1b[200~p\x1b[201~", ["p"]),
        ("\x1b", []),
        ("\x1b[", []),
        ("\x00\x01\r\n", []),
        ("ä", ["ä"]),
        ("", []),
    ],
)
def test_what_is_sent_is_read_as_keys(sent: str, keys: list[str]) -> None:
    assert keys_in(sent) == keys
