// The timeline of a pool, as charts and as a table.

import { draw, make, set, syncChildren, write } from "./elements.js";
import { clock, duration, greatest, least, number, range } from "./text.js";

const WIDTH = 600;
const HEIGHT = 48;
const ROW_SECONDS = 30; // seconds in each row of the table

// The charts: the name, and whether it shows how many there were in each interval. The others show a state.
const CHARTS = {
  in_flight: ["In flight", false],
  waiting: ["Waiting", false],
  size: ["Connections", false],
  failed: ["Failed calls", true],
  unserved: ["Rejected or timed out", true],
};

// Splits the samples into runs without gaps; there are gaps while no page was open.
function splitAtGaps(at, every) {
  const runs = [];
  at.forEach((moment, i) => {
    if (i === 0 || moment - at[i - 1] > 3.5 * every) runs.push([i]);
    else runs[runs.length - 1].push(i);
  });
  return runs;
}

// Returns the samples of the covered time, in runs, with the values of each chart. Numbers of an interval come from
// counters. The first sample of a run has none: what happened before it did not happen within one interval.
export function read(timeline, { now, keep, every }) {
  const from = timeline.at.findIndex((moment) => moment >= now - keep);
  const since = (values) => (from < 0 ? [] : values.slice(from));
  const at = since(timeline.at);
  const runs = splitAtGaps(at, every);
  const starts = new Set(runs.map(([first]) => first));
  const steps = (values) => values.map((value, i) => (starts.has(i) ? null : value - values[i - 1]));
  const unserved = timeline.timeouts.map((count, i) => count + timeline.rejected[i]);
  return {
    at, runs,
    acquired: since(timeline.acquired),
    in_flight: since(timeline.in_flight),
    waiting: since(timeline.waiting),
    size: since(timeline.size),
    failed: steps(since(timeline.failures)),
    unserved: steps(since(unserved)),
  };
}

// A chart's values in words: for its label, and beside its name.
function describe(values, counts, every) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return ["no data yet", ""];
  const [min, max] = [least(known), greatest(known)];
  if (!counts) return [`now ${known.at(-1)}, min ${min}, max ${max}`, `${number.format(min)} to ${number.format(max)}`];
  const total = known.reduce((sum, value) => sum + value, 0);
  const words = total ? `${number.format(total)}, at most ${number.format(max)} in ${duration(every)}` : "none";
  return [words, words];
}

export function updateChart(figure, samples, data) {
  const name = figure.dataset.chart;
  const [title, counts] = CHARTS[name];
  const { at, runs } = samples;
  const values = samples[name];
  const svg = figure.querySelector("svg");
  if (!svg.firstChild) svg.append(draw("path", { class: "area" }), draw("path", { class: "stroke" }));
  const top = Math.max(greatest(values), 1) * 1.08;
  const x = (i) => (WIDTH * (1 - (data.now - at[i]) / data.keep)).toFixed(1);
  const y = (i) => (HEIGHT - 1 - ((HEIGHT - 2) * values[i]) / top).toFixed(1);
  let line = "", area = "";
  for (const all of runs) {
    const run = all.filter((i) => values[i] !== null);
    if (!run.length) continue;
    // The number of an interval is a step as wide as the interval.
    const begin = counts ? run[0] - 1 : run[0];
    const points = run.map((i) => (counts ? `${x(i - 1)} ${y(i)}L${x(i)} ${y(i)}` : `${x(i)} ${y(i)}`)).join("L");
    line += `M${points}${run.length === 1 && !counts ? "h.1" : ""}`;
    area += `M${x(begin)} ${HEIGHT}L${points}L${x(run.at(-1))} ${HEIGHT}Z`;
  }
  set(svg, { viewBox: `0 0 ${WIDTH} ${HEIGHT}` });
  set(svg.children[0], { d: area });
  set(svg.children[1], { d: line });
  const [label, beside] = describe(values, counts, data.every);
  set(svg, { "aria-label": `${title} in the last ${duration(data.keep)}: ${label}` });
  write(figure.querySelector(".range"), beside);
}

// The charts' data for screen readers: minimum and maximum, or the number, one row for each half minute.
export function updateTable(details, samples, data) {
  if (!details.open) return;
  const rows = new Map();
  samples.at.forEach((at, i) => {
    const until = Math.ceil(at / ROW_SECONDS) * ROW_SECONDS;
    rows.set(until, [...(rows.get(until) ?? []), i]);
  });
  const text = (name, counts, chosen) => {
    const values = chosen.map((i) => samples[name][i]);
    return counts ? number.format(values.reduce((sum, value) => sum + value, 0)) : range(values);
  };
  const cells = () => Object.values(CHARTS).map(([title]) => make("td", { class: "number", role: "cell", "data-label": title }));
  syncChildren(
    details.querySelector("tbody"), [...rows].reverse(), ([until]) => until,
    () => make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader" }), ...cells()),
    (row, [until, chosen]) => {
      write(row.children[0], clock.format(Math.min(until, data.now) * 1000));
      Object.entries(CHARTS).forEach(([name, [, counts]], i) => write(row.children[i + 1], text(name, counts, chosen)));
    },
  );
}

// Leases and calls acquired per second, over the last samples without a gap.
export function rate({ at, runs, acquired }) {
  const run = runs.at(-1)?.slice(-6) ?? [];
  const [first, last] = [run[0], run.at(-1)];
  const seconds = at[last] - at[first];
  if (!(seconds > 0)) return "–"; // one sample, or several of one moment
  const perSecond = (acquired[last] - acquired[first]) / seconds;
  return perSecond > 0 && perSecond < 10 ? perSecond.toFixed(1) : number.format(perSecond);
}
