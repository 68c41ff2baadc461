// The card of a pool: its figures, connections, queue, charts, events and settings.

import { rate, read, updateChart, updateTable } from "./charts.js";
import { updateConnections } from "./connections.js";
import { $, draw, make, set, syncChildren, write } from "./elements.js";
import { groupEvents, newEvent, updateEvent } from "./events.js";
import { duration, number, plural } from "./text.js";

const MAX_MARKS = 40; // waiters that are drawn individually

export function newCard(pool) {
  const card = $("pool-template").content.firstElementChild.cloneNode(true);
  const heading = card.querySelector("h2");
  heading.id = `pool-${pool.id}-name`;
  card.id = `pool-${pool.id}`;
  set(card, { "aria-labelledby": heading.id });
  set(card.querySelector(".scroll"), { "aria-label": `Events of ${pool.name}` });
  set(card.querySelector(".connections table"), { "aria-label": `Connections of ${pool.name}` });
  set(card.querySelector(".as-table table"), { "aria-label": `Timeline of ${pool.name}` });
  card.querySelector(".as-table").addEventListener("toggle", () => card.dispatchEvent(new Event("redraw", { bubbles: true })));
  return card;
}

// What is wrong with a pool's connections, in words, and how severe it is.
export function healthOf({ down, stats }) {
  if (!stats) return { words: "", tone: null };
  const counts = [[stats.lost, "lost"], [stats.avoided, "avoided"]];
  const some = counts.filter(([count]) => count).map(([count, name]) => `${number.format(count)} ${name}`);
  const words = [...(down ? ["down"] : []), ...some].join(", ");
  return { words, tone: down || stats.lost ? "bad" : stats.avoided ? "wait" : null };
}

function updateFigures(card, stats, health, samples) {
  for (const figure of card.querySelectorAll("[data-figure]")) {
    const name = figure.dataset.figure;
    write(figure, number.format(stats[name]));
    set(figure.closest("div"), { "data-some": stats[name] ? name : null });
  }
  // Connections that are not in service only carry what they have.
  const room = ({ state, limit, in_flight: carried }) => (state === "ready" ? Math.max(limit, carried) : carried);
  const streams = stats.channels.reduce((sum, channel) => sum + room(channel), 0);
  const text = (name, value) => write(card.querySelector(`[data-text="${name}"]`), value);
  text("streams", `of ${plural(streams, "stream")}`);
  text("waited", stats.waited ? `${number.format(stats.waited)} waited, mean ${duration(stats.wait_seconds / stats.waited)}` : "none has waited yet");
  const { words, tone } = health;
  set(card.querySelector('[data-figure="size"]').closest("div"), { "data-tone": tone });
  text("health", words);
  text("bounds", `${stats.ready} ready, ${stats.min_size}–${stats.max_size} allowed`);
  text("rate", rate(samples));
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

function updateQueue(card, stats, config) {
  const drawn = Math.min(stats.waiting, MAX_MARKS);
  const marks = card.querySelector(".queue-marks");
  set(marks, { width: drawn * 6, viewBox: `0 0 ${Math.max(1, drawn * 6)} 14`, preserveAspectRatio: "xMinYMid slice" });
  marks.style.display = drawn ? "" : "none";
  syncChildren(marks, [...Array(drawn).keys()], (i) => i, (i) => draw("rect", { x: i * 6, width: 4, height: 14, rx: 1 }), () => {});
  const limit = config.max_waiters === null ? "" : ` (limit ${number.format(config.max_waiters)})`;
  write(card.querySelector('[data-text="queue"]'), stats.waiting ? `${number.format(stats.waiting)}${limit}` : "none");
}

// How long callers waited: "p50 12 ms, p90 80 ms, p99 350 ms of 1,234 waits in the last 5 min".
function updateWaits(card, { count, timed_out: timedOut, seconds, p50, p90, p99 }) {
  const parts = [["p50", p50], ["p90", p90], ["p99", p99]];
  const list = card.querySelector(".waits dl");
  list.hidden = count === 0;
  syncChildren(
    list, parts, ([name]) => name, ([name]) => make("div", {}, make("dt", {}, name), make("dd")),
    (part, [, value]) => write(part.lastChild, value === null ? "" : duration(value)),
  );
  const ended = timedOut ? `, ${number.format(timedOut)} timed out` : "";
  const of = count ? `of ${plural(count, "wait")}` : "no waits";
  write(card.querySelector('[data-text="waits"]'), `${of} in the last ${duration(seconds)}${ended}`);
}

export function updateCard(card, pool, data) {
  const { stats, timeline, config } = pool;
  write(card.querySelector("h2"), pool.name);
  write(card.querySelector(".target"), stats?.target && stats.target !== pool.name ? stats.target : "");
  updateTags(card, pool);
  for (const part of card.children) {
    if (part.tagName !== "HEADER") part.hidden = stats === null;
  }
  if (stats === null) return;
  const samples = read(timeline, data);
  updateFigures(card, stats, healthOf(pool), samples);
  // By the clock that their dates come from.
  updateConnections(card, stats, config, pool.taken_at ?? data.now);
  updateQueue(card, stats, config);
  updateWaits(card, pool.waits);
  for (const figure of card.querySelectorAll("[data-chart]")) updateChart(figure, samples, data);
  write(card.querySelector('[data-text="reach"]'), duration(data.keep));
  write(card.querySelector('[data-text="since"]'), `${duration(data.keep)} ago`);
  const events = groupEvents(pool.events);
  syncChildren(card.querySelector(".events ol"), events, ({ id }) => id, newEvent, updateEvent);
  card.querySelector('[data-none="events"]').hidden = events.length > 0;
  card.querySelector(".scroll").hidden = events.length === 0;
  updatePairs(card, "config", config);
  updatePairs(card, "closed", stats.closed);
  updateTable(card.querySelector(".as-table"), samples, data);
}
