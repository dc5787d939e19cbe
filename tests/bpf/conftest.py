"""What the floor of single packets shares."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import pytest
from bpf_harness import free_all

from xdplb.kernel import netns

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Programs are kept for the next test of a file, and freed behind the last."""
    yield
    free_all()


@pytest.fixture
def private_network() -> Iterator[None]:
    """A network namespace without anybody's sockets, for the time of one test."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(netns.CLONE_NEWNET) == 0
    try:
        yield
    finally:
        assert libc.setns(home, netns.CLONE_NEWNET) == 0
        os.close(home)
