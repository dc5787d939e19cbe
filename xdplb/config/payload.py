r"""The bytes of a check as text, for a file.

Text stands for itself in UTF-8. What begins with ``0x`` is hexadecimal digits, two for each byte,
with spaces where they help. For text that itself begins with ``0x``, put a backslash before it: one
is taken away wherever nothing but backslashes stands before a leading ``0x``.

=================  ====================
In the file        Sent
=================  ====================
``"PING\r\n"``     PING and a line end
``"0x00 ff"``      two bytes
``'\0x00'``        the four letters 0x00
``'\\0x00'``       ``\0x00``
=================  ====================
"""

from __future__ import annotations

import re
from typing import Final

from xdplb.errors import InvalidValueError

_HEX: Final = "0x"
_ESCAPED: Final = re.compile(r"\\+0x")
_LOOKS_ESCAPED: Final = re.compile(r"\\*0x")
_LINE_ENDS: Final = str.maketrans("", "", "\r\n\t")


def parse_payload(text: str) -> bytes:
    """Read bytes.

    Raises:
        InvalidValueError: What begins with ``0x`` is not hexadecimal.
    """
    if text.startswith(_HEX):
        try:
            return bytes.fromhex(text.removeprefix(_HEX))
        except ValueError:
            raise InvalidValueError(
                f"{text!r} begins with 0x and is not hexadecimal",
                r"write two digits for each byte, or '\0x...' for text",
            ) from None
    return (text[1:] if _ESCAPED.match(text) else text).encode()


def format_payload(data: bytes) -> str:
    """Write bytes as text where people can read it, and in hexadecimal where they cannot."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _HEX + data.hex()
    if not text.translate(_LINE_ENDS).isprintable():
        return _HEX + data.hex()
    return "\\" + text if _LOOKS_ESCAPED.match(text) else text
