"""A kernel that is too old is told so, and not that the program is wrong."""

from __future__ import annotations

import errno

import pytest
from bpf_harness import Loaded, free_all

from xdplb.errors import LoadError, NotReadyError
from xdplb.kernel import features, libbpf


def test_this_kernel_lacks_nothing() -> None:
    assert features.lacking() == ""
    features.require()


def refusing(*names: str) -> object:
    """A kernel that does not take programs of these names."""
    load = libbpf.load_program

    def load_program(name: str, code: bytes, log_size: int = 0) -> tuple[int, str]:
        return (-errno.EINVAL, "why") if name in names else load(name, code, log_size)

    return load_program


def test_a_kernel_without_compare_and_swap_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    free_all()
    monkeypatch.setattr(libbpf, "load_program", refusing("xdplb", "xdplb_feature"))
    with pytest.raises(NotReadyError, match=r"too old: it has no atomic .*\(Linux 5\.12\)"):
        Loaded()


def test_one_that_has_all_says_why_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    free_all()
    monkeypatch.setattr(libbpf, "load_program", refusing("xdplb"))
    with pytest.raises(LoadError, match="Invalid argument\nwhy"):
        Loaded()


def test_one_that_may_not_be_asked_is_not_called_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "load_program", lambda *_: (-errno.EPERM, ""))
    assert features.lacking() == ""
