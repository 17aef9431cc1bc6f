"use strict";

// The page shows what /snapshot, /limits and their like return. dom.js is loaded before.

// The open key: its text, and the limits that count it.
let opened = null;
let limits = [];
let lastAnswer = null;

// More list items would slow the page down.
const maxUnusedRules = 1000;
const maxRules = 100;
const refreshMilliseconds = 2000;

// Cells

const shadowMark = item => (item.mode === "shadow" ? " (shadow)" : "");

const keyCell = key => [
  "key " + key,
  () => {
    const button = make("button", key, { type: "button" });
    button.addEventListener("click", () => open(key));
    return button;
  },
];

const share = rate => rate.used / Math.max(1, rate.limit);
const fullest = item => item.rates.reduce((one, other) => (share(other) > share(one) ? other : one));

// The rate with the longest window that has a history.
const longest = item =>
  item.rates.reduce((one, other) =>
    (other.history || []).length && secondsOf(other.window) > secondsOf(one.window) ? other : one);

function meterCell(rate, isBlocked) {
  const part = share(rate);
  const percent = Math.floor(part * 100);
  const isFull = isBlocked || part >= 1;
  const isNear = part >= 0.8;
  const word = isBlocked ? "blocked" : isFull ? "full" : isNear ? percent + " %, near" : percent + " %";
  const text = `${rate.used}/${rate.limit}, ${word}`;
  return [
    text,
    () => {
      const span = make("span", undefined, { class: isFull ? "bad" : isNear ? "warn" : "" });
      const level = makeSVG("rect", { class: "level", width: Math.min(100, part * 100), height: 10 });
      const attributes = { class: "meter", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" };
      span.append(makeSVG("svg", attributes, level), " " + text);
      return span;
    },
  ];
}

function historyCell(rate) {
  const history = rate.history || [];
  const top = Math.max(1, ...history);
  const bars = history.flatMap((amount, index) => {
    if (!amount) return [];
    const height = (amount / top) * 10;
    return [makeSVG("rect", { class: "passed", x: index, width: 0.9, y: 10 - height, height })];
  });
  const attributes = {
    class: "course",
    viewBox: `0 0 ${history.length || 1} 10`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `use over the last ${rate.window}; peak ${Math.max(0, ...history)} in 1/60 of it`,
  };
  return ["history " + history.join(), () => makeSVG("svg", attributes, ...bars)];
}

// The snapshot

const colourOf = action => ({ DUNNO: "passed", DEFER: "warns" })[action] || "answered";

function drawRate(answers) {
  const length = answers[0].perSecond.length;
  const sums = answers[0].perSecond.map((_, second) => answers.reduce((sum, one) => sum + one.perSecond[second], 0));
  const top = Math.max(1, ...sums);
  const bars = sums.flatMap((sum, second) => {
    if (!sum) return [];
    let base = 120;
    return answers.flatMap(one => {
      const height = (one.perSecond[second] / top) * 120;
      base -= height;
      if (!height) return [];
      return [makeSVG("rect", { class: colourOf(one.action), x: second, width: 1, y: base, height })];
    });
  });
  element("rate").replaceChildren(...bars);
  show(element("rate-text"), `${sums[length - 1]} in the last second; peak ${Math.max(0, ...sums)} per second.`);
  sync(element("legend"), "li", answers, one => one.action, (item, one) => {
    const text = ` ${one.action}: ${one.perSecond[length - 1]} per second, ${one.total} since the start`;
    showNode(item, [text, () => {
      const content = make("span");
      const swatch = makeSVG("rect", { class: colourOf(one.action), width: 1, height: 1 });
      content.append(makeSVG("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }, swatch), text);
      return content;
    }]);
  });
}

function drawState(status, ways) {
  const troubles = ways
    .filter(way => way.values.nextHop && way.values.nextHop.trouble)
    .map(way => `next hop of ${way.name} unreachable: ${way.values.nextHop.trouble.cause}`);
  if (status.trouble) troubles.unshift("ledger unavailable: " + status.trouble);
  show(element("state"), troubles.join("; ") || "ledger OK");
  element("state").className = troubles.length ? "bad" : "good";
}

function drawLedger(status) {
  const ledger = status.ledger;
  figures("ledger", {
    "state": status.trouble ? "unavailable: " + status.trouble : "OK",
    "keys": `${status.keys} of at most ${ledger.mostKeys}`,
    "evicted keys": ledger.evictedKeys,
    "journal": size(ledger.journalBytes),
    "last checkpoint": ledger.lastCheckpoint ? date(ledger.lastCheckpoint) : "none",
    "checkpoint took": ledger.checkpointSeconds === undefined ? "unknown" : ledger.checkpointSeconds + " s",
    "store": ledger.path,
    "durability": ledger.durability,
  });
}

function drawLimits() {
  rows("limits", limits, item => item.name, item => [
    item.name + shadowMark(item),
    `${item.count} by ${item.attributes}`,
    item.rates.join(", "),
    item.keys,
    item.refusals,
  ]);
  sync(element("limit"), "option", ["", ...limits.map(limit => limit.name)], name => name, (option, name) => {
    option.value = name;
    show(option, name || "all");
  });
}

function drawRefusals(refusals) {
  rows("refusals", refusals, item => JSON.stringify(item), item => [
    clock(item.time),
    item.limit + shadowMark(item),
    keyCell(item.key),
    `${item.reason}: ${item.usage}`,
    item.retry + " s",
    item.action,
    [
      item.queueID,
      item.client,
      item.login && "login " + item.login,
      item.sender && "from " + item.sender,
      item.recipient && "to " + item.recipient,
    ].filter(Boolean).join(", "),
  ]);
}

function drawListeners(ways) {
  rows("ways", ways, item => item.name, item => {
    const messages = item.values.messages;
    return [
      item.name,
      messages.passed,
      messages.edited,
      messages.held,
      messages.refused,
      messages.deferred,
      messages.discarded,
      item.values.connections,
    ];
  });
  rows("hops", ways.filter(item => item.values.nextHop), item => item.name, item => {
    const hop = item.values.nextHop;
    const state = hop.trouble ? `unreachable since ${date(hop.trouble.since)}: ${hop.trouble.cause}` : "OK";
    const stateCell = [state, () => make("span", state, { class: hop.trouble ? "bad" : "" })];
    return [hop.address, stateCell, hop.connections - hop.idle, hop.idle, hop.failures];
  });
}

function drawRules(snapshot) {
  rows("rules", snapshot.rules.slice(0, maxRules), item => item.checks + " " + item.location, item => [
    item.checks,
    item.location,
    item.hits,
    item.lastHit ? date(item.lastHit) : "",
    item.limitsReached,
    item.milliseconds.toFixed(1) + " ms",
  ]);
  show(element("unused").firstElementChild, `${snapshot.rulesWithoutHits} rules without hits since they were loaded`);
}

function auditText(entry) {
  const result = entry.limits.length ? "done for " + entry.limits.join(", ") : "no limit counts this key";
  return (
    `${date(entry.time)} ${entry.user}: ${entry.action} ${entry.key}` +
    (entry.details && ` (${entry.details})`) +
    `: ${result}` +
    (entry.reason && ": " + entry.reason)
  );
}

function draw(snapshot) {
  const status = snapshot.status;
  const faults = status.faults;
  limits = status.limits;
  drawRate(snapshot.answers);
  figures("figures", {
    "p50, last minute": duration(snapshot.medianAnswer),
    "p99, last minute": duration(snapshot.slowAnswer),
    "policy connections": status.connections,
    "bad requests": faults.malformed + faults.tooSlow + faults.droppedMidRequest,
    "refused connections": faults.refusedConnections,
  });
  drawState(status, snapshot.ways);
  drawLedger(status);
  drawLimits();
  drawRefusals(snapshot.refusals);
  drawListeners(snapshot.ways);
  drawRules(snapshot);
  sync(element("audit"), "li", snapshot.audit, entry => JSON.stringify(entry), (item, entry) =>
    show(item, auditText(entry)));
  show(element("about"), `Weir ${snapshot.version}: ${snapshot.configuration}`);
}

function drawTop(standings) {
  rows("top", standings, item => item.limit + "|" + item.key, item => {
    const rate = fullest(item);
    return [
      keyCell(item.key),
      meterCell(rate, item.blockedUntil),
      rate.window,
      historyCell(longest(item)),
      item.limit + shadowMark(item),
      item.refusedTries,
    ];
  });
}

async function drawUnused() {
  if (!element("unused").open) return;
  const unused = await ask("/rules/unused?age=10");
  const lines = unused.slice(0, maxUnusedRules).map(rule => `${rule.checks} ${rule.location}`);
  if (unused.length > maxUnusedRules) lines.push(`and ${unused.length - maxUnusedRules} more`);
  sync(element("unused").querySelector("ul"), "li", lines, line => line, show);
}

// Search, and the open key

function searchSummary(text, count, isCut) {
  if (!count) return `No key contains ${text}.`;
  const keys = count === 1 ? "1 key contains" : `${count} keys contain`;
  return `${keys} ${text}${isCut ? "; there are more" : ""}:`;
}

// Lists the keys that contain the text. Opens the key that the text names, or the only one found.
async function search(text) {
  const place = element("found");
  const result = await ask("/search?text=" + encodeURIComponent(text));
  const found = [...new Set(result.found.map(item => item.key))];
  const list = make("ul");
  for (const key of found) {
    const item = make("li");
    item.append(keyCell(key)[1]());
    list.append(item);
  }
  place.replaceChildren(make("p", searchSummary(text, found.length, result.isCut)), list);
  say(place.firstChild.textContent);
  if (found.length === 1 && !result.meant.some(item => item.isKnown)) {
    await open(found[0]);
  } else if (result.meant.length) {
    await open(text);
  } else {
    close();
  }
}

function close() {
  opened = null;
  element("key").replaceChildren();
}

async function open(key) {
  opened = { key, meant: null };
  element("key").replaceChildren(make("h3", key, { tabindex: "-1" }), make("div"));
  await attempt(refreshKey);
  element("key").scrollIntoView({ block: "nearest" });
}

async function refreshKey() {
  const now = opened;
  if (!now) return;
  const standings = await ask("/limits/key?key=" + encodeURIComponent(now.key));
  // The limits that can have this key, counted yet or not.
  if (!now.meant) now.meant = await ask("/limits/meant?key=" + encodeURIComponent(now.key));
  if (now !== opened) return;
  const items = now.meant.map(
    item => standings.find(one => one.limit === item.limit) || { ...item, rates: [] });
  sync(element("key").lastElementChild, "div", items, item => item.limit, drawStanding);
}

function standingText(item) {
  const overridden = item.rates
    .filter(rate => !item.raisedUntil && rate.rate.split("/")[0] !== String(rate.limit))
    .map(rate => `${rate.limit} per ${rate.window} instead of ${rate.rate}`);
  return [
    item.rates.length ? "" : "nothing counted recently",
    item.exempt && "exempt by a table",
    overridden.length && "set by a table: " + overridden.join(", "),
    item.blockedUntil && "blocked until " + date(item.blockedUntil),
    item.raisedUntil && "raised until " + date(item.raisedUntil),
    item.refusedTries && "refused requests: " + item.refusedTries,
  ].filter(Boolean).join("; ");
}

function drawStanding(panel, item) {
  if (!panel.firstChild) panel.append(make("h4"), make("p"), make("div"), makeActions(item));
  const [title, text, list] = panel.children;
  show(title, `${item.limit}: ${item.key}` + (item.mode === "shadow" ? ", shadow" : ""));
  show(text, standingText(item));
  text.className = item.blockedUntil ? "bad" : "";
  sync(list, "div", item.rates, rate => rate.window, (part, rate) => {
    if (!part.firstChild) part.append(make("span"), make("span"), make("div"));
    const [meter, rest, history] = part.children;
    showNode(meter, meterCell(rate, item.blockedUntil));
    show(rest, ` ${item.count} per ${rate.window}` + (rate.freesAt ? ", room at " + clock(rate.freesAt) : ""));
    showNode(history, historyCell(rate));
  });
}

// Interventions

const durations = {
  "1 hour": 3600,
  "12 hours": 43200,
  "1 day": 86400,
  "2 days": 172800,
  "1 week": 604800,
  "30 days": 2592000,
  "no end": "",
};

// The rates in force for a key, as the default of a raise.
function ratesInForce(item, limit) {
  if (item.rates.length) return item.rates.map(rate => rate.limit + "/" + rate.window).join(" ");
  return limit ? limit.rates.join(" ") : "";
}

// The form that changes a key. It is made once, to keep what has been typed.
function makeActions(item) {
  const limit = limits.find(one => one.name === item.limit);
  const group = make("fieldset", undefined, { class: "acts" });
  const field = (name, input) => {
    const label = make("label", name + " ");
    label.append(input);
    input.setAttribute("aria-label", `${name}, ${item.limit}`);
    group.append(label);
    return input;
  };
  group.append(make("legend", "Change " + item.limit));
  const rates = field("Rates", make("input", undefined, { value: ratesInForce(item, limit), autocomplete: "off" }));
  const lasting = field("For", make("select"));
  for (const [name, value] of Object.entries(durations)) lasting.append(make("option", name, { value }));
  lasting.value = 86400;
  const reason = field("Reason", make("input", undefined, { maxlength: 200, autocomplete: "off" }));
  const action = (name, more) => {
    const button = make("button", name, { type: "button", "aria-label": `${name} ${item.limit}` });
    button.addEventListener("click", () =>
      intervene({
        action: name.toLowerCase(),
        key: item.key,
        limit: item.limit,
        reason: reason.value.trim() || undefined,
        ...more(),
      }));
    group.append(button);
  };
  const time = () => ({ duration: Number(lasting.value) || undefined });
  action("Reset", () => ({}));
  action("Raise", () => ({ rates: rates.value.trim().split(/[\s,]+/), ...time() }));
  action("Block", time);
  action("Unblock", () => ({}));
  return group;
}

async function intervene(intervention) {
  await attempt(async () => {
    const standings = await ask("/limits/key", { method: "POST", body: JSON.stringify(intervention) });
    const done = standings.map(item => `${item.limit}: ${item.key}`).join(", ");
    say([`${intervention.action} done for ${done}`, ...standings.flatMap(item => item.note || [])].join("; "));
    await refreshKey();
    draw(await ask("/snapshot"));
  });
}

// Refreshing

function showFailure(error) {
  let text = error.message;
  if (error.isSilence) {
    text = lastAnswer ? `no response since ${clock(lastAnswer)}, retrying` : "no response, retrying";
    if (lastAnswer) document.querySelector("main").className = "stale";
  }
  show(element("state"), text);
  element("state").className = "bad";
}

async function refresh() {
  try {
    const snapshot = await ask("/snapshot?age=1");
    element("token").hidden = true;
    document.querySelector("main").className = "";
    lastAnswer = Date.now() / 1000;
    draw(snapshot);
    const limit = element("limit").value;
    drawTop(await ask("/limits?most=20&history=1&age=1" + (limit && "&limit=" + encodeURIComponent(limit))));
    await drawUnused();
    await refreshKey();
  } catch (error) {
    showFailure(error);
  }
}

async function run() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise(done => setTimeout(done, refreshMilliseconds));
  }
}

element("search").addEventListener("submit", event => {
  event.preventDefault();
  attempt(() => search(new FormData(event.target).get("text").trim()));
});
element("limit").addEventListener("change", refresh);
element("unused").addEventListener("toggle", () => attempt(drawUnused));
element("token").querySelector("form").addEventListener("submit", event => {
  event.preventDefault();
  useToken(new FormData(event.target).get("token").trim());
  refresh();
});
run();
