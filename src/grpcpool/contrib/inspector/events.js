// A pool's events: groups of equal ones, and how they are shown.

import { make, set, write } from "./elements.js";
import { clock, duration, greatest, least, number, plural, times } from "./text.js";

const GROUP_GAP = 10; // seconds: an event that begins later than this after the one before starts a new group
const GROUP_SPAN = 60; // seconds from the beginning of the first event in a group to that of the last
const MAX_ADDRESSES = 3; // that are listed

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

const reason = (name) => REASONS[name] ?? name;

// --- groups --------------------------------------------------------------------------------------------------------

// What the events of a group have in common besides their kind. Kinds that are not here are not grouped: they do not
// concern one connection. Numbers are left out of a cause: they are those of addresses.
const COMMON = {
  opened: ({ replaces }) => replaces === null,
  lost: ({ cause }) => (cause ?? "").replace(/[\da-f]*\d[\da-f]*/gi, "#"),
  recovered: () => "",
  avoided: ({ code }) => code,
  draining: (details) => details.reason,
  closed: (details) => details.reason,
  refused_stream: () => "",
  leaked: () => "",
};

// Groups events of the same kind and with the same reason that happened within a short time; the latest group first.
// A rolling restart of many connections is some groups. `details` are the latest event's, `all` are those of each.
export function groupEvents(events) {
  const groups = [];
  const open = new Map();
  for (const event of events.toSorted((a, b) => a.id - b.id)) {
    const key = COMMON[event.kind] && `${event.kind} ${COMMON[event.kind](event.details)}`;
    let group = open.get(key);
    if (!group || event.at - group.began > GROUP_GAP || event.at - group.at > GROUP_SPAN) {
      group = { id: event.id, kind: event.kind, at: event.at, last_at: 0, count: 0, channels: new Set(), addresses: new Set(), all: [] };
      groups.push(group);
      if (key) open.set(key, group);
    }
    group.began = event.at;
    group.count += event.count;
    group.all.push(event.details);
    if (event.channel !== null) group.channels.add(event.channel);
    if (event.address !== null) group.addresses.add(event.address);
    if (event.last_at >= group.last_at) [group.last_at, group.details] = [event.last_at, event.details];
  }
  return groups.sort((a, b) => b.last_at - a.last_at || b.id - a.id);
}

// The connections of a group in words: ": 12 connections, 10.0.0.7:50051"; nothing if it is one.
function which({ channels, addresses }) {
  if (channels.size < 2) return "";
  const listed = addresses.size > MAX_ADDRESSES ? [`${addresses.size} addresses`] : [...addresses];
  return [`: ${number.format(channels.size)} connections`, ...listed].join(", ");
}

// How often, if that is more than once for each connection.
const often = ({ count, channels }) => (count > Math.max(1, channels.size) ? times(count) : "");
const scope = (group) => which(group) + often(group);

const sum = (group, name) => group.all.reduce((total, details) => total + details[name], 0);

function spread(group, name, show) {
  const values = group.all.map((details) => details[name]);
  const [min, max] = [show(least(values)), show(greatest(values))];
  return min === max ? max : `${min} to ${max}`;
}

// How a group is shown: its severity, its name, and the details.
const SHOWN = {
  opened: (group) => {
    const { replaces } = group.details;
    const others = which(group) ? ", to replace others" : `, replaces ${replaces}`;
    return ["good", "Opened", `${scope(group)}${which(group) && ","} in ${spread(group, "seconds", duration)}${replaces === null ? "" : others}`];
  },
  open_failed: ({ count, details: { error, retry_in } }) => [
    "bad", "Open failed", `${times(count)}: ${error}${retry_in === null ? "" : `; next attempt in ${duration(retry_in)}`}`],
  lost: (group) => {
    const { cause, up } = group.details;
    return ["bad", "Lost", `${scope(group)}${cause === null ? "" : `: ${cause}`}; ${up ? `${up} up` : "none is up"}`];
  },
  recovered: (group) => {
    const after = which(group) ? `, after ${spread(group, "seconds", duration)}` : ` after ${duration(group.details.seconds)}`;
    return ["good", "Recovered", `${scope(group)}${!which(group) && often(group) ? ", the last" : ""}${after}`];
  },
  avoided: (group) => {
    const { code } = group.details;
    return ["wait", "Avoided", `${scope(group)}: ${code === null ? "the server refused a stream" : `a call failed with ${code}`}`];
  },
  draining: (group) => [
    "wait", "Draining", `${scope(group)}: ${reason(group.details.reason)}; ${sum(group, "in_flight")} in flight`],
  closed: (group) => {
    const cancelled = sum(group, "cancelled");
    return [
      cancelled ? "bad" : "plain", "Closed",
      `${scope(group)}: ${reason(group.details.reason)}${cancelled ? `; cancelled ${cancelled} in flight` : ""}`];
  },
  addresses_changed: ({ count, details }) => [
    "plain", "Addresses changed", `${times(count)}: ${details.addresses} now, ${details.new} new, ${details.gone} gone`],
  look_up_failed: ({ count, details: { error } }) => ["bad", "Look-up failed", `${times(count)}: ${error}`],
  timed_out: ({ count, details }) => [
    "bad", "Timed out", `: ${plural(count, "waiter")}, ${count === 1 ? "" : "the last "}after ${duration(details.waited)}`],
  rejected: ({ count, details }) => [
    "bad", "Rejected", `: ${plural(count, "request")}; queue full (${number.format(details.waiting)} waiting)`],
  refused_stream: (group) => {
    const where = which(group).replace(":", " on");
    const now = where ? `limits now ${spread(group, "limit", String)}` : `limit now ${group.details.limit}`;
    return ["wait", "Refused", `: ${plural(group.count, "stream")}, by the server${where}; ${now}`];
  },
  leaked: (group) => {
    const held = greatest(group.all.map((details) => details.held));
    return ["bad", "Possible leak", `${scope(group)}: ${which(group) ? "leases held for up to" : "lease held for"} ${duration(held)}`];
  },
};

export function describeGroup(group) {
  return SHOWN[group.kind]?.(group) ?? ["plain", group.kind, ""];
}

// --- the list ------------------------------------------------------------------------------------------------------

export function newEvent() {
  return make("li", {}, make("time"), make("span", { class: "which" }), make("span", { class: "what" }, make("b"), ""));
}

export function updateEvent(item, group) {
  const [time, id, what] = item.children;
  const [tone, name, rest] = describeGroup(group);
  set(item, { "data-tone": tone, "data-kind": group.kind });
  set(time, { datetime: new Date(group.last_at * 1000).toISOString() });
  write(time, clock.format(group.last_at * 1000));
  write(id, group.channels.size === 1 ? String([...group.channels][0]) : "");
  write(what.firstChild, name);
  if (what.lastChild.nodeType !== Node.TEXT_NODE) what.append("");
  if (what.lastChild.data !== rest) what.lastChild.data = rest;
}
