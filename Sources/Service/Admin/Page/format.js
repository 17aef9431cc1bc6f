"use strict";

// Numbers, times and texts for people.

// Escapes invisible characters and those that change the text direction: one key must not look like another.
const plain = text =>
  String(text).replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    character => `\\u{${character.codePointAt(0).toString(16).toUpperCase()}}`);

// 9999, 12.3 k, 200 M
function count(number) {
  if (number < 10000) return String(Number.isInteger(number) ? number : Number(number.toFixed(1)));
  let value = number;
  for (const unit of ["k", "M", "G", "T", "P", "E"]) {
    value /= 1000;
    if (value < 999.5) return (value < 99.95 ? Number(value.toFixed(1)) : Math.round(value)) + " " + unit;
  }
  return value.toExponential(1);
}

const counted = (number, one) => `${count(number)} ${one}${number === 1 ? "" : "s"}`;

const size = bytes => (bytes < 10000 ? `${bytes} B` : count(bytes) + "B");

// `2026-11-28T05:01:02Z`, as `weir limits audit` writes times.
const time = seconds => new Date(Math.floor(seconds) * 1000).toISOString().replace(".000", "");

// `05:01:02Z`
const clock = seconds => time(seconds).slice(11);

// `1h 5m`, as `weir limits` writes durations: rounded up, in at most two units.
function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const whole = Math.max(1, Math.ceil(seconds));
  const index = units.findIndex(([, length]) => whole >= length);
  const [unit, length] = units[index];
  const [smallUnit, smallLength] = units[Math.min(index + 1, units.length - 1)];
  const rounded = Math.ceil(whole / smallLength) * smallLength;
  if (rounded !== whole) return duration(rounded);
  const rest = Math.floor((whole % length) / smallLength);
  return Math.floor(whole / length) + unit + (rest ? ` ${rest}${smallUnit}` : "");
}

// The clock of the mail server, in seconds since 1970. The browser may run elsewhere, by a clock that is wrong.
const serverTime = {
  told: Date.now() / 1000,
  heard: performance.now() / 1000,
  set(seconds) {
    this.told = seconds;
    this.heard = performance.now() / 1000;
  },
  now() {
    return this.told + performance.now() / 1000 - this.heard;
  },
};

// A block that an administrator ends has ten years.
const endless = 5 * 366 * 86400;
const remaining = until => {
  const seconds = until - serverTime.now();
  return seconds > endless ? "until unblocked" : "for " + duration(seconds);
};

const latency = microseconds => {
  if (microseconds === undefined) return "no answers";
  return microseconds < 1000 ? `≤ ${microseconds} µs` : `≤ ${microseconds / 1000} ms`;
};

// The seconds of a window such as `15m`.
const secondsOf = window => parseInt(window) * { s: 1, m: 60, h: 3600, d: 86400, w: 604800 }[window.slice(-1)];

// One word for a shell, whatever a peer has put into it.
const quoted = text => {
  const shown = plain(text);
  return /^[\w@.+:/=%,][\w@.+:/=%,-]*$/.test(shown) ? shown : `'${shown.replaceAll("'", "'\\''")}'`;
};
