"use strict";

// Who is over, blocked, or rises fastest; and the refusals.

const isShadow = item => item.mode === "shadow";

let showsAll = false;
const fewRows = 8;
const fewShadowRows = 4;

// The part of the limit that a key will have used a tenth of the window from now, at the pace of the last tenth.
function rise(item) {
  const rate = shortest(item);
  const latest = (rate.history || []).slice(-6).reduce((sum, amount) => sum + amount, 0);
  return (rate.used + latest) / Math.max(1, rate.limit);
}

const isOver = row => row.refusal?.lastMinute > 0 || share(fullest(row.item)) >= 1;

function stateOf(row) {
  if (row.item.blockedUntil) return ["bad", "blocked " + remaining(row.item.blockedUntil)];
  if (isOver(row)) return isShadow(row.item) ? ["warn", "over"] : ["bad", "over"];
  if (row.item.raisedUntil) return ["warn", "raised " + remaining(row.item.raisedUntil)];
  if (share(fullest(row.item)) >= 0.8) return ["warn", "near"];
  if (rise(row.item) >= 1) return ["warn", "rises fast"];
  return ["", row.item.exempt ? "exempt" : ""];
}

// The most urgent first: what is refused now, then what is blocked, then what will be full first.
function urgency(row) {
  const refused = row.refusal?.lastMinute || 0;
  if (refused) return 1e6 + refused;
  if (row.item.blockedUntil) return 1e5;
  return Math.max(share(fullest(row.item)), rise(row.item));
}

function rowsOf(overview) {
  const items = new Map(overview.standings.map(item => [nameOf(item), item]));
  // What an administrator has just changed stays in its place, with the way back.
  for (const [name, entry] of feedback) {
    if (!items.has(name) && entry.standing.rates.length) items.set(name, entry.standing);
  }
  const refusals = new Map(overview.refusals.map(one => [nameOf(one.newest) + one.newest.mode, one]));
  const all = [...items.values()].filter(item => item.rates.length).map(item => {
    const refusal = refusals.get(nameOf(item) + item.mode);
    return { item, refusal };
  });
  return all
    .filter(row => urgency(row) > 0 || feedback.has(nameOf(row.item)))
    .sort((one, other) => urgency(other) - urgency(one) || (nameOf(one.item) < nameOf(other.item) ? -1 : 1));
}

const keyButton = key => makeButton(key, undefined, () => openKey(key), "link");

function fillRow(tr, row) {
  const { item, refusal } = row;
  if (!tr.firstChild) {
    for (let cell = 0; cell < 6; cell++) tr.append(make("td"));
    tr.cells[3].className = "number";
    tr.cells[5].append(make("span", undefined, { class: "buttons" }), make("div"));
  }
  const [kind, word] = stateOf(row);
  tr.className = kind;
  showNode(tr.cells[0], [`${item.key} ${kind} ${word}`, () => {
    const cell = make("div");
    cell.append(keyButton(item.key), make("span", item.limit + (isShadow(item) ? ", shadow" : ""), { class: "soft" }));
    if (word) cell.append(" ", make("strong", word, { class: "chip " + kind }));
    return cell;
  }]);
  showNode(tr.cells[1], useCell(fullest(item), Boolean(item.blockedUntil)));
  showNode(tr.cells[2], courseCell(shortest(item)));
  show(tr.cells[3], refusal ? count(refusal.lastMinute) : "0");
  const client = refusal ? refusal.clients[0] : "";
  showNode(tr.cells[4], [client, () => clientCell(client)]);
  showButtons(tr.cells[5].firstChild, item);
  showFeedback(tr.cells[5].lastChild, item);
}

// A name and its address, `host[192.0.2.1]`, may be on two lines.
function clientCell(client) {
  const cell = make("span");
  const at = client.lastIndexOf("[");
  cell.append(...(at > 0 ? [client.slice(0, at), make("wbr"), client.slice(at)] : [client]));
  return cell;
}

// A button keeps the focus while its row is drawn anew, and acts on the row's latest item.
function showButtons(place, item) {
  place.item = item;
  const button = (text, action) =>
    makeButton(text, `${text} ${item.key}, ${item.limit}`, () => action(place.item));
  const name = item.blockedUntil ? "Unblock" : "Block";
  if (!place.firstChild) {
    place.append(
      button(name, () => (place.item.blockedUntil ? actions.unblock : actions.block)(place.item)),
      button("Raise", actions.raise), button("Show", one => openKey(one.key)));
  }
  const first = place.firstChild;
  if (first.textContent !== name) {
    first.textContent = name;
    first.setAttribute("aria-label", `${name} ${item.key}, ${item.limit}`);
  }
}

function drawNow(overview) {
  const all = rowsOf(overview);
  const enforced = all.filter(row => !isShadow(row.item));
  const shadow = all.filter(row => isShadow(row.item));
  const fill = (id, list, few) =>
    sync(element(id).tBodies[0], "tr", showsAll ? list : list.slice(0, few), row => nameOf(row.item), fillRow);
  fill("now", enforced, fewRows);
  fill("now-shadow", shadow, fewShadowRows);
  element("now").hidden = !enforced.length;
  element("shadow").hidden = !shadow.length;
  const more = Math.max(0, enforced.length - fewRows) + Math.max(0, shadow.length - fewShadowRows);
  element("more").hidden = !more;
  show(element("more"), showsAll ? "Show fewer" : `Show ${more} more`);
  show(element("now-text"), nowText(overview, enforced, shadow));
}

function nowText(overview, enforced, shadow) {
  if (!overview.limitCount) return "No limits are configured. Add some to weir.yaml: docs/limits.md has examples.";
  if (!overview.requests) return "No request has come yet. See Messages, below, for what main.cf needs.";
  const over = enforced.filter(isOver).length;
  const blocked = enforced.filter(row => row.item.blockedUntil).length;
  const shadowed = shadow.filter(isOver).length;
  const parts = [
    over && `${counted(over, "key")} over`,
    blocked && `${blocked} blocked`,
    shadowed && `${shadowed} over shadow limits`,
  ].filter(Boolean);
  return parts.join(", ") || "Nobody is over a limit.";
}

// Refusals

// When such a request passes.
function outlookOf(refusal) {
  if (refusal.reason === "too large") return "never fits";
  if (refusal.reason === "no engine") return "more than this host's share";
  if (refusal.reason !== "blocked") return `room in ${duration(refusal.retry)}`;
  return refusal.retry > endless ? "block has no end" : `block ends in ${duration(refusal.retry)}`;
}

function why(one) {
  const refusal = one.newest;
  return `${refusal.reason}: ${refusal.usage}, ${outlookOf(refusal)}`;
}

const messageOf = refusal =>
  [
    refusal.queueID,
    refusal.client,
    refusal.login && "login " + refusal.login,
    refusal.sender && "from " + refusal.sender,
    refusal.recipient && "to " + refusal.recipient,
    refusal.host && "on " + refusal.host,
  ].filter(Boolean).join(", ");

const twoLines = (first, second) => {
  const cell = make("div", undefined, { class: "two" });
  cell.append(first, make("span", second, { class: "soft" }));
  return cell;
};

const keyCell = (key, limit) => [`${key} ${limit}`, () => twoLines(keyButton(key), limit)];

const timesCell = one => {
  const [last, first] = [time(one.newest.time), time(one.first)];
  return [`${last} ${first}`, () => twoLines(make("span", last), "first " + first)];
};

function drawRefusals(refusals) {
  const fill = (id, groups) =>
    rows(id, groups, one => nameOf(one.newest), one => [
      keyCell(one.newest.key, one.newest.limit),
      one.count,
      timesCell(one),
      one.newest.action,
      why(one),
      messageOf(one.newest),
    ]);
  const enforced = refusals.filter(one => !isShadow(one.newest));
  const shadow = refusals.filter(one => isShadow(one.newest));
  fill("refusals", enforced);
  fill("shadow-refusals", shadow);
  element("shadow-part").hidden = !shadow.length;
  show(element("no-refusals"), enforced.length ? "" : "Nothing was refused since the service started.");
}

element("more").addEventListener("click", () => {
  showsAll = !showsAll;
  afterAction();
});
