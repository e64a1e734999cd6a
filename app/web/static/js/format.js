// Numbers as the server-rendered parts of the pages write them.

export function count(value) {
  for (const [step, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (Math.abs(value) >= step) return `${threeDigits(value / (unit === "k" ? 1e3 : step))}\u00a0${unit}`;
  }
  return String(Math.round(value));
}

export function size(value) {
  for (const [step, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]) {
    if (value >= step) return `${threeDigits(value / step)}\u00a0${unit}`;
  }
  return `${value}\u00a0bytes`;
}

export function whole(value) {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

export function duration(seconds) {
  if (seconds < 9.95) return `${Math.max(seconds, 0).toFixed(1)}\u00a0s`;
  const rounded = Math.round(seconds);
  const hours = Math.floor(rounded / 3600);
  const minutes = Math.floor(rounded / 60) % 60;
  if (hours) return `${hours}\u00a0h ${minutes}\u00a0min`;
  return minutes ? `${minutes}\u00a0min ${rounded % 60}\u00a0s` : `${rounded}\u00a0s`;
}

export function percent(share, digits = 1) {
  return `${(share * 100).toFixed(digits)}\u00a0%`;
}

// A difference of two accuracies, with its sign.
export function points(difference) {
  const rounded = Math.round(difference * 1e4) / 100;
  const sign = rounded > 0 ? "+" : rounded < 0 ? "−" : "±";
  return `${sign}${rounded === 0 ? "0" : Math.abs(rounded).toFixed(2)}\u00a0points`;
}

export function decibels(value) {
  return `${value.toFixed(1)}\u00a0dB`;
}

function threeDigits(value) {
  const magnitude = Math.abs(value);
  if (magnitude >= 99.95) return value.toFixed(0);
  return magnitude >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}
