// Numbers, times and durations as text.

export const number = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
export const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  if (seconds < 0.9995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;
export const times = (count) => (count === 1 ? "" : `, ${number.format(count)} times`);

// The least and the greatest of some numbers, which may be too many to be arguments of a function.
export const least = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
export const greatest = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

// A range of numbers, such as "4" or "0 to 4".
export function range(values) {
  const [min, max] = [least(values), greatest(values)];
  return min === max ? number.format(max) : `${number.format(min)} to ${number.format(max)}`;
}
