"""The joined program and what it says of itself."""

from __future__ import annotations

import re

import pytest

from xdplb import source
from xdplb.model import IPV4, IPV6
from xdplb.verdicts import DROPPED, VERDICTS

BOTH = pytest.mark.parametrize("version", [IPV4, IPV6])


def _joined(version: int) -> list[str]:
    return re.findall(r'^#line 1 "bpf/(.*)"$', source.text(version), re.MULTILINE)


@BOTH
def test_each_file_of_the_text_begins_with_its_line_marker(version: int) -> None:
    assert _joined(version) == source.files(version)


@BOTH
def test_the_text_says_first_of_which_ip_version_it_is(version: int) -> None:
    text = source.text(version)
    assert text.index(f"#define FAMILY {version}\n") < text.index("#line 1")


def test_the_two_texts_differ_in_the_files_of_their_ip_version_only() -> None:
    pairs = zip(_joined(IPV4), _joined(IPV6), strict=True)
    assert [pair for pair in pairs if len(set(pair)) > 1] == [
        ("ipv4.h", "ipv6.h"),
        ("arp.h", "ndp.h"),
    ]


def test_verdicts_are_unique() -> None:
    assert len(set(source.verdicts())) == len(source.verdicts())


def test_each_verdict_of_the_program_is_explained_in_its_order() -> None:
    assert tuple(VERDICTS) == source.verdicts()


def test_for_each_drop_there_is_something_to_do() -> None:
    assert all(bool(item.hint) == name.startswith(DROPPED) for name, item in VERDICTS.items())


def test_the_stand_in_headers_are_there() -> None:
    assert (source.headers() / "include" / "linux" / "kconfig.h").is_file()
