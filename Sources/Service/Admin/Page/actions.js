"use strict";

// What an administrator can do to a key, and the way back.

const day = 86400;

const durations = {
  "1 hour": 3600,
  "12 hours": 43200,
  "1 day": day,
  "2 days": 2 * day,
  "1 week": 7 * day,
  "30 days": 30 * day,
  "no end": "",
};

// What the last action on a limit and key has said, for a minute; and the standing that it has left.
const feedback = new Map();
const feedbackSeconds = 60;

// Called after each action, to draw the page anew.
let afterAction = async () => {};

const nameOf = item => item.limit + "\n" + item.key;

const ratesInForce = (item, factor = 1) =>
  item.rates.map(rate => rate.limit * factor + "/" + rate.window).join(" ");

// The interventions that bring a key back to where it stands now; none if there is no way back.
function undoing(intervention, item) {
  const back = { key: item.key, limit: item.limit, reason: "undo " + intervention.action };
  const seconds = until => Math.max(1, Math.round(until - serverTime.now()));
  const block = item.blockedUntil && { ...back, action: "block", duration: seconds(item.blockedUntil) };
  switch (intervention.action) {
    case "block": return block || { ...back, action: "unblock" };
    case "unblock": return block;
    case "raise":
      return item.raisedUntil
        ? { ...back, action: "raise", rates: ratesInForce(item).split(" "), duration: seconds(item.raisedUntil) }
        : { ...back, action: "unraise" };
    default: return undefined;
  }
}

function describe(intervention) {
  const lasting = intervention.duration ? " for " + duration(intervention.duration) : " until you undo it";
  return {
    block: "Blocked" + lasting,
    raise: `Raised to ${(intervention.rates || []).join(", ")}${lasting}`,
    unraise: "Raise ended",
    unblock: "Unblocked",
    reset: "Counts set to 0",
  }[intervention.action];
}

// Carries out an intervention, and keeps what came of it to show beside the key.
async function intervene(intervention, item, isUndo = false) {
  const entry = { at: Date.now() / 1000, text: "", isError: false, standing: item };
  try {
    const standings = await ask("/limits/key", { method: "POST", body: JSON.stringify(intervention) });
    const standing = standings.find(one => one.limit === item.limit);
    entry.text = (isUndo ? "Undone" : describe(intervention)) + (standing && standing.note ? "; " + standing.note : "");
    if (standing) entry.standing = standing;
    if (!isUndo) entry.undo = undoing(intervention, item);
  } catch (error) {
    entry.text = `Not done: ${error.message}`;
    entry.isError = true;
  }
  feedback.set(nameOf(item), entry);
  say(`${item.key}: ${entry.text}`);
  await afterAction();
}

function forgetOldFeedback() {
  for (const [name, entry] of feedback) {
    if (Date.now() / 1000 - entry.at > feedbackSeconds) feedback.delete(name);
  }
}

// What the last action has said, and the way back.
function showFeedback(place, item) {
  const entry = feedback.get(nameOf(item));
  showNode(place, [entry ? entry.text + entry.at : "", () => {
    const line = make("span", undefined, { class: entry && entry.isError ? "bad said" : "said" });
    if (!entry) return line;
    line.append(make("span", entry.text + " "));
    if (entry.undo) {
      line.append(makeButton("Undo", `Undo: ${item.key}, ${item.limit}`, () => intervene(entry.undo, item, true)));
    }
    return line;
  }]);
}

// The dialogue for what needs an answer first.

let onAnswer = null;

function askFor(title, text, { rates, lasting }, answer) {
  const dialogue = element("ask");
  const form = dialogue.querySelector("form");
  element("ask-title").textContent = plain(title);
  element("ask-text").textContent = plain(text);
  element("ask-rates").hidden = rates === undefined;
  element("ask-duration").hidden = lasting === undefined;
  form.elements.rates.value = rates || "";
  form.elements.duration.value = lasting === undefined ? "" : lasting;
  form.elements.reason.value = "";
  element("ask-do").textContent = title.split(" ")[0];
  onAnswer = answer;
  dialogue.showModal();
  (rates === undefined ? element("ask-do") : form.elements.rates).focus();
}

for (const [name, value] of Object.entries(durations)) {
  element("ask").querySelector("select").append(make("option", name, { value }));
}
element("ask-cancel").addEventListener("click", () => element("ask").close());
element("ask").querySelector("form").addEventListener("submit", event => {
  event.preventDefault();
  const fields = event.target.elements;
  element("ask").close();
  onAnswer({
    rates: fields.rates.value.trim().split(/[\s,]+/).filter(Boolean),
    duration: Number(fields.duration.value) || undefined,
    reason: fields.reason.value.trim() || undefined,
  });
});

const named = (item, action) => ({ action, key: item.key, limit: item.limit });

const actions = {
  block: item => intervene({ ...named(item, "block"), duration: day }, item),
  blockFor: item =>
    askFor(`Block ${item.key}`, `Limit ${item.limit}. Its mail is refused until the block ends.`, { lasting: day },
      ({ duration, reason }) => intervene({ ...named(item, "block"), duration, reason }, item)),
  unblock: item => intervene(named(item, "unblock"), item),
  raise: item =>
    askFor(`Raise ${item.key}`, `Limit ${item.limit}. In force now: ${ratesInForce(item) || "the configured rates"}.`,
      { rates: ratesInForce(item, 2), lasting: day },
      ({ rates, duration, reason }) => intervene({ ...named(item, "raise"), rates, duration, reason }, item)),
  reset: item =>
    askFor(`Reset ${item.key}`, `Sets all counts of ${item.limit} to 0 and ends a block. There is no way back.`, {},
      ({ reason }) => intervene({ ...named(item, "reset"), reason }, item)),
};
