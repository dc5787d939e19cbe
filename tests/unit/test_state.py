"""What a balancer knows of itself, when it is not what this version wrote."""

from __future__ import annotations

import pytest

from xdplb.errors import TableError
from xdplb.state import State


@pytest.mark.parametrize("text", [b"", b"\0\0", b"{", b"{}", b"[]", b"null", b"7", b"\xff\xfe"])
def test_a_description_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(TableError) as refused:
        State.from_bytes(text)
    assert refused.value.exit_code == 4
    assert "nothing was changed" in refused.value.hint
