"""``xdplb run --listen`` as a process, and its page in a browser, both in a namespace."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest
from browser import CHROMIUM, Browser
from fetch import fetch, is_served
from lab import SERVICE, XDPLB, Lab, wait_for

from xdplb.verdicts import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PORT: Final = 9170
HOME: Final = f"http://127.0.0.1:{PORT}/"
NAME: Final = "<img src=x onerror=document.title='caught'>&\"'"
A, B = "172.11.0.20", "172.11.0.21"
FILE: Final = f"""
[balancer]
interfaces = ["balancer"]
[[service]]
name = {json.dumps(NAME)}
address = "{SERVICE}"
ports = 53
hash = "5-tuple"
backend = [{{ address = "{A}" }}, {{ address = "{B}", weight = 3 }}]
health = {{ check = "icmp", interval = 0.1, timeout = 0.1, fall = 1, rise = 1 }}
[[service]]
address = "{SERVICE}"
ports = 514
backend = [{{ address = "{A}", port = 1514 }}]
"""
ECHO: Final = (
    "import socket as s,sys\nx=s.socket(2,2);x.bind((sys.argv[1],53))\n"
    "while 1:\n d,p=x.recvfrom(999);x.sendto(d,p)"
)


class Agent:
    """An agent that listens, in the balancer's namespace."""

    def __init__(self, lab: Lab, file: Path) -> None:
        self._lab, self._file = lab, file
        self._child: subprocess.Popen[bytes] | None = None
        lab.finally_(self.stop)

    def start(self) -> None:
        self._child = subprocess.Popen(
            [XDPLB, "--netns", self._lab.balancer, "run", "--config", self._file,
             "--listen", f"127.0.0.1:{PORT}"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: is_served(self._lab, PORT, "/healthz"))
        wait_for(lambda: json.loads(fetch(self._lab, PORT, "/status.json")[1])["balancers"])

    def stop(self) -> None:
        if self._child is not None:
            self._child.terminate()
            assert self._child.wait(10) == 0

    def reload(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGHUP)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("agent") / "xdplb.toml"
    made.write_text(FILE)
    made.chmod(0o600)
    return made


@pytest.fixture(scope="module")
def agent(lab: Lab, file: Path) -> Agent:
    made = Agent(lab, file)
    made.start()
    return made


@pytest.fixture(scope="module")
def browser(lab: Lab) -> Iterator[Browser]:
    found = shutil.which(CHROMIUM)
    if found is None and os.environ.get("XDPLB_REQUIRE_KERNEL") != "1":
        pytest.skip(f"needs {CHROMIUM}")
    assert found is not None, f"needs {CHROMIUM}"
    with Browser(lab.inside("b")) as started:
        yield started


@pytest.fixture
def home(lab: Lab, agent: Agent, browser: Browser) -> Iterator[Browser]:
    """The page, all backends up; what is done to the lab is undone."""
    assert agent
    browser.look(1200, 900)
    browser.events.clear()
    browser.open(HOME)
    browser.await_sight(".state[data-state=up]")
    yield browser
    lab.xdplb("backend", "undrain", A)
    lab.ip("h", f"address replace {B}/24 dev outside")
    wait_for(lambda: {it["state"] for it in lab.status()["services"][0]["backends"]} == {"up"})


@pytest.mark.usefixtures("agent")
def test_it_serves_what_the_commands_print(lab: Lab, file: Path) -> None:
    def shape(text: str) -> str:
        """All but the numbers at the ends of lines, which go on."""
        return re.sub(r" [0-9.e+]+(,?)$", r" N\1", text, flags=re.MULTILINE)

    status, text = fetch(lab, PORT, "/status.json")
    assert (status, shape(text)) == (200, shape(lab.xdplb("status", "--json").stdout))
    status, text = fetch(lab, PORT, "/metrics")
    assert status == 200
    assert shape(lab.xdplb("metrics").stdout) in shape(text)
    assert "process_resident_memory_bytes " in text
    taken = lab.xdplb("run", "--config", f"{file}", "--listen", f"127.0.0.1:{PORT}", check=False)
    assert taken.returncode == 3
    assert f"another process listens on 127.0.0.1:{PORT}" in taken.stderr
    assert "Traceback" not in taken.stderr


# The page

CONTRAST: Final = """
(() => {
  const channel = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (color) => {
    const parts = color.match(/[\\d.]+/g).map(Number);
    return { rgb: parts.slice(0, 3).map((part) => part / 255), alpha: parts[3] ?? 1 };
  };
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.alpha === 1) return color.rgb;
    }
    throw new Error("no ground");
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    const [one, other] = [light(parse(getComputedStyle(node).color).rgb), light(ground(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push([walker.currentNode.data, ratio]);
  }
  return poor;
})()
"""
"""The texts that stand out less from their ground than WCAG 2.1 (1.4.3) wants."""
TOO_WIDE: Final = """
[...document.querySelectorAll("tbody th, tbody td, .title, .figure")]
  .filter((it) => it.scrollWidth > it.clientWidth + 2).map((it) => it.textContent)
"""
ROWS: Final = """
[...document.querySelectorAll(".service")].map((card) =>
  [card.querySelector("strong").textContent,
   ...[...card.querySelectorAll("tbody tr")].map((row) =>
     [...row.children].slice(0, 4).map((cell) => cell.textContent).join("|"))])
"""


WARNED: Final = """
(async () => {
  const status = await (await fetch("status.json")).json();
  status.balancers[0].warnings = [
    { what: "<b>eth0</b> is odd", hint: "look at it" }, { what: "and this", hint: "" }];
  render(status, last + 1, null, {});
  const said = document.querySelectorAll(".balancer .notice p:not([hidden])");
  return [...said].map((it) => it.textContent);
})()
"""
"""What the page makes of a status with warnings."""


def rows_of(status: dict[str, Any]) -> list[list[str]]:
    """What the page's tables begin with."""

    def row(item: dict[str, Any]) -> str:
        port = "" if item["port"] is None else f":{item['port']}"
        mac = item["mac"] or "unresolved"
        return (
            f"{item['address']}{port}|{item['state']}|{mac}on {item['interface']}|{item['weight']}"
        )

    return [
        [service["name"] or service["address"], *map(row, service["backends"])]
        for service in status["services"]
    ]


def test_the_page_shows_the_status_as_it_changes(lab: Lab, home: Browser) -> None:
    browser = home
    for address in (A, B):
        lab.process("h", "python3", "-Sc", ECHO, address)
    assert browser.get(ROWS) == rows_of(lab.status())
    assert browser.get("document.querySelector('#pulse').dataset.state") == "live"
    assert browser.get("document.title").endswith("xdplb")
    assert browser.get("document.querySelectorAll('main img').length") == 0

    # Traffic: rates, flows, a drop with what it means and what to do
    client = lab.socket("172.11.0.22")

    def speak() -> bool:
        for port in (53, 514):
            client.sendto(b"?", (SERVICE, port))
        figures = "[...document.querySelectorAll('.tile .figure > :first-child')]"
        return bool(browser.get(f"{figures}.slice(0, 4).every((it) => parseFloat(it.textContent))"))

    wait_for(speak)
    assert browser.get(WARNED) == ["<b>eth0</b> is odd", "look at it", "and this"]
    lab.ip("h", f"address delete {B}/24 dev outside")
    browser.await_sight(".state[data-state=down]")
    assert "no answer within 0.1 s" in browser.wait_for(
        "[...document.querySelectorAll('.why')].map((it) => it.textContent).join()"
    )
    assert browser.get("document.title").startswith("1 down")
    assert browser.get("document.querySelector('#spoken').textContent").endswith("is down")
    lab.xdplb("backend", "drain", A)
    lab.socket("172.11.0.23").sendto(b"?", (SERVICE, 53))
    drop = "document.querySelector('tr[data-kind=drop]')"
    told = browser.wait_for(f"{drop}?.textContent")
    assert "drop_no_backend" in told
    assert VERDICTS["drop_no_backend"].meaning in told
    assert VERDICTS["drop_no_backend"].hint in told


def test_the_page_says_when_the_agent_or_its_file_is_not_well(
    lab: Lab, agent: Agent, home: Browser, file: Path
) -> None:
    browser = home
    file.write_text("nonsense")
    agent.reload()
    browser.wait_for("document.querySelector('#alarm').textContent.includes('was refused')")
    assert browser.complaints() == []
    assert browser.asked() == {
        HOME + path
        for path in (
            "", "page.css", "page.js", "icon.svg", "status.json", "agent.json", "verdicts.json",
        )
    }  # fmt: skip
    agent.stop()
    browser.wait_for("document.querySelector('#alarm').textContent.includes('does not answer')")
    assert browser.get("document.querySelector('#pulse').dataset.state") == "lost"
    assert browser.get("getComputedStyle(document.querySelector('#alarm')).display") != "none"
    assert browser.get(ROWS) == rows_of(lab.status())  # from before
    file.write_text(FILE)
    agent.start()
    browser.wait_for("document.querySelector('#alarm').hidden")
    assert browser.get("document.querySelector('#pulse').dataset.state") == "live"


def test_the_page_can_be_read_by_everybody_everywhere(lab: Lab, home: Browser) -> None:
    browser = home
    lab.ip("h", f"address delete {B}/24 dev outside")
    browser.await_sight(".state[data-state=down]")  # before A goes: the last one would be kept
    lab.xdplb("backend", "drain", A)
    browser.await_sight(".state[data-state=drain]")
    lab.socket("172.11.0.24").sendto(b"?", (SERVICE, 53))
    browser.await_sight("tr[data-kind=drop]")
    for width, dark in ((1200, False), (1200, True), (390, False), (320, True)):
        browser.look(width, 844, dark=dark)
        assert browser.get("document.documentElement.scrollWidth") <= width
        assert browser.get(CONTRAST) == []
        assert browser.get(TOO_WIDE) == []
    for table in browser.get(
        "[...document.querySelectorAll('table')].map((table) => ({"
        "  title: table.caption.textContent.trim(),"
        "  columns: [...table.tHead.rows[0].cells].every((it) => it.scope === 'col'),"
        "  rows: [...table.tBodies[0].rows].every((it) => it.cells[0].scope === 'row') }))"
    ):
        assert table["title"]
        assert table["columns"]
        assert table["rows"]
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value")) for node in tree}
    roles = {role for role, _ in named}
    assert {"table", "row", "columnheader", "rowheader", "cell"} <= roles  # on a phone, too
    assert {role for role, name in named if not name} & {"link", "meter", "table"} == set()
    assert ("meter", "NAT ports in use") in named
