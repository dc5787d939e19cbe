"""That ``doctor`` asks for every function of libbpf that is called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xdplb.errors import BccMissingError
from xdplb.kernel import libbpf, ring


def test_every_function_that_is_called_is_named() -> None:
    text = "".join(Path(f"{module.__file__}").read_text() for module in (libbpf, ring))
    body = text.replace(text.partition("FUNCTIONS: Final = (")[2].partition(")")[0], "")
    assert set(re.findall(r'"((?:bpf|ring_buffer)_\w+)"', body)) == set(libbpf.FUNCTIONS)


class Old:
    """A library that has but one of them."""

    bpf_xdp_query = 1


def test_what_an_old_library_lacks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_library", Old)
    assert set(libbpf.missing()) == set(libbpf.FUNCTIONS) - {"bpf_xdp_query"}
    with pytest.raises(BccMissingError, match="has no bpf_prog_get_fd_by_id"):
        libbpf.program_fd(1)


def test_without_a_library_all_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise BccMissingError("no libbpf")

    monkeypatch.setattr(libbpf, "_library", none)
    assert libbpf.missing() == libbpf.FUNCTIONS
