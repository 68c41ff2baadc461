// The live page: fetches `pools` regularly and updates the page.
//
// Elements are updated in place, never recreated, so that focus, selection and scroll position are kept. All data is
// inserted as text. With several server processes behind one address, each response may come from a different one: the
// page keeps the last response of each process and shows one of them.

import { healthOf, newCard, updateCard } from "./card.js";
import { $, make, set, syncChildren, write } from "./elements.js";
import { describeGroup, groupEvents } from "./events.js";
import { duration, number, plural } from "./text.js";

const RESPONSE_TIMEOUT = 5000; // milliseconds
const PROCESS_EXPIRES_AFTER = 60000;
const STALE_AFTER = 2000; // for each process: at least two intervals
const ANNOUNCEMENT_INTERVAL = 10000;
const MERGED_IS_NEW_AFTER = 60; // seconds

// --- the page ------------------------------------------------------------------------------------------------------

const responses = new Map(); // the last response of each process, and its time
let shown = null; // the key of the process that is shown
let every = 1000;
let paused = false;
let stale = false;
let answeredAt = 0; // by any process
let askingSince = performance.now(); // not paused, and visible
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
  answeredAt = performance.now();
  responses.set(key, { data, at: answeredAt });
  for (const [other, { at }] of responses) {
    if (answeredAt - at > PROCESS_EXPIRES_AFTER) responses.delete(other);
  }
  if (!responses.has(shown)) shown = key;
  every = Math.min(500, Math.max(250, data.every * 1000));
  updateAge();
  if (key === shown) {
    announceEvents(before, data);
    updatePage();
  } else {
    updateProcesses(responses.get(shown).data);
  }
}

// Dims the values when they are old, and says how old they are. Values are not called stale because the page was paused
// or hidden: only if there is no answer although it asks.
function updateAge() {
  const answer = responses.get(shown);
  if (!answer || paused || document.hidden) return;
  const now = performance.now();
  const age = now - answer.at;
  const limit = STALE_AFTER * responses.size;
  const wasStale = stale;
  stale = age > limit && (stale || now - askingSince > limit);
  const words = `${age < 120000 ? `${Math.floor(age / 1000)} s` : duration(age / 1000)} old`;
  write($("stale"), stale ? `No response: the values are ${words}.` : "");
  if (now - answeredAt > limit && stale && $("status").dataset.state === "live") showStatus("lost", "no response");
  if (stale === wasStale) return;
  set(document.body, { "data-stale": stale ? "" : null });
  $("stale").hidden = !stale;
  announcedAt = now;
  write($("announcements"), stale ? "No response from the server: the values are old." : "The values are live again.");
}

function showStatus(state, text) {
  set($("status"), { "data-state": state });
  write($("status-text"), text);
}

async function refresh() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  let delay = every, data = null;
  try {
    const response = await fetch("pools", { cache: "no-store", signal: AbortSignal.timeout(RESPONSE_TIMEOUT) });
    if (!response.ok) throw new Error(`returned ${response.status}`);
    data = await response.json();
  } catch (error) {
    delay = Math.max(every, 2000);
    if (!paused) showStatus("lost", error.message.startsWith("returned") ? `the server ${error.message}` : "no response");
  }
  clearTimeout(timer);
  if (!paused) timer = setTimeout(refresh, delay);
  if (data) show(data);
}

function show(data) {
  try {
    receive(data);
    if (!paused) showStatus("live", "live");
  } catch (error) {
    console.error(error);
    if (!paused) showStatus("lost", `this page failed: ${error.message}`);
  }
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
    // One that was merged into an old one is new, too. Dates alone do not say so: they move with the calendar.
    const again = ({ id, last_at, count }) => {
      const old = known.get(id);
      return old && count > old.count && last_at - old.last_at > MERGED_IS_NEW_AFTER;
    };
    const fresh = pool.events.filter((event) => event.id > last || again(event));
    for (const group of groupEvents(fresh).reverse()) {
      const [tone, name, rest] = describeGroup(group);
      const which = group.channels.size === 1 ? `, connection ${[...group.channels][0]}` : "";
      if (tone === "bad") pending.push(`${pool.name}${which}: ${name}${rest}.`);
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
  askingSince = performance.now();
  if (paused) showStatus("paused", "paused");
  refresh();
});
$("process").addEventListener("change", () => {
  shown = $("process").value;
  updatePage();
  updateAge();
});
$("pools").addEventListener("redraw", updatePage);
document.addEventListener("visibilitychange", () => {
  askingSince = performance.now();
  refresh();
});
setInterval(updateAge, 500);
refresh();
