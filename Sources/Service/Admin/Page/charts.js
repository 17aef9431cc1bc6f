"use strict";

// Plots.

const share = rate => rate.used / Math.max(1, rate.limit);

// The window of a standing that is fullest, the shortest of several.
const fullest = item => item.rates.reduce((one, other) => (share(other) > share(one) ? other : one));
const shortest = item =>
  item.rates.reduce((one, other) => (secondsOf(other.window) < secondsOf(one.window) ? other : one));

const level = part => (part >= 1 ? "bad" : part >= 0.8 ? "warn" : "");

function makeMeter(rate, isBlocked) {
  const part = share(rate);
  const fill = makeSVG("rect", { class: "level", width: Math.min(100, part * 100), height: 10 });
  const attributes = { class: "meter", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" };
  const span = make("span", undefined, { class: isBlocked ? "bad" : level(part) });
  span.append(makeSVG("svg", attributes, fill));
  return span;
}

// `12 / 100 per 1m`, with a meter.
function useCell(rate, isBlocked) {
  const text = `${count(rate.used)} / ${count(rate.limit)} per ${rate.window}`;
  return [text + isBlocked, () => {
    const cell = make("div", undefined, { class: "use" });
    cell.append(make("span", text), makeMeter(rate, isBlocked));
    return cell;
  }];
}

// How the use of a window has grown to what it is, with a line at the limit.
function courseCell(rate) {
  const history = rate.history || [];
  const signature = `${rate.window} ${rate.limit} ${history.join()}`;
  return [signature, () => {
    let sum = 0;
    const sums = history.map(amount => (sum += amount));
    const top = Math.max(rate.limit, sum, 1) * 1.15;
    const y = value => (30 - (value / top) * 30).toFixed(2);
    const points = sums.map((value, index) => `${index},${y(value)}`).join(" ");
    const end = Math.max(1, history.length - 1);
    const attributes = {
      class: "course " + level(share(rate)),
      viewBox: `0 0 ${end} 30`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `${count(rate.used)} of ${count(rate.limit)} within ${rate.window}`,
    };
    const figure = make("div", undefined, { class: "figure" });
    figure.append(
      makeSVG("svg", attributes,
        makeSVG("polygon", { class: "area", points: `0,30 ${points} ${end},30` }),
        makeSVG("polyline", { class: "line", points }),
        makeSVG("line", { class: "bound", x1: 0, x2: end, y1: y(rate.limit), y2: y(rate.limit) })),
      make("span", rate.window, { class: "soft" }));
    return figure;
  }];
}

// What each sixtieth of a window was charged, with axes.
function historyCell(rate, unit) {
  const history = rate.history || [];
  const signature = `${rate.window} ${rate.limit} ${history.join()}`;
  return [signature, () => {
    const peak = Math.max(0, ...history);
    const top = Math.max(1, peak);
    const bars = history.flatMap((amount, index) => {
      if (!amount) return [];
      const height = (amount / top) * 40;
      return [makeSVG("rect", { class: "passed", x: index, width: 0.85, y: 40 - height, height })];
    });
    const slot = duration(secondsOf(rate.window) / 60);
    const attributes = {
      class: "history",
      viewBox: `0 0 ${history.length || 1} 40`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": `${unit} in each ${slot} of the last ${rate.window}; peak ${count(peak)}`,
    };
    const figure = make("div", undefined, { class: "plot" });
    const scale = make("div", undefined, { class: "scale", "aria-hidden": "true" });
    scale.append(make("span", count(top)), make("span", "0"));
    const times = make("p", undefined, { class: "times", "aria-hidden": "true" });
    times.append(
      make("span", rate.window + " ago"), make("span", `${unit} in each ${slot}`), make("span", "now"));
    figure.append(scale, makeSVG("svg", attributes, ...bars), times);
    return figure;
  }];
}

// The rates

const bucketSeconds = 5;
const colourOf = action => ({ DUNNO: "passed", DEFER: "warns" })[action] || "answered";

// The answers as last shown, in buckets, and the bucket that the pointer reads; nil for the newest.
const rate = { answers: [], read: null, time: 0 };

// 1, 2 or 5 times a power of ten, at least `value`.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find(factor => factor * power >= value);
}

function drawRate(answers, time) {
  rate.time = time;
  rate.answers = answers.map(one => {
    const perSecond = one.perSecond.slice(one.perSecond.length % bucketSeconds);
    const buckets = [];
    for (let start = 0; start < perSecond.length; start += bucketSeconds) {
      const sum = perSecond.slice(start, start + bucketSeconds).reduce((total, value) => total + value, 0);
      buckets.push(sum / bucketSeconds);
    }
    return { action: one.action, total: one.total, buckets };
  });
  const length = rate.answers[0].buckets.length;
  const sums = Array.from({ length }, (_, index) => rate.answers.reduce((sum, one) => sum + one.buckets[index], 0));
  const top = nice(Math.max(1, ...sums));
  const bars = [];
  for (let index = 0; index < length; index++) {
    let base = 100;
    for (const one of rate.answers) {
      const height = (one.buckets[index] / top) * 100;
      base -= height;
      const x = 120 - length + index;
      if (height) bars.push(makeSVG("rect", { class: colourOf(one.action), x, width: 0.9, y: base, height }));
    }
  }
  const middle = makeSVG("line", { class: "grid", x1: 0, x2: 120, y1: 50, y2: 50 });
  element("rate").replaceChildren(middle, ...bars, makeSVG("line", { class: "cursor", y1: 0, y2: 100 }));
  lines("rate-scale", [top, top / 2, 0], value => count(value) + "/s");
  drawReading();
}

// The rates at the cursor, or the newest.
function drawReading() {
  if (!rate.answers.length) return;
  const length = rate.answers[0].buckets.length;
  const index = rate.read === null ? length - 1 : Math.min(length - 1, Math.max(0, rate.read));
  const ago = (length - 1 - index) * bucketSeconds;
  const cursor = element("rate").querySelector(".cursor");
  const x = 120 - length + index + 0.45;
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
  cursor.setAttribute("class", rate.read === null ? "cursor unseen" : "cursor");
  const when = `${clock(rate.time - ago)}${ago ? `, ${duration(ago)} ago` : ""}`;
  const values = rate.answers.map(one => `${one.action} ${count(one.buckets[index])}/s`).join(", ");
  show(element("rate-text"), `${when}: ${values}`);
  element("rate").setAttribute("aria-valuenow", String(-ago));
  element("rate").setAttribute("aria-valuetext", `${when}: ${values}`);
  sync(element("legend"), "li", rate.answers, one => one.action, (item, one) => {
    const text = ` ${one.action} ${count(one.buckets[length - 1])}/s, ${count(one.total)} in total`;
    showNode(item, [text, () => {
      const content = make("span");
      const swatch = makeSVG("rect", { class: colourOf(one.action), width: 1, height: 1 });
      content.append(makeSVG("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }, swatch), text);
      return content;
    }]);
  });
}

function read(bucket) {
  rate.read = bucket;
  drawReading();
}

element("rate").addEventListener("pointermove", event => {
  if (!rate.answers.length) return;
  const box = element("rate").getBoundingClientRect();
  read(Math.floor(((event.clientX - box.left) / box.width) * 120) - 120 + rate.answers[0].buckets.length);
});
element("rate").addEventListener("pointerleave", () => read(null));
element("rate").addEventListener("blur", () => read(null));
element("rate").addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: 12, PageDown: -12, Home: -1000, End: 1000 }[event.key];
  if (!step || !rate.answers.length) return;
  event.preventDefault();
  const newest = rate.answers[0].buckets.length - 1;
  read(Math.min(newest, Math.max(0, (rate.read === null ? newest : rate.read) + step)));
});
