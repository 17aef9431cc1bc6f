"use strict";

// The search, and the page of a key.

let opened = null;

// Search

function hitText(hit) {
  const standing = hit.standing;
  if (!standing || !standing.rates.length) return `${hit.limit}: nothing counted`;
  const used = standing.rates.map(rate => `${count(rate.used)} / ${count(rate.limit)} per ${rate.window}`);
  const marks = [
    isShadow(standing) && "shadow",
    standing.blockedUntil && "blocked " + remaining(standing.blockedUntil),
    standing.refusedTries && counted(standing.refusedTries, "refused request"),
  ].filter(Boolean);
  return [`${hit.limit}: ${used.join(", ")}`, ...marks].join("; ");
}

function searchSummary(text, number, isCut) {
  if (!number) return `No key contains ${text}`;
  return `${number === 1 ? "1 key contains" : number + " keys contain"} ${text}${isCut ? "; there are more" : ""}`;
}

// Lists the keys that contain the text, with their use. Opens a key only if it is exactly the text.
async function search(text) {
  const result = await ask("/search?text=" + encodeURIComponent(text), { timeout: 60000 });
  const exact = result.meant.find(item => item.isKnown);
  if (exact) {
    element("found").hidden = true;
    openKey(exact.key);
    return;
  }
  const keys = [...new Set(result.found.map(item => item.key))];
  // A key that no limit has counted yet can be blocked in advance.
  const unknown = result.meant.length ? [text] : [];
  const summary = searchSummary(text, keys.length, result.isCut);
  element("found").hidden = false;
  show(element("found-title"), summary);
  sync(element("hits"), "li", [...keys, ...unknown], key => key, (item, key) => {
    const hits = result.found.filter(hit => hit.key === key);
    const use = hits.length ? hits.map(hitText).join(" · ") : "not counted yet";
    showNode(item, [use, () => {
      const line = make("div", undefined, { class: "hit" });
      line.append(keyButton(key), make("span", use, { class: "soft" }));
      return line;
    }]);
  });
  say(summary);
}

// The key's page. Its address is `#key=KEY`.

const keyOfAddress = () => {
  const match = /^#key=(.*)$/.exec(location.hash);
  try {
    return match && decodeURIComponent(match[1]);
  } catch {
    return null;
  }
};

function openKey(key) {
  if (keyOfAddress() === key) {
    followAddress();
  } else {
    location.hash = "key=" + encodeURIComponent(key);
  }
}

async function followAddress() {
  const key = keyOfAddress();
  opened = key ? { key } : null;
  element("key").hidden = true;
  if (!opened) return;
  for (const id of ["key-limits", "key-refusals", "key-clients", "key-audit", "key-commands"]) {
    element(id).replaceChildren();
  }
  show(element("key-title"), key);
  try {
    await refreshKey();
    if (opened?.key !== key) return;
    element("key-title").focus({ preventScroll: true });
    element("key").scrollIntoView({ block: "start" });
  } catch (error) {
    say(error.message);
    show(element("key-title"), `${key}: ${error.message}`);
    element("key").hidden = false;
  }
}

function closeKey() {
  history.pushState(null, "", location.pathname);
  followAddress();
  element("text").focus();
}

async function refreshKey() {
  const now = opened;
  if (!now) return;
  now.isAsking = true;
  try {
    const page = await ask("/key?key=" + encodeURIComponent(now.key));
    if (now !== opened) return;
    drawKey(now.key, page);
    element("key").hidden = false;
  } finally {
    now.isAsking = false;
  }
}

function drawKey(key, page) {
  // What has counted the key comes first.
  const items = [...page.limits].sort((one, other) => other.isKnown - one.isKnown)
    .map(found => found.standing || { ...found, rates: [], refusedTries: 0 });
  sync(element("key-limits"), "section", items, item => item.limit, drawStanding);
  if (!items.length) show(element("key-title"), `${key} is not a valid key for any limit`);
  lines("key-refusals", page.refusals, one =>
    `${one.newest.limit}${isShadow(one.newest) ? " (shadow, has passed)" : ""}: ${counted(one.count, "request")}, ` +
    `first ${time(one.first)}, last ${time(one.newest.time)}, ${why(one)}; answer: ${one.newest.action}`);
  if (!page.refusals.length) lines("key-refusals", ["None since the service started."], text => text);
  lines("key-clients", [...new Set(page.refusals.flatMap(one => one.clients))], client => client);
  if (!page.refusals.length) {
    lines("key-clients", ["Known only from refusals. The mail log has all: see the commands."], text => text);
  }
  lines("key-audit", page.audit, auditText);
  if (!page.audit.length) lines("key-audit", ["Nothing among the last 100 changes."], text => text);
  const commands = commandsOf(key, page.refusals, attributesOf(page.limits));
  sync(element("key-commands"), "li", commands, ([text]) => text, showCommand);
}

// The attributes that the limits which have counted a key count by.
function attributesOf(found) {
  const names = new Set(found.filter(one => one.isKnown).map(one => one.limit));
  return (latest ? latest.limits : []).filter(limit => names.has(limit.name)).map(limit => limit.attributes);
}

// A regular expression for the lines of the mail log with the queue IDs of a key's messages. A hacked account often
// sends from other addresses, so its login counts.
function markOf(key, attributes) {
  const escaped = plain(key).replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  if (attributes.includes("sasl_username")) return `client=.*sasl_username=${escaped}(,|$)`;
  if (attributes.includes("client_address")) return `client=.*\\[${escaped}\\]`;
  return `from=<${escaped}>`;
}

// Commands for a shell on the mail server.
function commandsOf(key, refusals, attributes) {
  const ids = [...new Set(refusals.flatMap(one => one.queueIDs))].slice(0, 10);
  const log = "/var/log/mail.log";
  const list = [["Its lines in the mail log", `grep -F -- ${quoted(key)} ${log} | tail -n 50`]];
  if (ids.length) {
    const pattern = ids.map(id => id.replace(/[^0-9A-Za-z]/g, "")).join("|");
    list.push(["Its last refused messages in the mail log", `grep -E ${quoted(pattern)} ${log}`]);
    list.push(["Which of these are still queued", `postqueue -j | grep -E ${quoted(pattern)}`]);
  }
  const mark = quoted(markOf(key, attributes));
  const queued = "postqueue -j | jq -r .queue_id | sort | comm -12 - /tmp/sent";
  list.push([
    "Queue IDs of all its messages",
    `grep -iE -- ${mark} ${log} | sed -n 's/.*\\]: \\([0-9A-Za-z]*\\): .*/\\1/p' | sort -u > /tmp/sent`,
  ]);
  list.push(["Which of these are still queued", queued]);
  list.push(["Hold what is still queued until you know more", `${queued} | postsuper -h -`]);
  return list;
}

function auditText(entry) {
  const result = entry.limits.length ? "done for " + entry.limits.join(", ") : "no limit knows this key";
  return (
    `${time(entry.time)} ${entry.user}: ${entry.action} ${entry.key}` +
    (entry.details && ` (${entry.details})`) + `: ${result}` + (entry.reason && ": " + entry.reason)
  );
}

function standingText(item) {
  const overridden = item.rates
    .filter(rate => !item.raisedUntil && rate.rate.split("/")[0] !== String(rate.limit))
    .map(rate => `${count(rate.limit)} per ${rate.window} instead of ${rate.rate}`);
  return [
    item.rates.length ? "" : "nothing counted lately",
    isShadow(item) && "shadow: its mail passes all the same" + (item.blockedUntil ? ", unless you have blocked it" : ""),
    item.exempt && "exempt by a table",
    overridden.length && "set by a table: " + overridden.join(", "),
    item.blockedUntil && "blocked " + remaining(item.blockedUntil),
    item.raisedUntil && "raised " + remaining(item.raisedUntil),
    item.refusedTries && counted(item.refusedTries, "refused request"),
    item.hosts?.length > 1 && "by host: " + item.hosts.map(part => partText(part, item)).join("; "),
  ].filter(Boolean).join("; ");
}

// What one host has counted of a key.
function partText(part, item) {
  if (!part.used) return `${part.host} does not answer`;
  const used = part.used.map((number, index) => `${count(number)} per ${item.rates[index]?.window}`).join(", ");
  return `${part.host} ${used}` + (part.age ? ` (${duration(part.age)} old)` : "");
}

function drawStanding(panel, item) {
  if (!panel.firstChild) {
    panel.append(
      make("h3"), make("p"), make("div", undefined, { class: "windows" }),
      make("p", undefined, { class: "buttons" }), make("div"));
    const [block, raise, reset] = [["Block", actions.blockFor], ["Raise", actions.raise], ["Reset", actions.reset]].map(
      ([name, action]) => makeButton(name, `${name} ${item.limit}`, () => action(panel.item)));
    const unblock = makeButton("Unblock", `Unblock ${item.limit}`, () => actions.unblock(panel.item));
    panel.children[3].append(block, unblock, raise, reset);
  }
  panel.item = item;
  const [title, text, windows, , said] = panel.children;
  panel.className = isShadow(item) ? "standing shadow" : "standing";
  show(title, item.key === opened.key ? item.limit : `${item.limit}: ${item.key}`);
  show(text, standingText(item));
  text.className = item.blockedUntil ? "bad" : "";
  sync(windows, "div", item.rates, rate => rate.window, (part, rate) => {
    if (!part.firstChild) part.append(make("div"), make("p", undefined, { class: "soft" }), make("div"));
    showNode(part.children[0], useCell(rate, Boolean(item.blockedUntil)));
    show(part.children[1], item.count + (rate.freesAt ? `, room in ${duration(rate.freesAt - serverTime.now())}` : ""));
    showNode(part.children[2], historyCell(rate, item.count));
  });
  showFeedback(said, item);
}

element("search").addEventListener("submit", async event => {
  event.preventDefault();
  try {
    await search(new FormData(event.target).get("text").trim());
  } catch (error) {
    element("found").hidden = false;
    show(element("found-title"), error.message);
    element("hits").replaceChildren();
    say(error.message);
  }
});
element("close-found").addEventListener("click", () => {
  element("found").hidden = true;
  element("text").focus();
});
element("close-key").addEventListener("click", closeKey);
window.addEventListener("hashchange", followAddress);
