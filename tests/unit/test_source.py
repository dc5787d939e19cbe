"""The joined program and what it says of itself."""

from __future__ import annotations

import re

from xdplb import source


def test_each_file_of_the_text_begins_with_its_line_marker() -> None:
    text = source.text()
    assert re.findall(r'^#line 1 "bpf/(.*)"$', text, re.MULTILINE) == list(source.FILES)


def test_verdicts_are_unique() -> None:
    assert len(set(source.verdicts())) == len(source.verdicts())


def test_the_stand_in_headers_are_there() -> None:
    assert (source.headers() / "include" / "linux" / "kconfig.h").is_file()
