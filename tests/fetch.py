"""HTTP from inside of a lab: the socket is made in a namespace, the rest is the library's."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from socket import AF_INET
from socket import socket as _Socket  # noqa: N812 - as in the lab
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from xdplb.kernel import netns

if TYPE_CHECKING:
    from lab import Lab


def fetch(lab: Lab, port: int, path: str, where: str = "b") -> tuple[int, str]:
    """The status and the body of what is served on a namespace's loopback."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        with netns.inside(lab.path(where)):
            connection.sock = _Socket(AF_INET)
        connection.sock.settimeout(10)
        connection.sock.connect(("127.0.0.1", port))
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def is_served(lab: Lab, port: int, path: str) -> bool:
    """Whether something is served there, and is well."""
    try:
        return fetch(lab, port, path)[0] == http.HTTPStatus.OK
    except OSError:
        return False


def asked(lab: Lab, port: int, path: str, **values: str) -> Any:
    """What Prometheus answers to a question."""
    status, text = fetch(lab, port, f"{path}?{urlencode(values)}")
    answer = json.loads(text)
    assert (status, answer["status"]) == (http.HTTPStatus.OK, "success"), (values, text)
    return answer["data"]
