// Numbers for people: short, and with their units.

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function short(value) {
  const size = Math.abs(value);
  if (size >= 999_950) return `${plain.format(value / 1e6)}M`;
  if (size >= 10_000) return `${plain.format(value / 1e3)}k`;
  return size >= 100 || Number.isInteger(value) ? whole.format(value) : plain.format(value);
}

export const count = (value) => short(value);
export const exact = (value) => whole.format(value);
export const rate = (value) => `${short(value)}/s`;
export function megabytes(value) {
  if (value >= 1000) return `${plain.format(value / 1000)} GB`;
  return `${value >= 100 ? whole.format(value) : plain.format(value)} MB`;
}
export const percent = (value) => `${plain.format(value * 100)} %`;

export function bytes(value) {
  if (value < 1000) return `${whole.format(value)} B`;
  if (value < 1e6) return `${plain.format(value / 1e3)} kB`;
  if (value < 1e9) return `${plain.format(value / 1e6)} MB`;
  return `${plain.format(value / 1e9)} GB`;
}

export const byteRate = (value) => `${bytes(value)}/s`;

export function milliseconds(value) {
  if (value >= 1000) return `${plain.format(value / 1000)} s`;
  if (value >= 10) return `${whole.format(value)} ms`;
  if (value >= 1 || value === 0) return `${plain.format(value)} ms`;
  return `${whole.format(value * 1000)} µs`;
}

export function duration(seconds) {
  if (seconds < 60) return `${whole.format(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

const withSeconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const withoutSeconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/** A Unix time in seconds as the clock shows it here. */
export const clock = (unixTime) => withSeconds.format(unixTime * 1000);
export const shortClock = (unixTime) => withoutSeconds.format(unixTime * 1000);
