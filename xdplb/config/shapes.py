"""Single values of the file: what they look like, and how they are read.

Each is a type of the standard library with an example for the messages and a pattern for
editors. Where a pattern says less than is meant, ``reader`` names the function that decides.
"""

# The types are needed when the module runs: no postponed annotations here.
import re
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from xdplb.config.payload import parse_payload
from xdplb.errors import InvalidValueError
from xdplb.listen import parse_place
from xdplb.model import MAX_FLOWS_LIMIT, MAX_PORT, MAX_WEIGHT, Address
from xdplb.parsing import (
    parse_address,
    parse_mac,
    parse_path,
    parse_ports,
    parse_reservation,
)
from xdplb.request import refuse_no_host

MAX_SECONDS: Final = 86400
MAX_NAME: Final = 255
"""Of a question to a name server, with all its dots (RFC 1035 2.3.4)."""

_V4: Final = r"[0-9]{1,3}(\.[0-9]{1,3}){3}"
_V6: Final = r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*"
_PORT: Final = r"[0-9]{1,9}"
_CODE: Final = r"[1-5][0-9]{2}(-[1-5][0-9]{2})?"

Read: TypeAlias = Callable[[str], object]


def _shape(read: Read, pattern: str, *examples: object) -> Meta:
    """Text that ``read`` takes or refuses."""
    return Meta(
        examples=list(examples),
        extra_json_schema={"pattern": f"^({pattern})$"} if pattern else {},
        extra={"read": read},
    )


def reader(meta: Meta) -> Read | None:
    """What decides about text of this shape, None if its type says all."""
    read: Read | None = (meta.extra or {}).get("read")
    return read


def _like(pattern: str, what: str) -> Read:
    """Take text as it is if all of it matches."""
    compiled = re.compile(pattern)

    def read(text: str) -> str:
        if not compiled.fullmatch(text):
            raise InvalidValueError(f"{text!r} is not {what}")
        return text

    return read


def parse_host(text: str) -> Address:
    """The address of one host.

    Raises:
        InvalidValueError: It is no address, or not one of a host.
    """
    address = parse_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        raise InvalidValueError(
            f"{text} is an IPv4 address written as an IPv6 one", f"write {address.ipv4_mapped}"
        )
    refuse_no_host("address", address)
    return address


def _name(text: str) -> None:
    """Refuse what a terminal would obey, or show as something else."""
    if not text.isprintable():
        raise InvalidValueError(f"{text!r} has characters that cannot be printed")


def _client(text: str) -> None:
    refuse_no_host("client", parse_reservation(text).client.address)


def _status(text: str) -> None:
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not re.fullmatch(_CODE, part, re.ASCII) or (dash and first > last):
            raise InvalidValueError(
                f"{part!r} is not a status", 'write 200, "200-399" or "200-299,301"'
            )


Port: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_PORT, examples=[53])]
Weight: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_WEIGHT, examples=[2])]
Flows: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_FLOWS_LIMIT, examples=[262144])]
ClientFlows: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_FLOWS_LIMIT, examples=[1000])]
Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_SECONDS, examples=[120])]
Interval: TypeAlias = Annotated[float, Meta(ge=0.1, le=3600, examples=[2])]
Wait: TypeAlias = Annotated[float, Meta(ge=0.01, le=3600, examples=[1])]
Times: TypeAlias = Annotated[int, Meta(ge=1, le=1000, examples=[3])]
Part: TypeAlias = Annotated[float, Meta(ge=0, le=0.9, examples=[0.1])]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=65535, examples=[1])]
Name: TypeAlias = Annotated[str, _shape(_name, "", "dns")]
Interface: TypeAlias = Annotated[str, Meta(min_length=1, examples=["eth0"])]
Host: TypeAlias = Annotated[str, _shape(parse_host, f"{_V4}|{_V6}", "192.0.2.10")]
PortsText: TypeAlias = Annotated[str, _shape(parse_ports, f"{_PORT}(-{_PORT})?", "8000-8010")]
Client: TypeAlias = Annotated[
    str, _shape(_client, rf"({_V4}|\[{_V6}\]):{_PORT}={_PORT}", "198.51.100.7:5555=6666")
]
Place: TypeAlias = Annotated[
    str, _shape(parse_place, rf"({_V4}|\[{_V6}\]):{_PORT}|/.*", "127.0.0.1:9170")
]
Mac: TypeAlias = Annotated[
    str, _shape(parse_mac, "[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}", "00:00:5e:00:01:35")
]
FilePath: TypeAlias = Annotated[str, _shape(parse_path, "/.*", "/etc/xdplb/secret")]
Payload: TypeAlias = Annotated[str, _shape(parse_payload, "", "PING")]
UrlPath: TypeAlias = Annotated[
    str, _shape(_like(r"/\S*", "a path that begins with / and has no space"), r"/\S*", "/health")
]
HostName: TypeAlias = Annotated[
    str, _shape(_like(r"\S*", "a name without spaces"), r"\S*", "www.example.org")
]
StatusText: TypeAlias = Annotated[str, _shape(_status, rf"{_CODE}(,{_CODE})*", "200-399")]
StatusCode: TypeAlias = Annotated[int, Meta(ge=100, le=599, examples=[200])]
Body: TypeAlias = Annotated[str, Meta(examples=["ok"])]
Question: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=MAX_NAME, examples=["example.org"])
]
RecordType: TypeAlias = Annotated[
    str, _shape(_like(r"[A-Z][A-Z0-9]*", "a type of records"), r"[A-Z][A-Z0-9]*", "AAAA")
]
Argument: TypeAlias = Annotated[str, Meta(examples=["/usr/local/lib/check"])]
Wish: TypeAlias = Literal["up", "drain", "down"]
"""What a backend can be asked to be; health may find out that one is down, too."""
