// The live page: fetches `pools` regularly and updates the page.
//
// Elements are updated in place, never recreated, so that focus, selection and scroll position are kept. All data is
// inserted as text. With several server processes behind one address, each response may come from a different one: the
// page keeps the last response of each process and shows one of them.

const SVG = "http://www.w3.org/2000/svg";
const RESPONSE_TIMEOUT = 5000; // milliseconds
const PROCESS_EXPIRES_AFTER = 60000;
const ANNOUNCEMENT_INTERVAL = 10000;
const MERGED_IS_NEW_AFTER = 60; // seconds
const MAX_MARKS = 40; // waiters that are drawn individually
const ROW_SECONDS = 30; // seconds in each row of the timeline's table

const REASONS = {
  idle: "idle for idle_timeout",
  age: "max_age reached",
  shrink: "fewer connections suffice",
  refresh: "refreshed",
  overflow: "extra connection beyond max_size released",
  discarded: "discarded",
  lost: "connection down",
  unresponsive: "no answer for unresponsive_after",
  address_gone: "address gone",
  pool_closed: "pool closed",
};

const $ = (id) => document.getElementById(id);

// --- text ----------------------------------------------------------------------------------------------------------

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
const times = (count) => (count === 1 ? "" : `, ${number.format(count)} times`);
const reason = (name) => REASONS[name] ?? name;

// How an event is shown: its severity, its name, and the details.
const EVENTS = {
  opened: ({ details: { seconds, replaces } }) => [
    "good", "Opened", ` in ${duration(seconds)}${replaces === null ? "" : `, replaces ${replaces}`}`],
  open_failed: ({ count, details: { error, retry_in } }) => [
    "bad", "Open failed", `${times(count)}: ${error}${retry_in === null ? "" : `; next attempt in ${duration(retry_in)}`}`],
  lost: ({ count, details: { cause, up } }) => [
    "bad", "Lost", `${times(count)}${cause === null ? "" : `: ${cause}`}; ${up ? `${up} up` : "none is up"}`],
  recovered: ({ count, details: { seconds } }) => [
    "good", "Recovered", `${times(count)}${count === 1 ? "" : ", the last"} after ${duration(seconds)}`],
  avoided: ({ count, details: { code } }) => [
    "wait", "Avoided", `${times(count)}: ${code === null ? "the server refused a stream" : `a call failed with ${code}`}`],
  draining: ({ details }) => [
    "wait", "Draining", `: ${reason(details.reason)}; ${details.in_flight} in flight`],
  closed: ({ details }) => [
    details.cancelled ? "bad" : "plain", "Closed",
    `: ${reason(details.reason)}${details.cancelled ? `; cancelled ${details.cancelled} in flight` : ""}`],
  addresses_changed: ({ count, details }) => [
    "plain", "Addresses changed", `${times(count)}: ${details.addresses} now, ${details.new} new, ${details.gone} gone`],
  look_up_failed: ({ count, details: { error } }) => ["bad", "Look-up failed", `${times(count)}: ${error}`],
  timed_out: ({ count, details }) => [
    "bad", "Timed out", `: ${plural(count, "waiter")}, ${count === 1 ? "" : "the last "}after ${duration(details.waited)}`],
  rejected: ({ count, details }) => [
    "bad", "Rejected", `: ${plural(count, "request")}; queue full (${number.format(details.waiting)} waiting)`],
  refused_stream: ({ count, details }) => [
    "wait", "Refused", `: ${plural(count, "stream")}, by the server; limit now ${details.limit}`],
  leaked: ({ count, details }) => ["bad", "Possible leak", `${times(count)}: lease held for ${duration(details.held)}`],
};

function describeEvent(event) {
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

// Makes the children of `parent` match `items`: one updated element for each item, in order. Obsolete elements are
// removed first, so that the others are already in place: moving an element would lose the focus.
function syncChildren(parent, items, key, create, update) {
  const wanted = new Set(items.map((item) => String(key(item))));
  const existing = new Map();
  for (const child of [...parent.children]) {
    if (!child.dataset.key) continue;
    if (wanted.has(child.dataset.key)) existing.set(child.dataset.key, child);
    else child.remove();
  }
  let place = existing.values().next().value ?? null;
  for (const item of items) {
    const name = String(key(item));
    let element = existing.get(name);
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
    "tr", {}, head, cell("state", make("span"), make("small")), cell("spare address soft"), wide, cell("number count"), cell("number age"), cell("number spare used soft"),
    cell("number spare calls soft"), cell("number spare failed soft"),
  );
}

function updateRow(row, channel, config, now) {
  const [head, state, address, wide, count, age, used, calls, failed] = row.children;
  // A connection that is avoided is ready.
  const shownState = channel.avoided && channel.state === "ready" ? "avoided" : channel.state;
  set(row, { "data-state": shownState, "data-channel": channel.id });
  write(head, String(channel.id));
  write(state.firstChild, shownState);
  write(address, channel.address ?? "");
  write(state.lastChild, channel.reason ? ` (${channel.reason})` : "");
  write(count, channel.exclusive ? "exclusive" : `${channel.in_flight} / ${channel.limit}`);
  write(age, duration(now - channel.created_at));
  write(used, channel.calls ? `${duration(now - channel.used_at)} ago` : "never");
  write(calls, number.format(channel.calls));
  write(failed, number.format(channel.failures));

  // The bar's length is max_streams, so that a lower limit of the server is visible.
  const capacity = Math.max(config.max_streams, channel.limit, 1);
  const part = (streams) => `${(100 * Math.min(streams, capacity)) / capacity}%`;
  const [track, fill, target] = wide.firstChild.children;
  set(track, { width: part(channel.limit) });
  set(fill, {
    width: part(channel.exclusive ? channel.limit : channel.in_flight),
    class: channel.exclusive ? "bar-alone" : "bar-fill",
  });
  set(target, { x: part(config.target_streams) });
  target.style.display = config.target_streams >= capacity ? "none" : "";
}

function updateQueue(card, stats, config) {
  const drawn = Math.min(stats.waiting, MAX_MARKS);
  const marks = card.querySelector(".queue-marks");
  set(marks, { width: drawn * 6, viewBox: `0 0 ${Math.max(1, drawn * 6)} 14`, preserveAspectRatio: "xMinYMid slice" });
  marks.style.display = drawn ? "" : "none";
  syncChildren(marks, [...Array(drawn).keys()], (i) => i, (i) => draw("rect", { x: i * 6, width: 4, height: 14, rx: 1 }), () => {});
  const limit = config.max_waiters === null ? "" : ` (limit ${number.format(config.max_waiters)})`;
  write(card.querySelector('[data-text="queue"]'), stats.waiting ? `${number.format(stats.waiting)}${limit}` : "none");
}

// --- the timeline --------------------------------------------------------------------------------------------------

const CHARTS = { in_flight: "In flight", waiting: "Waiting", size: "Connections" };
const WIDTH = 600;
const HEIGHT = 48;

// Splits the samples into runs without gaps; there are gaps while no page was open.
function splitAtGaps(at, every) {
  const runs = [];
  at.forEach((moment, i) => {
    if (i === 0 || moment - at[i - 1] > 3.5 * every) runs.push([i]);
    else runs[runs.length - 1].push(i);
  });
  return runs;
}

function updateChart(figure, name, timeline, data) {
  const values = timeline[name];
  const svg = figure.querySelector("svg");
  if (!svg.firstChild) svg.append(draw("path", { class: "area" }), draw("path", { class: "stroke" }));
  const min = Math.min(...values), max = Math.max(...values), last = values.at(-1);
  const top = Math.max(max, 1) * 1.08;
  const x = (i) => (WIDTH * (1 - (data.now - timeline.at[i]) / data.keep)).toFixed(1);
  const y = (i) => (HEIGHT - 1 - ((HEIGHT - 2) * values[i]) / top).toFixed(1);
  let line = "", area = "";
  for (const run of splitAtGaps(timeline.at, data.every)) {
    const points = run.map((i) => `${x(i)} ${y(i)}`).join("L");
    line += `M${points}${run.length === 1 ? "h.1" : ""}`;
    area += `M${x(run[0])} ${HEIGHT}L${points}L${x(run.at(-1))} ${HEIGHT}Z`;
  }
  set(svg, { viewBox: `0 0 ${WIDTH} ${HEIGHT}` });
  set(svg.children[0], { d: area });
  set(svg.children[1], { d: line });
  const figures = values.length ? `now ${last}, min ${min}, max ${max}` : "no data yet";
  set(svg, { "aria-label": `${CHARTS[name]} in the last ${duration(data.keep)}: ${figures}` });
  write(figure.querySelector(".range"), values.length ? `${number.format(min)} to ${number.format(max)}` : "");
}

// The charts' data for screen readers: minimum and maximum, one row for each half minute.
function updateTable(details, timeline, data) {
  if (!details.open) return;
  const rows = new Map();
  timeline.at.forEach((at, i) => {
    const until = Math.ceil(at / ROW_SECONDS) * ROW_SECONDS;
    rows.set(until, [...(rows.get(until) ?? []), i]);
  });
  const range = (name, chosen) => {
    const values = chosen.map((i) => timeline[name][i]);
    const min = Math.min(...values), max = Math.max(...values);
    return min === max ? `${max}` : `${min} to ${max}`;
  };
  syncChildren(
    details.querySelector("tbody"), [...rows].reverse(), ([until]) => until,
    () => make("tr", {}, make("th", { scope: "row" }), ...[1, 2, 3].map(() => make("td", { class: "number" }))),
    (row, [until, chosen]) => {
      write(row.children[0], clock.format(Math.min(until, data.now) * 1000));
      Object.keys(CHARTS).forEach((name, i) => write(row.children[i + 1], range(name, chosen)));
    },
  );
}

// Leases and calls acquired per second, over the last samples without a gap.
function rate({ at, acquired }, every) {
  const run = splitAtGaps(at, every).at(-1)?.slice(-6) ?? [];
  if (run.length < 2) return "–";
  const [first, last] = [run[0], run.at(-1)];
  const perSecond = (acquired[last] - acquired[first]) / (at[last] - at[first]);
  return perSecond > 0 && perSecond < 10 ? perSecond.toFixed(1) : number.format(perSecond);
}

// --- events --------------------------------------------------------------------------------------------------------

function newEvent() {
  return make("li", {}, make("time"), make("span", { class: "which" }), make("span", { class: "what" }, make("b"), ""));
}

function updateEvent(item, event) {
  const [time, which, what] = item.children;
  const [tone, name, rest] = describeEvent(event);
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
  set(card.querySelector(".as-table table"), { "aria-label": `Timeline of ${pool.name}` });
  card.querySelector(".as-table").addEventListener("toggle", updatePage);
  return card;
}

// What is wrong with a pool's connections, in words, and how severe it is.
function healthOf({ down, stats }) {
  if (!stats) return { words: "", tone: null };
  const counts = [[stats.lost, "lost"], [stats.avoided, "avoided"]];
  const some = counts.filter(([count]) => count).map(([count, name]) => `${number.format(count)} ${name}`);
  const words = [...(down ? ["down"] : []), ...some].join(", ");
  return { words, tone: down || stats.lost ? "bad" : stats.avoided ? "wait" : null };
}

function updateFigures(card, stats, health, timeline, every) {
  for (const figure of card.querySelectorAll("[data-figure]")) {
    const name = figure.dataset.figure;
    write(figure, number.format(stats[name]));
    set(figure.closest("div"), { "data-some": stats[name] ? name : null });
  }
  const streams = stats.channels.filter(({ state }) => state === "ready").reduce((sum, { limit }) => sum + limit, 0);
  const text = (name, value) => write(card.querySelector(`[data-text="${name}"]`), value);
  text("streams", `of ${plural(streams, "stream")}`);
  text("waited", stats.waited ? `${number.format(stats.waited)} waited, mean ${duration(stats.wait_seconds / stats.waited)}` : "none has waited yet");
  const { words, tone } = health;
  set(card.querySelector('[data-figure="size"]').closest("div"), { "data-tone": tone });
  text("health", words);
  text("bounds", `${stats.ready} ready, ${stats.min_size}–${stats.max_size} allowed`);
  text("rate", rate(timeline, every));
  text("acquired", `${number.format(stats.acquired)} in total`);
}

function updateTags(card, pool) {
  const tags = card.querySelector(".tags");
  const { words, tone } = healthOf(pool);
  const state = pool.state === "open" ? words : pool.state === "closed" ? "closed" : "void: created before a fork";
  const config = pool.config;
  const rest = `${pool.kind}, ${config.mode}, ${config.picker.replace("_", " ")}`;
  set(card, { "data-state": pool.state, "data-health": pool.down ? "down" : null });
  set(tags, { "data-tone": pool.state === "open" ? tone : "bad" });
  if (tags.dataset.text === state + rest) return;
  tags.dataset.text = state + rest;
  tags.replaceChildren(...(state ? [make("b", {}, state), ", "] : []), rest);
}

function updatePairs(card, name, pairs) {
  const shown = (value) => {
    if (value === null) return "none";
    return typeof value === "number" ? String(value) : typeof value === "boolean" ? (value ? "yes" : "no") : value;
  };
  syncChildren(
    card.querySelector(`[data-pairs="${name}"]`), Object.entries(pairs), ([key]) => key,
    ([key]) => make("div", {}, make("dt", {}, key), make("dd")),
    (pair, [, value]) => write(pair.lastChild, shown(value)),
  );
}

function updateCard(card, pool, data) {
  const { stats, timeline, config, events } = pool;
  write(card.querySelector("h2"), pool.name);
  write(card.querySelector(".target"), stats?.target && stats.target !== pool.name ? stats.target : "");
  updateTags(card, pool);
  for (const part of card.children) {
    if (part.tagName !== "HEADER") part.hidden = stats === null;
  }
  if (stats === null) return;
  updateFigures(card, stats, healthOf(pool), timeline, data.every);
  syncChildren(
    card.querySelector(".connections tbody"), stats.channels, ({ id }) => id, newRow,
    (row, channel) => updateRow(row, channel, config, data.now),
  );
  card.querySelector('[data-none="channels"]').hidden = stats.channels.length > 0;
  const table = card.querySelector(".connections table");
  table.hidden = stats.channels.length === 0;
  set(table, { "data-addresses": stats.channels.some(({ address }) => address) ? "known" : null });
  updateQueue(card, stats, config);
  for (const figure of card.querySelectorAll("[data-chart]")) updateChart(figure, figure.dataset.chart, timeline, data);
  write(card.querySelector('[data-text="reach"]'), duration(data.keep));
  write(card.querySelector('[data-text="since"]'), `${duration(data.keep)} ago`);
  syncChildren(card.querySelector(".events ol"), events.toReversed(), ({ id }) => id, newEvent, updateEvent);
  card.querySelector('[data-none="events"]').hidden = events.length > 0;
  card.querySelector(".scroll").hidden = events.length === 0;
  updatePairs(card, "config", config);
  updatePairs(card, "closed", stats.closed);
  updateTable(card.querySelector(".as-table"), timeline, data);
}

// --- the page ------------------------------------------------------------------------------------------------------

const responses = new Map(); // the last response of each process, and its time
let shown = null; // the key of the process that is shown
let every = 1000;
let paused = false;
let timer = null;

function updatePage() {
  const data = responses.get(shown)?.data;
  if (!data) return;
  syncChildren($("pools"), data.pools, ({ id }) => `${shown} ${id}`, newCard, (card, pool) => updateCard(card, pool, data));
  $("empty").hidden = data.pools.length > 0;
  $("overview").hidden = data.pools.length < 2;
  syncChildren(
    $("overview").firstElementChild, data.pools, ({ id }) => `${shown} ${id}`,
    (pool) => make("li", {}, make("a", { href: `#pool-${pool.id}` }, make("b"), make("span"))),
    (item, pool) => {
      const { name, stats, state } = pool;
      const { words, tone } = healthOf(pool);
      write(item.querySelector("b"), name);
      set(item, { "data-tone": state === "open" ? tone : null });
      const figures = stats && `${plural(stats.in_flight, "in flight", "in flight")}, ${number.format(stats.waiting)} waiting`;
      write(item.querySelector("span"), state === "open" ? words || figures : state);
    },
  );
  updateProcesses(data);
}

function updateProcesses({ process }) {
  const name = ({ host, pid }) => `${pid} on ${host}`;
  $("processes").hidden = responses.size < 2;
  write($("process-name"), responses.size < 2 ? `Process ${name(process)}` : `of ${responses.size} at this address`);
  syncChildren(
    $("process"), [...responses].sort(), ([key]) => key, ([key]) => make("option", { value: key }),
    (option, [, { data }]) => write(option, name(data.process)),
  );
  if ($("process").value !== shown) $("process").value = shown;
}

function receive(data) {
  const key = `${data.process.host} ${data.process.pid}`;
  const before = responses.get(key)?.data;
  responses.set(key, { data, at: performance.now() });
  for (const [other, { at }] of responses) {
    if (performance.now() - at > PROCESS_EXPIRES_AFTER) responses.delete(other);
  }
  if (!responses.has(shown)) shown = key;
  every = Math.min(500, Math.max(250, data.every * 1000));
  if (key === shown) {
    announceEvents(before, data);
    updatePage();
  } else {
    updateProcesses(responses.get(shown).data);
  }
}

function showStatus(state, text) {
  set($("status"), { "data-state": state });
  write($("status-text"), text);
}

async function refresh() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  let delay = every;
  try {
    const response = await fetch("pools", { cache: "no-store", signal: AbortSignal.timeout(RESPONSE_TIMEOUT) });
    if (!response.ok) throw new Error(`returned ${response.status}`);
    receive(await response.json());
    if (!paused) showStatus("live", "live");
  } catch (error) {
    delay = Math.max(every, 2000);
    showStatus("lost", error.message.startsWith("returned") ? `the server ${error.message}` : "no response");
  }
  clearTimeout(timer);
  if (!paused) timer = setTimeout(refresh, delay);
}

// --- announcements for screen readers ------------------------------------------------------------------------------

const pending = [];
let announcedAt = -ANNOUNCEMENT_INTERVAL;
let announceTimer = null;

// Announces only problems, at most every few seconds: values that change all the time would drown them out.
function announceEvents(before, data) {
  if (!before) return;
  for (const pool of data.pools) {
    const known = new Map((before.pools.find(({ id }) => id === pool.id)?.events ?? []).map((event) => [event.id, event]));
    const last = Math.max(0, ...known.keys());
    // One that was merged into an old one is new, too.
    const again = ({ id, last_at }) => last_at - (known.get(id)?.last_at ?? last_at) > MERGED_IS_NEW_AFTER;
    const fresh = pool.events.filter((event) => event.id > last || again(event));
    const bad = fresh.map((event) => [event, ...describeEvent(event)]).filter(([, tone]) => tone === "bad");
    for (const [event, , name, rest] of bad) {
      const which = event.channel === null ? "" : `, connection ${event.channel}`;
      pending.push(`${pool.name}${which}: ${name}${rest}.`);
    }
  }
  if (pending.length && announceTimer === null) {
    announceTimer = setTimeout(announce, Math.max(0, announcedAt + ANNOUNCEMENT_INTERVAL - performance.now()));
  }
}

function announce() {
  const more = pending.length - 3;
  write($("announcements"), pending.slice(0, 3).join(" ") + (more > 0 ? ` And ${plural(more, "event")} more.` : ""));
  pending.length = 0;
  announceTimer = null;
  announcedAt = performance.now();
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  set($("pause"), { "aria-pressed": paused });
  if (paused) showStatus("paused", "paused");
  refresh();
});
$("process").addEventListener("change", () => {
  shown = $("process").value;
  updatePage();
});
document.addEventListener("visibilitychange", refresh);
refresh();
