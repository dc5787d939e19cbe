"""What ``xdplb run --listen`` answers, whom, and what it does not let anybody do."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from served import Site, SlowMachine, report, visit

from xdplb.balancer import Balancer
from xdplb.errors import TableError
from xdplb.render import to_json
from xdplb.serving import server
from xdplb.serving.answers import Answers
from xdplb.serving.guard import HEADERS
from xdplb.serving.server import FILES, READ_AT, serving
from xdplb.verdicts import VERDICTS

if TYPE_CHECKING:
    from pathlib import Path

PATHS = [*FILES, "/status.json", "/agent.json", "/verdicts.json", "/metrics", "/healthz"]


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every value by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_status_is_what_the_command_prints() -> None:
    async def course(site: Site) -> None:
        before = time.time()
        status, headers, text = await site.get("/status.json")
        assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
        assert text == to_json(Balancer(site.machine).status()) + "\n"
        assert before - 0.001 <= float(headers[READ_AT]) <= time.time()

    visit(course)


def test_the_metrics_are_those_of_the_command_and_of_the_agent() -> None:
    async def course(site: Site) -> None:
        status, headers, text = await site.get("/metrics")
        assert status == 200
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        found = samples(text)
        on = ("interfaces", "eth0")
        assert found["xdplb_flows_capacity", frozenset({on})] == 262144
        assert found["xdplb_balancer_up", frozenset({on})] == 1
        assert found["xdplb_status_success", frozenset()] == 1
        assert found["process_open_fds", frozenset()] > 0
        assert found["xdplb_config_last_reload_success", frozenset()] == 1
        when = found["xdplb_config_last_reload_timestamp_seconds", frozenset()]
        assert when == 1_700_000_000.5

    visit(course)


def test_checks_are_told_under_the_labels_of_the_backends() -> None:
    async def course(site: Site) -> None:
        found = samples((await site.get("/metrics"))[2])
        (first, second) = (
            next(
                key[1]
                for key in found
                if key[0] == "xdplb_backend_up" and ("backend", it) in key[1]
            )
            for it in ("192.0.2.10", "192.0.2.11")
        )
        assert found["xdplb_backend_healthy", first] == 0
        assert found["xdplb_backend_healthy", second] == 1
        name = "xdplb_health_check_seconds"
        assert found[f"{name}_count", first] == 3
        assert found[f"{name}_sum", first] == pytest.approx(9.301)
        assert found[f"{name}_bucket", first | {("le", "0.001")}] == 1
        assert found[f"{name}_bucket", first | {("le", "0.25")}] == 1
        assert found[f"{name}_bucket", first | {("le", "0.5")}] == 2
        assert found[f"{name}_bucket", first | {("le", "5.0")}] == 2
        assert found[f"{name}_bucket", first | {("le", "+Inf")}] == 3
        assert found["xdplb_health_check_failures_total", first] == 2
        assert (f"{name}_count", second) not in found  # judged by its traffic alone

    visit(course)


def test_without_a_file_there_is_no_word_of_reloads_and_without_a_balancer_that_is_told() -> None:
    async def course(site: Site) -> None:
        site.report = replace(report(), runs=False, reload=None, watched=())
        site.machine.balancers = []
        text = (await site.get("/metrics"))[2]
        assert "xdplb_config" not in text
        assert samples(text)["xdplb_balancer_up", frozenset({("interfaces", "eth0")})] == 0

    visit(course)


def test_the_agent_says_why_a_backend_is_not_well() -> None:
    async def course(site: Site) -> None:
        told = json.loads((await site.get("/agent.json"))[2])
        assert (told["version"], told["host"]) == (1, socket.gethostname())
        assert told["summary"] == "1 service, 1 of 2 backends up"
        assert told["reload"] == {"success": True, "at": 1_700_000_000.5}
        assert told["watched"][0] == {
            "name": "dns",
            "service": "192.0.2.1",
            "protocol": "udp",
            "ports": "53",
            "address": "192.0.2.10",
            "port": None,
            "healthy": False,
            "reason": "refused",
            "since": 1_700.0,
        }

    visit(course)


def test_every_verdict_is_explained() -> None:
    async def course(site: Site) -> None:
        told = json.loads((await site.get("/verdicts.json"))[2])["verdicts"]
        assert list(told) == list(VERDICTS)
        assert told["drop_no_port"]["meaning"] == VERDICTS["drop_no_port"].meaning
        assert told["drop_no_port"]["hint"] == VERDICTS["drop_no_port"].hint

    visit(course)


def test_the_agent_is_well_as_long_as_it_goes_round() -> None:
    async def course(site: Site) -> None:
        assert (await site.get("/healthz"))[::2] == (200, "ok\n")
        site.report = replace(report(), alive=False)
        assert (await site.get("/healthz"))[0] == 503

    visit(course)


def test_balancers_that_cannot_be_read_are_a_word_not_a_silence() -> None:
    async def course(site: Site) -> None:
        site.machine.fail["running"] = [TableError("of another version", "take that one")]
        status, _, text = await site.get("/status.json")
        assert status == 503
        assert json.loads(text) == {
            "version": 1,
            "error": "of another version",
            "hint": "take that one",
        }
        status, _, text = await site.get("/metrics")
        assert status == 200
        found = samples(text)
        assert found["xdplb_status_success", frozenset()] == 0
        assert found["xdplb_balancer_up", frozenset({("interfaces", "eth0")})] == 1

    visit(course)


# Who asks for much


def test_however_many_ask_the_machine_is_read_once_and_the_loop_goes_on() -> None:
    free = threading.Event()

    def slowly(self: SlowMachine) -> list[object]:
        free.wait(5)
        return list(self.balancers)

    async def course(site: Site) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SlowMachine, "running", slowly)
            paths = ["/status.json", "/metrics"] * 8
            asked = [asyncio.create_task(site.get(path)) for path in paths]
            assert (await site.get("/healthz"))[0] == 200  # while the reading takes its time
            free.set()
            answers = await asyncio.gather(*asked)
        assert {answer[0] for answer in answers} == {200}
        assert len({text for _, _, text in answers}) == 2
        assert site.machine.readings == 1

    visit(course)


def test_no_more_connections_are_held_than_the_agent_can_spare(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(server, "LONGEST_S", 0.05)
    monkeypatch.setattr(server, "SWEEP_S", 0.02)

    async def course(site: Site) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(4)]
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await site.get("/healthz")
        for reader, writer in silent:  # and who says nothing is not waited for
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert (await site.get("/healthz"))[0] == 200

    visit(course)


def test_a_connection_has_one_request() -> None:
    async def course(site: Site) -> None:
        request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = await site.raw(request + request)
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"Connection: close" in answer

    visit(course)


# Who may not ask, and for what


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/../etc/passwd", "/page.js/"])
def test_every_answer_says_what_a_browser_may_do_with_it(path: str) -> None:
    async def course(site: Site) -> None:
        status, headers, _ = await site.get(path)
        assert status == (200 if path in PATHS else 404)
        assert {name: headers[name] for name in HEADERS} == HEADERS
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers

    visit(course)


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_the_body(path: str) -> None:
    async def course(site: Site) -> None:
        status, headers, text = await site.get(path, "HEAD")
        assert (status, text) == (200, "")
        assert int(headers["Content-Length"]) > 0

    visit(course)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/status.json", "/nothing"])
def test_nothing_can_be_changed(method: str, path: str) -> None:
    async def course(site: Site) -> None:
        status, headers, _ = await site.get(path, method)
        assert (status, headers["Allow"]) == (405, "GET,HEAD")
        assert site.machine.readings == 0

    visit(course)


@pytest.mark.parametrize("path", PATHS)
def test_a_name_of_somebody_else_is_not_answered(path: str) -> None:
    async def course(site: Site) -> None:
        status, _, text = await site.get(path, headers={"Host": "evil.example"})
        assert status == 421
        assert "as localhost" in text
        assert site.machine.readings == 0

    visit(course)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 421),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 5000 + b"\r\n\r\n", 400),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
    ],
)
def test_what_is_no_plain_request_is_refused_and_not_logged(
    sent: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def course(site: Site) -> None:
        answer = await site.raw(sent)
        assert answer.split()[1] == str(status).encode()
        assert b"Traceback" not in answer
        assert (await site.get("/healthz"))[0] == 200

    visit(course)
    assert caplog.records == []


def test_a_fault_of_ours_is_told_to_the_log_and_not_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def course(site: Site) -> None:
        site.machine.links = {}
        site.machine.usages = {}
        status, _, text = await site.get("/status.json")
        assert status == 500
        assert "KeyError" not in text

    visit(course)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError


def test_a_unix_socket_answers_whatever_it_is_called(tmp_path: Path) -> None:
    async def main() -> None:
        path = f"{tmp_path}/agent.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            sock.listen()
            async with (
                serving(sock, Answers(SlowMachine, report)),
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
                session.get("http://balancer.example/healthz") as answer,
            ):
                assert (answer.status, await answer.text()) == (200, "ok\n")

    asyncio.run(main())
