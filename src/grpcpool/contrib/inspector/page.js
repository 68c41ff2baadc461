// The live page: asks for the figures of `pools` again and again, and brings the page up to date.
//
// Elements are kept and changed, never made anew, so that focus, selection and scrolling stay where the reader left
// them. All that comes from outside is set as text. With several server processes behind one address each answer may
// be another's: the page keeps the last of each and shows one.

const SVG = "http://www.w3.org/2000/svg";
const ANSWERS_WITHIN = 5000; // milliseconds
const FORGETS_PROCESS_AFTER = 60000;
const SAYS_EVERY = 10000;
const MARKS = 40; // waiters that are drawn one by one
const ROWS_EVERY = 30; // seconds of a row of the timeline's table

const REASONS = {
  idle: "unused for idle_timeout",
  age: "max_age was reached",
  shrink: "fewer are enough",
  refresh: "refreshed",
  overflow: "an extra one that came back",
  discarded: "discarded",
  lost: "down for idle_timeout",
  pool_closed: "the pool was closed",
};

const $ = (id) => document.getElementById(id);

// --- words ---------------------------------------------------------------------------------------------------------

const number = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;
const reason = (name) => REASONS[name] ?? name;

// What is said of an event: its tone, what it is, and the rest.
const EVENTS = {
  opened: ({ details: { seconds, replaces } }) => [
    "good", "Ready", ` after ${duration(seconds)}${replaces === null ? "" : `, in place of ${replaces}`}`],
  open_failed: ({ count, details: { error, retry_in } }) => [
    "bad", "Not opened", `${count === 1 ? "" : `, ${count} times`}: ${error}${retry_in === null ? "" : `; next attempt in ${duration(retry_in)}`}`],
  draining: ({ details }) => [
    "wait", "Draining", `: ${reason(details.reason)}; waits for ${details.in_flight} to end`],
  closed: ({ details }) => [
    details.cancelled ? "bad" : "plain", "Closed",
    `: ${reason(details.reason)}${details.cancelled ? `; ${details.cancelled} in flight cancelled` : ""}`],
  timed_out: ({ count, details }) => [
    "bad", "Timed out", `: ${plural(count, "waiter")}, ${count === 1 ? "" : "the last "}after ${duration(details.waited)}`],
  rejected: ({ count, details }) => [
    "bad", "Rejected", `: ${plural(count, "ask")}, for ${number.format(details.waiting)} waited already`],
  refused_stream: ({ count, details }) => [
    "wait", "Refused", ` by the server: ${plural(count, "stream")}; the limit is ${details.limit} now`],
  leaked: ({ details }) => ["bad", "Leaked?", ` A lease has been held for ${duration(details.held)}`],
};

function words(event) {
  return EVENTS[event.kind]?.(event) ?? ["plain", event.kind, ""];
}

// --- elements ------------------------------------------------------------------------------------------------------

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
  return element;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return set(element, attributes);
}

const draw = (tag, attributes = {}) => set(document.createElementNS(SVG, tag), attributes);

// Has `parent` hold one element for each item, in their order, and each brought up to date. What goes is removed first:
// what stays is then in its place already, and need not be moved, at which it would lose the focus.
function keep(parent, items, key, create, update) {
  const wanted = new Set(items.map((item) => String(key(item))));
  const there = new Map();
  for (const child of [...parent.children]) {
    if (!child.dataset.key) continue;
    if (wanted.has(child.dataset.key)) there.set(child.dataset.key, child);
    else child.remove();
  }
  let place = there.values().next().value ?? null;
  for (const item of items) {
    const name = String(key(item));
    let element = there.get(name);
    if (!element) {
      element = create(item);
      element.dataset.key = name;
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update(element, item);
  }
}

// --- connections ---------------------------------------------------------------------------------------------------

function newRow() {
  const bar = draw("svg", { "aria-hidden": "true", focusable: "false" });
  bar.append(
    draw("rect", { class: "bar-track", height: "100%", rx: 3 }),
    draw("rect", { class: "bar-fill", height: "100%", rx: 3 }),
    draw("rect", { class: "bar-target", height: "100%", width: 2 }),
  );
  const cell = (name, ...children) => make("td", { class: name }, ...children);
  const wide = make("td", { class: "wide" });
  wide.append(bar);
  const head = make("th", { scope: "row" });
  return make(
    "tr", {}, head, cell("state", make("span"), make("small")), wide, cell("number count"), cell("number age"), cell("number spare used soft"),
    cell("number spare calls soft"),
  );
}

function updateRow(row, channel, config, now) {
  const [head, state, wide, count, age, used, calls] = row.children;
  set(row, { "data-state": channel.state, "data-channel": channel.id });
  write(head, String(channel.id));
  write(state.firstChild, channel.state);
  write(state.lastChild, channel.reason ? ` (${channel.reason})` : "");
  write(count, channel.exclusive ? "whole" : `${channel.in_flight} / ${channel.limit}`);
  write(age, duration(now - channel.created_at));
  write(used, channel.calls ? `${duration(now - channel.used_at)} ago` : "never");
  write(calls, number.format(channel.calls));

  // As long as the most that a connection may carry, so that a limit that the server has lowered is seen.
  const most = Math.max(config.max_streams, channel.limit, 1);
  const part = (streams) => `${(100 * Math.min(streams, most)) / most}%`;
  const [track, fill, target] = wide.firstChild.children;
  set(track, { width: part(channel.limit) });
  set(fill, {
    width: part(channel.exclusive ? channel.limit : channel.in_flight),
    class: channel.exclusive ? "bar-alone" : "bar-fill",
  });
  set(target, { x: part(config.target_streams) });
  target.style.display = config.target_streams >= most ? "none" : "";
}

function updateQueue(card, stats, config) {
  const drawn = Math.min(stats.waiting, MARKS);
  const marks = card.querySelector(".queue-marks");
  set(marks, { width: drawn * 6, viewBox: `0 0 ${Math.max(1, drawn * 6)} 14`, preserveAspectRatio: "xMinYMid slice" });
  marks.style.display = drawn ? "" : "none";
  keep(marks, [...Array(drawn).keys()], (i) => i, (i) => draw("rect", { x: i * 6, width: 4, height: 14, rx: 1 }), () => {});
  const most = config.max_waiters === null ? "" : ` of ${number.format(config.max_waiters)} at most`;
  write(card.querySelector('[data-text="queue"]'), stats.waiting ? `${number.format(stats.waiting)}${most}` : "nobody");
}

// --- the timeline --------------------------------------------------------------------------------------------------

const CHARTS = { in_flight: "In flight", waiting: "Waiting", size: "Connections" };
const WIDTH = 600;
const HEIGHT = 48;

// Stretches of samples with no gap between: where nobody looked, nothing is known.
function stretches(at, every) {
  const found = [];
  at.forEach((moment, i) => {
    if (i === 0 || moment - at[i - 1] > 3.5 * every) found.push([i]);
    else found[found.length - 1].push(i);
  });
  return found;
}

function updateChart(figure, name, timeline, data) {
  const values = timeline[name];
  const svg = figure.querySelector("svg");
  if (!svg.firstChild) svg.append(draw("path", { class: "area" }), draw("path", { class: "stroke" }));
  const least = Math.min(...values), highest = Math.max(...values), last = values.at(-1);
  const top = Math.max(highest, 1) * 1.08;
  const x = (i) => (WIDTH * (1 - (data.now - timeline.at[i]) / data.keep)).toFixed(1);
  const y = (i) => (HEIGHT - 1 - ((HEIGHT - 2) * values[i]) / top).toFixed(1);
  let line = "", area = "";
  for (const run of stretches(timeline.at, data.every)) {
    const points = run.map((i) => `${x(i)} ${y(i)}`).join("L");
    line += `M${points}${run.length === 1 ? "h.1" : ""}`;
    area += `M${x(run[0])} ${HEIGHT}L${points}L${x(run.at(-1))} ${HEIGHT}Z`;
  }
  set(svg, { viewBox: `0 0 ${WIDTH} ${HEIGHT}` });
  set(svg.children[0], { d: area });
  set(svg.children[1], { d: line });
  const figures = values.length ? `now ${last}, least ${least}, most ${highest}` : "nothing is known yet";
  set(svg, { "aria-label": `${CHARTS[name]} in the last ${duration(data.keep)}: ${figures}` });
  write(figure.querySelector(".range"), values.length ? `${number.format(least)} to ${number.format(highest)}` : "");
}

// The same for those who do not see the drawing: the least and the most, half a minute a row.
function updateTable(details, timeline, data) {
  if (!details.open) return;
  const rows = new Map();
  timeline.at.forEach((at, i) => {
    const until = Math.ceil(at / ROWS_EVERY) * ROWS_EVERY;
    rows.set(until, [...(rows.get(until) ?? []), i]);
  });
  const range = (name, chosen) => {
    const values = chosen.map((i) => timeline[name][i]);
    const least = Math.min(...values), most = Math.max(...values);
    return least === most ? `${most}` : `${least} to ${most}`;
  };
  keep(
    details.querySelector("tbody"), [...rows].reverse(), ([until]) => until,
    () => make("tr", {}, make("th", { scope: "row" }), ...[1, 2, 3].map(() => make("td", { class: "number" }))),
    (row, [until, chosen]) => {
      write(row.children[0], clock.format(Math.min(until, data.now) * 1000));
      Object.keys(CHARTS).forEach((name, i) => write(row.children[i + 1], range(name, chosen)));
    },
  );
}

// Calls that got a place, a second, over the last samples that belong together.
function rate({ at, acquired }, every) {
  const run = stretches(at, every).at(-1)?.slice(-6) ?? [];
  if (run.length < 2) return "–";
  const [first, last] = [run[0], run.at(-1)];
  const found = (acquired[last] - acquired[first]) / (at[last] - at[first]);
  return found > 0 && found < 10 ? found.toFixed(1) : number.format(found);
}

// --- events --------------------------------------------------------------------------------------------------------

function newEvent() {
  return make("li", {}, make("time"), make("span", { class: "which" }), make("span", { class: "what" }, make("b"), ""));
}

function updateEvent(item, event) {
  const [time, which, what] = item.children;
  const [tone, name, rest] = words(event);
  set(item, { "data-tone": tone, "data-kind": event.kind });
  set(time, { datetime: new Date(event.last_at * 1000).toISOString() });
  write(time, clock.format(event.last_at * 1000));
  write(which, event.channel === null ? "" : String(event.channel));
  write(what.firstChild, name);
  if (what.lastChild.nodeType !== Node.TEXT_NODE) what.append("");
  if (what.lastChild.data !== rest) what.lastChild.data = rest;
}

// --- a pool --------------------------------------------------------------------------------------------------------

function newCard(pool) {
  const card = $("pool-template").content.firstElementChild.cloneNode(true);
  const heading = card.querySelector("h2");
  heading.id = `pool-${pool.id}-name`;
  card.id = `pool-${pool.id}`;
  set(card, { "aria-labelledby": heading.id });
  set(card.querySelector(".scroll"), { "aria-label": `Events of ${pool.name}` });
  set(card.querySelector(".connections table"), { "aria-label": `Connections of ${pool.name}` });
  set(card.querySelector(".as-table table"), { "aria-label": `The last minutes of ${pool.name}` });
  card.querySelector(".as-table").addEventListener("toggle", updatePage);
  return card;
}

function updateFigures(card, stats, timeline, every) {
  for (const figure of card.querySelectorAll("[data-figure]")) {
    const name = figure.dataset.figure;
    write(figure, number.format(stats[name]));
    set(figure.closest("div"), { "data-some": stats[name] ? name : null });
  }
  const places = stats.channels.filter(({ state }) => state === "ready").reduce((sum, { limit }) => sum + limit, 0);
  const text = (name, value) => write(card.querySelector(`[data-text="${name}"]`), value);
  text("places", `of ${plural(places, "place")} now`);
  text("waits", stats.waited ? `${plural(stats.waited, "wait")}, ${duration(stats.wait_seconds / stats.waited)} each` : "no waits yet");
  text("bounds", `${stats.ready} ready, ${stats.min_size}–${stats.max_size} allowed`);
  text("rate", rate(timeline, every));
  text("acquired", `${number.format(stats.acquired)} so far`);
}

function updateTags(card, pool) {
  const tags = card.querySelector(".tags");
  const state = pool.state === "open" ? "" : pool.state === "closed" ? "closed" : "void: made before a fork";
  const config = pool.config;
  const rest = `${pool.kind}, ${config.mode}, ${config.picker.replace("_", " ")}`;
  set(card, { "data-state": pool.state });
  if (tags.dataset.said === state + rest) return;
  tags.dataset.said = state + rest;
  tags.replaceChildren(...(state ? [make("b", {}, state), ", "] : []), rest);
}

function updatePairs(card, name, pairs) {
  const shown = (value) => {
    if (value === null) return "none";
    return typeof value === "number" ? String(value) : typeof value === "boolean" ? (value ? "yes" : "no") : value;
  };
  keep(
    card.querySelector(`[data-pairs="${name}"]`), Object.entries(pairs), ([key]) => key,
    ([key]) => make("div", {}, make("dt", {}, key), make("dd")),
    (pair, [, value]) => write(pair.lastChild, shown(value)),
  );
}

function updateCard(card, pool, data) {
  const { stats, timeline, config, events } = pool;
  write(card.querySelector("h2"), pool.name);
  updateTags(card, pool);
  for (const part of card.children) {
    if (part.tagName !== "HEADER") part.hidden = stats === null;
  }
  if (stats === null) return;
  updateFigures(card, stats, timeline, data.every);
  keep(
    card.querySelector(".connections tbody"), stats.channels, ({ id }) => id, newRow,
    (row, channel) => updateRow(row, channel, config, data.now),
  );
  card.querySelector('[data-none="channels"]').hidden = stats.channels.length > 0;
  card.querySelector(".connections table").hidden = stats.channels.length === 0;
  updateQueue(card, stats, config);
  for (const figure of card.querySelectorAll("[data-chart]")) updateChart(figure, figure.dataset.chart, timeline, data);
  write(card.querySelector('[data-text="reach"]'), duration(data.keep));
  write(card.querySelector('[data-text="since"]'), `${duration(data.keep)} ago`);
  keep(card.querySelector(".events ol"), events.toReversed(), ({ id }) => id, newEvent, updateEvent);
  card.querySelector('[data-none="events"]').hidden = events.length > 0;
  card.querySelector(".scroll").hidden = events.length === 0;
  updatePairs(card, "config", config);
  updatePairs(card, "closed", stats.closed);
  updateTable(card.querySelector(".as-table"), timeline, data);
}

// --- the page ------------------------------------------------------------------------------------------------------

const heard = new Map(); // of each process: its last answer, and when
let shown = null; // the process that is shown
let every = 1000;
let paused = false;
let timer = null;

function updatePage() {
  const data = heard.get(shown)?.data;
  if (!data) return;
  keep($("pools"), data.pools, ({ id }) => `${shown} ${id}`, newCard, (card, pool) => updateCard(card, pool, data));
  $("empty").hidden = data.pools.length > 0;
  $("overview").hidden = data.pools.length < 2;
  keep(
    $("overview").firstElementChild, data.pools, ({ id }) => `${shown} ${id}`,
    (pool) => make("li", {}, make("a", { href: `#pool-${pool.id}` }, make("b"), make("span"))),
    (item, { name, stats, state }) => {
      write(item.querySelector("b"), name);
      const figures = stats && `${plural(stats.in_flight, "in flight", "in flight")}, ${number.format(stats.waiting)} waiting`;
      write(item.querySelector("span"), state === "open" ? figures : state);
    },
  );
  updateProcesses(data);
}

function updateProcesses({ process }) {
  const name = ({ host, pid }) => `${pid} on ${host}`;
  $("processes").hidden = heard.size < 2;
  write($("whose"), heard.size < 2 ? `Process ${name(process)}` : `of ${heard.size} that answer here`);
  keep(
    $("process"), [...heard].sort(), ([key]) => key, ([key]) => make("option", { value: key }),
    (option, [, { data }]) => write(option, name(data.process)),
  );
  if ($("process").value !== shown) $("process").value = shown;
}

function hear(data) {
  const key = `${data.process.host} ${data.process.pid}`;
  const before = heard.get(key)?.data;
  heard.set(key, { data, at: performance.now() });
  for (const [other, { at }] of heard) {
    if (performance.now() - at > FORGETS_PROCESS_AFTER) heard.delete(other);
  }
  if (!heard.has(shown)) shown = key;
  every = Math.max(250, data.every * 1000);
  if (key === shown) {
    tellOf(before, data);
    updatePage();
  } else {
    updateProcesses(heard.get(shown).data);
  }
}

function pulse(state, text) {
  set($("pulse"), { "data-state": state });
  write($("pulse-text"), text);
}

async function look() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  let delay = every;
  try {
    const answer = await fetch("pools", { cache: "no-store", signal: AbortSignal.timeout(ANSWERS_WITHIN) });
    if (!answer.ok) throw new Error(`answered ${answer.status}`);
    hear(await answer.json());
    if (!paused) pulse("live", "live");
  } catch (error) {
    delay = Math.max(every, 2000);
    pulse("lost", error.message.startsWith("answered") ? `the server ${error.message}` : "no answer");
  }
  clearTimeout(timer);
  if (!paused) timer = setTimeout(look, delay);
}

// --- what is said to those who listen ------------------------------------------------------------------------------

const unsaid = [];
let saidAt = -SAYS_EVERY;
let saysAt = null;

// Only what may need somebody, at most every few seconds: figures that change all the time would drown the rest.
function tellOf(before, data) {
  if (!before) return;
  for (const pool of data.pools) {
    const known = Math.max(0, ...(before.pools.find(({ id }) => id === pool.id)?.events ?? []).map(({ id }) => id));
    const fresh = pool.events.filter(({ id }) => id > known);
    const bad = fresh.map((event) => [event, ...words(event)]).filter(([, tone]) => tone === "bad");
    for (const [event, , name, rest] of bad) {
      const which = event.channel === null ? "" : `, connection ${event.channel}`;
      unsaid.push(`${pool.name}${which}: ${name}${rest}.`);
    }
  }
  if (unsaid.length && saysAt === null) {
    saysAt = setTimeout(say, Math.max(0, saidAt + SAYS_EVERY - performance.now()));
  }
}

function say() {
  const more = unsaid.length - 3;
  write($("said"), unsaid.slice(0, 3).join(" ") + (more > 0 ? ` And ${plural(more, "event")} more.` : ""));
  unsaid.length = 0;
  saysAt = null;
  saidAt = performance.now();
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  set($("pause"), { "aria-pressed": paused });
  if (paused) pulse("paused", "paused");
  look();
});
$("process").addEventListener("change", () => {
  shown = $("process").value;
  updatePage();
});
document.addEventListener("visibilitychange", look);
look();
