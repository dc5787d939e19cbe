// What "xdplb status" says, every second. All text is set as text: names come from a file.
"use strict";

const POLL_MS = 1000;
const PATIENCE_MS = 3000;
const POINTS = 60;
const HIGH = 0.8;
const FULL = 0.95;

// Elements

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function mark(node, name, value) {
  if (node.getAttribute(name) !== `${value}`) node.setAttribute(name, value);
}

// A part is an element that knows how to show something: {node, update(item)}. One that was there
// for a key stays, so that nothing that is read, selected or spoken jumps.
const kept = new WeakMap();

function show(parent, items, keyOf, create) {
  const before = kept.get(parent) ?? new Map();
  const now = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const part = before.get(key) ?? create(item);
    part.update(item);
    now.set(key, part);
  }
  kept.set(parent, now);
  const nodes = [...now.values()].map((part) => part.node);
  for (const node of [...parent.children]) if (!nodes.includes(node)) node.remove();
  nodes.forEach((node, place) => {
    if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
  });
}

// Numbers

const whole = new Intl.NumberFormat("en");
const EMPTY = "–";

function short(value, unit = "") {
  if (value === null) return EMPTY;
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) {
      const scaled = value / size;
      return `${scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0)} ${letter}${unit}`;
    }
  }
  const digits = value > 0 && value < 9.95 ? value.toFixed(1) : `${Math.round(value)}`;
  return unit ? `${digits} ${unit}` : digits;
}

const percent = (part) => `${(100 * part).toFixed(part > 0 && part < 0.0995 ? 1 : 0)}\u00a0%`;

// Counters become rates: of each the last value is remembered, and the last minute of rates

const series = new Map();
let round = 0;

function rateOf(key, value, at) {
  const known = series.get(key) ?? { value, at, rate: null, points: [] };
  known.round = round;
  if (at > known.at) {
    known.rate = value < known.value ? null : (value - known.value) / (at - known.at);
    known.points = [...known.points, known.rate ?? 0].slice(-POINTS);
  }
  if (at !== known.at) [known.value, known.at] = [value, at];
  series.set(key, known);
  return known;
}

function together(all) {
  const known = all.filter((one) => one.rate !== null);
  const length = Math.max(0, ...all.map((one) => one.points.length));
  const points = Array.from({ length }, (_, at) =>
    all.reduce((sum, one) => sum + (one.points.at(at - length) ?? 0), 0));
  return { rate: known.length ? known.reduce((sum, one) => sum + one.rate, 0) : null, points };
}

// Small parts

function spark(kind) {
  const svg = document.createElementNS(SVG, "svg");
  const [area, line] = ["area", "line"].map((name) => {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    svg.append(path);
    return path;
  });
  svg.setAttribute("viewBox", `0 0 ${POINTS - 1} 24`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  return {
    node: make("div", { class: `spark ${kind}` }, svg),
    update(points) {
      const most = Math.max(1, ...points);
      const first = POINTS - points.length;
      const drawn = points.map((value, at) => `${first + at} ${(22 - 19 * (value / most)).toFixed(2)}`);
      line.setAttribute("d", drawn.length > 1 ? `M${drawn.join("L")}` : "");
      area.setAttribute("d", drawn.length > 1 ? `M${first} 24L${drawn.join("L")}L${POINTS - 1} 24Z` : "");
    },
  };
}

function meter(label) {
  const fill = make("div", { class: "fill" });
  const node = make("div", { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": 0 }, fill);
  return {
    node,
    update(value, most) {
      const part = most ? Math.min(1, value / most) : 0;
      fill.style.width = `${100 * part}%`;
      fill.hidden = part === 0;
      mark(node, "aria-valuenow", value);
      mark(node, "aria-valuemax", most);
      mark(node, "data-level", part >= FULL ? "full" : part >= HIGH ? "high" : "some");
    },
  };
}

function tile(label, unit, below) {
  const figure = make("span");
  const more = make("dd", { class: "more" });
  const node = make("div", { class: "tile card" },
    make("dt", {}, label),
    make("dd", { class: "figure" }, figure, make("span", { class: "unit" }, unit)),
    more, make("dd", { class: "below" }, below.node));
  return { node, figure, more };
}

function notice(kind) {
  const what = make("p");
  const hint = make("p");
  const node = make("div", { class: kind }, what, hint);
  return {
    node,
    update(item) {
      say(what, `${item.what}`);
      say(hint, `${item.hint ?? ""}`);
      hint.hidden = !item.hint;
    },
  };
}

// A table whose roles survive that it is no table any more on a phone

function table(columns, caption, className = "") {
  const body = make("tbody", { role: "rowgroup" });
  const head = make("tr", { role: "row" }, ...columns.map(([name, kind]) =>
    make("th", { scope: "col", role: "columnheader", class: kind }, name)));
  const node = make("table", { role: "table", class: className },
    caption, make("thead", { role: "rowgroup" }, head), body);
  return { node, body };
}

function row(columns) {
  const cells = columns.map(([name, kind], place) => place === 0
    ? make("th", { scope: "row", role: "rowheader" })
    : make("td", { role: "cell", class: kind, "data-label": name }));
  return { node: make("tr", { role: "row" }, ...cells), cells };
}

// A backend

const BACKEND = [
  ["Backend", "who"], ["State", "status"], ["Next hop", "hop"], ["Weight", "number weight"],
  ["Share of flows", "share"], ["Flows", "number flows"],
  ["Packets/s to it", "number speed"], ["Packets/s from it", "number speed"],
];

const endpoint = (address, port) =>
  port === null ? address : `${address.includes(":") ? `[${address}]` : address}:${port}`;

function backendRow() {
  const { node, cells } = row(BACKEND);
  const state = make("span", { class: "state" });
  const why = make("span", { class: "why" });
  cells[1].append(state, why);
  const mac = make("span", { class: "mono" });
  const via = make("span", { class: "small" });
  cells[2].append(mac, via);
  const actual = make("span");
  const wanted = make("span", { class: "wanted" });
  const share = meter("Share of flows");
  const expected = make("div", { class: "mark" });
  share.node.append(expected);
  cells[4].append(actual, wanted, share.node);
  const rates = [["in", cells[6]], ["out", cells[7]]].map(([kind, cell]) => {
    const number = make("span");
    const line = spark(kind);
    cell.append(make("div", { class: "rate" }, number, line.node));
    return { number, line };
  });
  return {
    node,
    update({ backend, total, to, from, watched }) {
      say(cells[0], endpoint(backend.address, backend.port));
      say(state, backend.state);
      mark(state, "data-state", backend.state);
      say(why, watched && !watched.healthy ? reasonOf(watched) : "");
      say(mac, backend.mac ?? "unresolved");
      mac.classList.toggle("unresolved", backend.mac === null);
      say(via, backend.next_hop === backend.address
        ? `on ${backend.interface}` : `${backend.next_hop} on ${backend.interface}`);
      say(cells[3], whole.format(backend.weight));
      const part = total ? backend.flows / total : 0;
      say(actual, total ? percent(part) : EMPTY);
      say(wanted, ` expected ${percent(backend.share)}`);
      share.update(total ? Math.round(100 * part) : 0, 100);
      mark(share.node, "data-level", "some");
      expected.style.left = `${100 * backend.share}%`;
      say(cells[5], whole.format(backend.flows));
      [to, from].forEach((rate, place) => {
        say(rates[place].number, short(rate.rate));
        rates[place].line.update(rate.points);
      });
    },
  };
}

function reasonOf(watched) {
  const reason = watched.reason || "silent while others answer";
  return watched.since === null ? reason : `${reason}, ${ago(watched.since)}`;
}

function ago(since) {
  const seconds = Math.max(0, Math.round(Date.now() / 1000 - since));
  if (seconds < 120) return `for ${seconds} s`;
  if (seconds < 7200) return `for ${Math.round(seconds / 60)} min`;
  return `for ${Math.round(seconds / 3600)} h`;
}

// A service

function serviceCard() {
  const name = make("strong");
  const dialled = make("span", { class: "dialled" });
  const hash = make("span", { class: "quiet" });
  const caption = make("caption", {}, make("div", { class: "title" }, name, dialled, hash));
  const { node, body } = table(BACKEND, caption);
  return {
    node: make("section", { class: "card service" }, node),
    update({ service, backends }) {
      const ports = service.ports === "all" ? "all ports"
        : `${/[-,]/.test(service.ports) ? "ports" : "port"} ${service.ports}`;
      say(name, service.name ?? service.address);
      say(dialled, `${service.name ? `${service.address} ` : ""}${service.protocol}, ${ports}`);
      say(hash, `by ${service.hash}`);
      show(body, backends, (one) => one.key, backendRow);
    },
  };
}

// What became of packets

const VERDICT = [
  ["Verdict", "verdict"], ["Packets", "number count"], ["Per second", "number speed"], ["Meaning", "words"],
];
const KINDS = { drop: "dropped", pass: "left to the host" };

function verdictRow() {
  const { node, cells } = row(VERDICT);
  const meaning = make("span");
  const hint = make("span", { class: "hint" });
  cells[3].append(meaning, hint);
  return {
    node,
    update({ name, count, rate, about }) {
      mark(node, "data-kind", name.split("_")[0]);
      say(cells[0], name);
      say(cells[1], whole.format(count));
      say(cells[2], short(rate.rate));
      say(meaning, about?.meaning ?? KINDS[name.split("_")[0]] ?? "");
      say(hint, about?.hint ?? "");
    },
  };
}

function verdictCard() {
  const caption = make("caption", {}, make("div", { class: "title" }, make("h3", {}, "What became of packets")));
  const { node, body } = table(VERDICT, caption, "verdicts");
  const count = make("summary");
  const names = make("p", { class: "mono" });
  const none = make("details", {}, count, names);
  return {
    node: make("section", { class: "card" }, node, none),
    update(verdicts) {
      const zero = verdicts.filter((one) => one.count === 0).map((one) => one.name);
      show(body, verdicts.filter((one) => one.count > 0), (one) => one.name, verdictRow);
      say(count, `${zero.length} of ${verdicts.length} never happened`);
      say(names, zero.join("  "));
      none.hidden = zero.length === 0;
    },
  };
}

// A balancer

function balancerSection() {
  const title = make("h2");
  const about = make("span", { class: "about" });
  const lines = { to: spark("in"), from: spark("out"), drops: spark("bad") };
  const meters = { flows: meter("Flows, of those there is room for"), ports: meter("NAT ports in use") };
  const tiles = {
    to: tile("To backends", " packets/s", lines.to),
    from: tile("To clients", " packets/s", lines.from),
    flows: tile("Flows", "", meters.flows),
    ports: tile("NAT ports in use", "", meters.ports),
    drops: tile("Dropped", " packets/s", lines.drops),
  };
  const warnings = make("div");
  const services = make("div");
  const verdicts = verdictCard();
  const node = make("section", { class: "balancer" }, title,
    make("dl", { class: "tiles" }, ...Object.values(tiles).map((one) => one.node)),
    warnings, services, verdicts.node);
  return {
    node,
    update(balancer) {
      const { item, traffic, drops, dropped } = balancer;
      const names = item.interfaces.flatMap((one) =>
        [make("span", {}, one.name), make("span", { class: "mode" }, one.mode)]);
      const key = JSON.stringify(item.interfaces);
      if (node.dataset.key !== key) title.replaceChildren(...names, about);
      node.dataset.key = key;
      say(about, `program ${item.program.id}, tag ${item.program.tag}, xdplb ${item.program.version}`);
      for (const [side, octets] of [["to", "bytesTo"], ["from", "bytesFrom"]]) {
        say(tiles[side].figure, short(traffic[side].rate));
        const { rate } = traffic[octets];
        say(tiles[side].more, short(rate === null ? null : 8 * rate, "bit/s"));
        lines[side].update(traffic[side].points);
      }
      say(tiles.drops.figure, short(drops.rate));
      say(tiles.drops.more, `${whole.format(dropped)} so far`);
      mark(tiles.drops.node, "data-alarming", drops.rate > 0);
      lines.drops.update(drops.points);
      say(tiles.flows.figure, whole.format(item.flows.active));
      say(tiles.flows.more, `room for ${whole.format(item.flows.capacity)}`);
      meters.flows.update(item.flows.active, item.flows.capacity);
      say(tiles.ports.figure, whole.format(item.nat_ports.used));
      say(tiles.ports.more, `of ${whole.format(item.nat_ports.total)}`);
      meters.ports.update(item.nat_ports.used, item.nat_ports.total);
      show(warnings, item.warnings ?? [], (one) => one.what, () => notice("notice"));
      show(services, balancer.services, (one) => one.key, serviceCard);
      verdicts.update(balancer.verdicts);
    },
  };
}

// From what is served to what is shown

const serviceKey = (name, address, protocol, ports) => JSON.stringify([name, address, protocol, ports]);

function digest(status, at, agent, meanings) {
  round += 1;
  const watched = new Map((agent?.watched ?? []).map((one) => [
    serviceKey(one.name, one.service, one.protocol, one.ports) + endpoint(one.address, one.port), one]));
  const balancers = status.balancers.map((item) => {
    const on = item.interfaces.map((one) => one.name).join();
    const every = { to: [], from: [], bytesTo: [], bytesFrom: [] };
    const services = item.services.map((service) => {
      const key = serviceKey(service.name, service.address, service.protocol, service.ports);
      const total = service.backends.reduce((sum, one) => sum + one.flows, 0);
      const backends = service.backends.map((backend) => {
        const place = key + endpoint(backend.address, backend.port);
        const rates = Object.fromEntries([
          ["to", "packets_in"], ["from", "packets_out"], ["bytesTo", "bytes_in"], ["bytesFrom", "bytes_out"],
        ].map(([name, counter]) => [name, rateOf(`${on} ${place} ${name}`, backend[counter], at)]));
        for (const name of Object.keys(every)) every[name].push(rates[name]);
        return { key: place, backend, total, watched: watched.get(place), ...rates };
      });
      return { key, service, backends };
    });
    const verdicts = Object.entries(item.verdicts).map(([name, count]) => (
      { name, count, rate: rateOf(`${on} ${name}`, count, at), about: meanings[name] }));
    const drops = verdicts.filter((one) => one.name.startsWith("drop_"));
    return {
      key: on, item, services, verdicts,
      traffic: Object.fromEntries(Object.entries(every).map(([name, all]) => [name, together(all)])),
      drops: together(drops.map((one) => one.rate)),
      dropped: drops.reduce((sum, one) => sum + one.count, 0),
    };
  });
  for (const [key, known] of series) if (known.round !== round) series.delete(key);
  return balancers;
}

// What has changed is spoken, and stands in the title

let states = new Map();

function tellChanges(balancers) {
  const now = new Map();
  const told = [];
  for (const balancer of balancers) {
    for (const { service, backends } of balancer.services) {
      for (const { key, backend } of backends) {
        now.set(key, backend.state);
        if (states.has(key) && states.get(key) !== backend.state) {
          told.push(`${endpoint(backend.address, backend.port)} of ${service.name ?? service.address} is ${backend.state}`);
        }
      }
    }
  }
  states = now;
  if (told.length) say(byId("spoken"), told.join(", "));
  return [...now.values()].filter((state) => state === "down").length;
}

function render(status, at, agent, meanings) {
  const balancers = digest(status, at, agent, meanings);
  const main = byId("balancers");
  const parts = balancers.length ? balancers : [{ key: "none" }];
  show(main, parts, (one) => one.key, (one) => one.item ? balancerSection() : {
    node: make("p", { class: "empty" }, "No balancer is up in this network namespace. ",
      make("code", {}, "xdplb up"), " starts one."),
    update() {},
  });
  const down = tellChanges(balancers);
  const host = agent?.host ?? "";
  say(byId("host"), host);
  say(byId("summary"), agent?.summary ?? "");
  document.title = [down ? `${down} down` : "", host, "xdplb"].filter(Boolean).join(" · ");
  say(byId("read"), `read at ${new Date(1000 * at).toLocaleTimeString()}`);
}

// Asking

let last = null;
let lostSince = null;
let meanings = null;

async function ask(path) {
  return fetch(path, { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
}

function alarm(items) {
  const node = byId("alarm");
  show(node, items, (one) => one.key, () => notice("told"));
  node.hidden = items.length === 0;
}

function pulse(state, text) {
  mark(byId("pulse"), "data-state", state);
  say(byId("pulse-text"), text);
  document.body.classList.toggle("lost", state === "lost");
}

function lost() {
  lostSince ??= Date.now();
  const from = last ? ` What is shown is from ${new Date(1000 * last).toLocaleTimeString()}.` : "";
  pulse("lost", `no answer ${ago(lostSince / 1000)}`);
  alarm([{
    key: "lost",
    what: "The agent does not answer.",
    hint: `Packets are forwarded without it, but nobody checks the backends.${from}`,
  }]);
}

function refused(reload) {
  return {
    key: "reload",
    what: `The configuration was refused at ${new Date(1000 * reload.at).toLocaleTimeString()}.`,
    hint: "What ran before goes on. The log of the agent, or 'xdplb check FILE', says what is wrong.",
  };
}

async function poll() {
  if (document.hidden) return;
  let answer, agent, body;
  try {
    meanings ??= (await (await ask("verdicts.json")).json()).verdicts;
    [answer, agent] = await Promise.all([
      ask("status.json"), ask("agent.json").then((one) => one.json())]);
    body = await answer.json();
  } catch {
    lost();
    return;
  }
  lostSince = null;
  pulse("live", "live");
  const alarms = agent.reload && !agent.reload.success ? [refused(agent.reload)] : [];
  if (body.error) {
    alarms.unshift({ key: "unread", what: `The status cannot be read: ${body.error}.`, hint: body.hint });
  } else {
    last = Number(answer.headers.get("Xdplb-Read-At"));
    render(body, last, agent, meanings);
  }
  alarm(alarms);
}

let wake = () => {};
document.addEventListener("visibilitychange", () => wake());

async function forever() {
  for (;;) {
    const began = Date.now();
    await poll();
    await new Promise((resolve) => {
      wake = resolve;
      setTimeout(resolve, Math.max(100, began + POLL_MS - Date.now()));
    });
  }
}

forever();
