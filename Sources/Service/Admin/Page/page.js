"use strict";

// What the service does, and whether it answers. The other scripts are loaded before.

const refreshMilliseconds = 800;
// Without data for this long, the service hangs or is unreachable.
const mostSilence = 1.8;
const watchMilliseconds = 200;
const requestTimeout = 1500;
// More list items would slow the page down.
const maxUnusedRules = 1000;

let latest = null;
// Between the clock of this page and the uptime of the service, of the last responses. The smallest is the best: its
// response took the least time.
let offsets = [];

const now = () => performance.now() / 1000;

// In seconds; nil before the first response.
const ageOfData = () => (latest ? Math.max(0, now() - latest.uptime - Math.min(...offsets)) : null);

// State

// Each trouble with what to do.
function troublesOf(overview) {
  const list = [];
  if (overview.trouble) {
    list.push(
      `${overview.trouble[0].toUpperCase()}${overview.trouble.slice(1)}. Weir tries again by itself. Look at the disk ` +
      `of ${overview.ledger.path}: free space, permissions, read-only?`);
  }
  if (overview.engineTrouble) {
    const { cause, effect } = overview.engineTrouble;
    list.push(
      `Shared limits: ${cause}; ${effect}. Weir tries again by itself.` +
      (cause.startsWith("can't use the engine") ? " Look at the engine, and at the network between it and this host." : ""));
  }
  if (overview.reload.fault) {
    list.push(
      `The reload at ${time(overview.reload.time)} was rejected: ${overview.reload.fault}. The configuration from ` +
      "before stays in use. Correct the file: weir check-config && systemctl reload weir.");
  }
  for (const way of overview.ways) {
    const hop = way.values.nextHop;
    if (!hop || !hop.trouble) continue;
    list.push(
      `Mail waits in Postfix's queue: the next hop ${hop.address} of ${way.name} is unreachable since ` +
      `${time(hop.trouble.since)} (${hop.trouble.cause}). Start it, or look into its log.`);
  }
  return list;
}

function showState(word, kind, troubles) {
  show(element("state"), word);
  element("state").className = "state " + kind;
  element("trouble").hidden = !troubles.length;
  lines("troubles", troubles, text => text);
  document.title = (kind === "bad" ? "! " : "") + (latest ? latest.host + ": " : "") + "Weir";
}

function drawState(overview) {
  const troubles = troublesOf(overview);
  if (troubles.length) showState("Trouble", "bad", troubles);
  else showState("OK", "good", []);
  const said = [troubles.length ? "" : "Weir answers, and its counts are saved.", hostsText(overview.hosts)];
  show(element("summary"), said.filter(Boolean).join(" "));
}

// Whose figures the sums of shared limits contain.
function hostsText(shared) {
  if (!shared || shared.hosts.length < 2) return "";
  const told = shared.hosts.filter(host => host.hasAnswered).map(host => host.name);
  const heard = host => host.age === undefined ? "never heard" : `last heard ${duration(host.age)} ago`;
  const missing = shared.hosts.filter(host => !host.hasAnswered)
    .map(host => `${host.name} does not answer (${heard(host)})`);
  const faults = shared.fault ? [`the other hosts can't be asked: ${shared.fault}`] : missing;
  return `Figures of shared limits are of ${[told.join(", "), ...faults].join("; ")}.`;
}

// Turns all controls off while the data is old: what they would change can't be seen.
function setStale(isStale) {
  const controls = element("controls");
  if (controls.disabled === isStale) return;
  if (isStale) controls.focused = controls.contains(document.activeElement) ? document.activeElement : null;
  controls.disabled = isStale;
  document.body.classList.toggle("stale", isStale);
  if (isStale && element("ask").open) element("ask").close();
  if (!isStale && controls.focused && document.activeElement === document.body) controls.focused.focus();
}

function watch() {
  const age = ageOfData();
  if (age === null) return;
  show(element("age"), age < mostSilence ? "live" : `data ${duration(age)} old`);
  if (age < mostSilence || document.hidden) return;
  setStale(true);
  show(element("summary"), "");
  showState("No answer", "bad", [
    `No answer for ${duration(age)}; trying again. The service hangs, is down, or the tunnel is cut. ` +
    "On the mail server: systemctl status weir, then journalctl -u weir.",
  ]);
}

// The parts

function drawLedger(overview) {
  const ledger = overview.ledger;
  figures("ledger", {
    "state": overview.trouble ? "not saved" : "OK",
    "keys": `${count(overview.keys)} of at most ${count(ledger.mostKeys)}`,
    "evicted keys": count(ledger.evictedKeys),
    "journal": size(ledger.journalBytes),
    "last checkpoint": ledger.lastCheckpoint ? time(ledger.lastCheckpoint) : "none",
    "checkpoint took": ledger.checkpointSeconds === undefined ? "unknown" : ledger.checkpointSeconds + " s",
    "store": ledger.path,
    "durability": ledger.durability,
  });
}

// A figure of a limit; for a shared one, with the part of each host.
function partsCell(item, figure, total) {
  if (!item.hosts) return total;
  const parts = item.hosts.map(part => `${part.host} ${count(figure(part))}`).join(", ");
  return [`${total} ${parts}`, () => twoLines(make("span", count(total)), parts)];
}

function drawLimits(overview) {
  rows("limits", overview.limits, item => item.name, item => [
    item.name + (isShadow(item) ? " (shadow)" : ""),
    `${item.count} by ${item.attributes}`,
    item.rates.join(", "),
    partsCell(item, part => part.keys, item.keys),
    partsCell(item, part => part.refusals, (item.hosts || [item]).reduce((sum, part) => sum + part.refusals, 0)),
  ]);
  const left = overview.limitCount - overview.limits.length;
  show(element("limits-text"), left > 0 ? `and ${count(left)} more that have refused less` : "");
}

const postfix = endpoint => endpoint.replace(/:mode=.*/, "");

// What main.cf needs, as long as nothing comes.
function hookups(overview) {
  const list = [];
  const { policy, milter, filter } = overview.listeners;
  if (!overview.requests && policy.length) {
    list.push([
      "No policy request yet. In main.cf, at the end of smtpd_recipient_restrictions:",
      `check_policy_service ${postfix(policy[0])}`,
    ]);
  }
  const way = overview.ways.find(one => one.name === "milter");
  const hasMail = way && Object.values(way.values.messages).some(number => number > 0);
  if (milter.length && !hasMail) {
    list.push(["The milter has seen no message yet. In main.cf, before milters that sign:",
      `smtpd_milters = ${postfix(milter[0])}`]);
  }
  if (!milter.length && !filter.length) {
    list.push(["Weir looks into no message: no milter is configured. In weir.yaml, then main.cf (milter.md):",
      "smtpd_milters = inet:127.0.0.1:10043"]);
  }
  return list;
}

function drawListeners(overview) {
  const hopCell = hop => {
    const state = !hop ? "" : hop.trouble
      ? `${hop.address}: unreachable since ${time(hop.trouble.since)}: ${hop.trouble.cause}`
      : `${hop.address}: OK, ${hop.connections - hop.idle} busy, ${hop.idle} idle, ${hop.failures} failures`;
    return [state, () => make("span", state, { class: hop?.trouble ? "bad" : "" })];
  };
  rows("ways", overview.ways, item => item.name, item => {
    const messages = item.values.messages;
    const outcomes = ["passed", "edited", "held", "refused", "deferred", "discarded"];
    return [item.name, ...outcomes.map(name => messages[name]), hopCell(item.values.nextHop)];
  });
  element("ways-part").hidden = !overview.ways.length;
  sync(element("hookup"), "li", hookups(overview), ([text]) => text, showCommand);
}

// The set is there only if there are several.
function ruleName(rule) {
  return (rule.set ? `${rule.checks} of ${rule.set} ` : rule.checks + " ") + rule.location;
}

function drawRules(overview) {
  rows("rules", overview.rules, item => ruleName(item), item => [
    item.tag
      ? [`${item.location} ${item.tag}`, () => twoLines(make("span", item.location), "tag " + item.tag)] : item.location,
    item.set ? `${item.checks} of ${item.set}` : item.checks,
    item.hits,
    item.lastHit ? time(item.lastHit) : "",
    item.limitsReached,
    [item.milliseconds.toFixed(1) + " ms", () => make("span", item.milliseconds.toFixed(1) + " ms")],
  ]);
  const tags = overview.tags.map(one => `${one.tag} ${count(one.hits)}`);
  show(element("tags"), tags.length ? "Hits by tag: " + tags.join(", ") : "");
  const idle = overview.rulesWithoutHits;
  show(element("no-rules"), overview.rules.length ? "" : idle ? "No rule has matched yet." : "No rules are configured.");
  element("unused").hidden = !idle;
  show(element("unused").firstElementChild, `${counted(idle, "rule")} without hits since they were loaded`);
}

async function drawUnused() {
  if (!element("unused").open) return;
  const unused = await ask("/rules/unused?age=10");
  const shown = unused.slice(0, maxUnusedRules).map(ruleName);
  if (unused.length > maxUnusedRules) shown.push(`and ${unused.length - maxUnusedRules} more`);
  sync(element("unused").querySelector("ul"), "li", shown, line => line, show);
}

function draw(overview) {
  const faults = overview.faults;
  show(element("host"), overview.host);
  show(element("about"), `Weir ${overview.version}, up ${duration(overview.uptime)}`);
  drawState(overview);
  forgetOldFeedback();
  drawNow(overview);
  drawRate(overview.answers, overview.time);
  figures("figures", {
    "p50 of the last minute": latency(overview.p50),
    "p99 of the last minute": latency(overview.p99),
    "requests": count(overview.requests),
    "policy connections": count(overview.connections),
    "bad requests": count(faults.malformed + faults.tooSlow + faults.droppedMidRequest),
    "refused connections": count(faults.refusedConnections),
  });
  drawRefusals(overview.refusals);
  drawLimits(overview);
  drawListeners(overview);
  drawLedger(overview);
  drawRules(overview);
  lines("audit", overview.audit, auditText);
  show(element("no-audit"), overview.audit.length ? "" : "No administrator has changed a key yet.");
}

// Refreshing

async function refresh() {
  try {
    const overview = await ask("/overview", { timeout: requestTimeout });
    element("token").hidden = true;
    // After a restart, the uptime begins anew.
    if (latest && overview.uptime < latest.uptime) offsets = [];
    offsets = [...offsets.slice(-29), now() - overview.uptime];
    latest = overview;
    serverTime.set(overview.time);
    setStale(false);
    draw(overview);
    // The page of a key may take longer, and does not hold up the rest.
    if (opened && !opened.isAsking) refreshKey().catch(error => say(error.message));
  } catch (error) {
    if (!error.isSilence || !latest) showState(error.isSilence ? "No answer" : error.message, "bad", []);
    if (!error.isSilence) setStale(true);
  }
  watch();
}

async function run() {
  for (;;) {
    const began = performance.now();
    if (!document.hidden) await refresh();
    const left = refreshMilliseconds - (performance.now() - began);
    await new Promise(done => setTimeout(done, Math.max(100, left)));
  }
}

afterAction = refresh;
element("unused").addEventListener("toggle", () => drawUnused().catch(error => say(error.message)));
element("token").querySelector("form").addEventListener("submit", event => {
  event.preventDefault();
  useToken(new FormData(event.target).get("token").trim());
  refresh();
});
setInterval(watch, watchMilliseconds);
run();
followAddress();
