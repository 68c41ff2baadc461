// The table of a pool's connections. Problems come first, then the most loaded. If there are many connections, those
// that are well are folded into one line, which a button expands; with several addresses, there is one line for each.

import { draw, make, set, syncChildren, write } from "./elements.js";
import { duration, number, range } from "./text.js";

const FEW = 8; // connections that are shown one by one
const LEVELS = 4; // of load: sorted by the exact load, rows would change places with each update
const SOUND = 4; // the ranks from here on are of connections that are well
const COLUMNS = ["ID", "State", "Address", "", "In flight", "Age", "Last used", "Calls", "Failed"];

// --- order ---------------------------------------------------------------------------------------------------------

// A connection that is avoided is ready.
const stateOf = ({ avoided, state }) => (avoided && state === "ready" ? "avoided" : state);

function rankOf(channel) {
  if (channel.state === "draining" && channel.reason === "unresponsive") return 2;
  return { lost: 0, avoided: 1, draining: 3, ready: 4, opening: 5 }[stateOf(channel)] ?? 3;
}

function levelOf({ exclusive, in_flight: streams, limit }) {
  return exclusive ? LEVELS : Math.min(LEVELS, Math.floor((LEVELS * streams) / Math.max(limit, 1)));
}

const byUrgency = (a, b) => rankOf(a) - rankOf(b) || levelOf(b) - levelOf(a) || a.id - b.id;
const isFull = (channel) => channel.state === "ready" && levelOf(channel) === LEVELS;

// Returns the groups of the table: an address (or none), the rows that are always shown, and those that are folded.
export function arrange(channels) {
  const addresses = new Set(channels.map(({ address }) => address));
  const byAddress = channels.length > FEW && addresses.size > 1 && channels.length >= 2 * addresses.size;
  const groups = new Map();
  for (const channel of channels.toSorted(byUrgency)) {
    const key = byAddress ? (channel.address ?? "address not known") : "";
    groups.set(key, [...(groups.get(key) ?? []), channel]);
  }
  const showsFull = channels.filter(isFull).length <= FEW;
  const isShown = (channel) => rankOf(channel) < SOUND || (showsFull && isFull(channel));
  const split = ([address, all]) => {
    const folded = channels.length > FEW ? all.filter((channel) => !isShown(channel)) : [];
    if (!byAddress && folded.length < 2) return { address, shown: all, folded: [] };
    return { address, shown: all.filter((channel) => !folded.includes(channel)), folded };
  };
  const urgency = ({ shown }) => Math.min(SOUND, ...shown.map(rankOf));
  return [...groups].map(split).sort(
    (a, b) => urgency(a) - urgency(b) || a.address.localeCompare(b.address, "en", { numeric: true }),
  );
}

// --- the lines of groups -------------------------------------------------------------------------------------------

// Connections that are well, in words: "58 ready, 0 to 4 of 90 streams each".
export function describeFolded(folded) {
  const shared = folded.filter(({ exclusive, state }) => state === "ready" && !exclusive);
  const leased = folded.filter(({ exclusive, state }) => state === "ready" && exclusive).length;
  const opening = folded.length - shared.length - leased;
  const streams = `${range(shared.map((each) => each.in_flight))} of ${range(shared.map(({ limit }) => limit))} streams`;
  return [
    ...(shared.length ? [`${shared.length} ready, ${streams}${shared.length > 1 ? " each" : ""}`] : []),
    ...(leased ? [`${leased} with an exclusive lease`] : []),
    ...(opening ? [`${opening} opening`] : []),
  ].join("; ");
}

// Problems in words: "2 lost, 1 draining".
function describeProblems(shown) {
  const counts = new Map();
  for (const channel of shown.filter((each) => rankOf(each) < SOUND)) {
    counts.set(stateOf(channel), (counts.get(stateOf(channel)) ?? 0) + 1);
  }
  return [...counts].map(([name, count]) => `${count} ${name}`).join(", ");
}

function newLine() {
  const button = make("button", { type: "button", "aria-expanded": "false" });
  button.addEventListener("click", () => {
    set(button, { "aria-expanded": button.getAttribute("aria-expanded") !== "true" });
    button.dispatchEvent(new Event("redraw", { bubbles: true }));
  });
  const cell = make("td", { role: "cell", colspan: COLUMNS.length }, make("b"), make("span"), button);
  return make("tr", { class: "line", role: "row" }, cell);
}

function updateLine(row, { address, shown, folded }) {
  const [name, problems, button] = row.firstChild.children;
  write(name, address);
  write(problems, address ? describeProblems(shown) : "");
  set(problems, { "data-tone": shown.some(({ state }) => state === "lost") ? "bad" : "wait" });
  button.hidden = folded.length === 0;
  write(button, describeFolded(folded));
}

// --- rows ----------------------------------------------------------------------------------------------------------

function newRow() {
  const bar = draw("svg", { "aria-hidden": "true", focusable: "false" });
  bar.append(
    draw("rect", { class: "bar-track", height: "100%", rx: 3 }),
    draw("rect", { class: "bar-fill", height: "100%", rx: 3 }),
    draw("rect", { class: "bar-target", height: "100%", width: 2 }),
  );
  const names = [
    "state", "address soft", "wide", "number count", "number age", "number used soft",
    "number calls soft", "number failed soft",
  ];
  const cells = names.map((name, i) => make("td", { class: name, role: "cell", "data-label": COLUMNS[i + 1] }));
  cells[0].append(make("span"), make("small"));
  cells[1].append(make("span"));
  cells[2].append(bar);
  return make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader" }), ...cells);
}

function updateRow(row, channel, config, now) {
  const [head, state, address, wide, count, age, used, calls, failed] = row.children;
  set(row, { "data-state": stateOf(channel), "data-channel": channel.id });
  write(head, String(channel.id));
  write(state.firstChild, stateOf(channel));
  write(address.firstChild, channel.address ?? "");
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

// --- the table -----------------------------------------------------------------------------------------------------

function updateGroup(body, group, config, now) {
  const line = body.querySelector(".line button");
  const expanded = line?.getAttribute("aria-expanded") === "true";
  const rows = [...(group.address ? ["line"] : []), ...group.shown];
  if (!group.address && group.folded.length) rows.push("line");
  if (expanded) rows.splice(group.address ? rows.length : rows.indexOf("line") + 1, 0, ...group.folded);
  syncChildren(
    body, rows, (row) => (row === "line" ? row : row.id), (row) => (row === "line" ? newLine() : newRow()),
    (element, row) => (row === "line" ? updateLine(element, group) : updateRow(element, row, config, now)),
  );
}

export function updateConnections(card, { channels }, config, now) {
  const table = card.querySelector(".connections table");
  const groups = arrange(channels);
  syncChildren(
    table, groups, ({ address }) => `group ${address}`, () => make("tbody", { role: "rowgroup" }),
    (body, group) => updateGroup(body, group, config, now),
  );
  table.hidden = channels.length === 0;
  card.querySelector('[data-none="channels"]').hidden = channels.length > 0;
  const inColumn = groups.length <= 1 && channels.some(({ address }) => address);
  set(table, { "data-addresses": inColumn ? "known" : null });
}
