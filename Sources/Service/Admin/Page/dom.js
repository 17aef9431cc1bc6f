"use strict";

// Drawing and requests, without knowledge of what the page shows.

const element = id => document.getElementById(id);

// Escapes invisible characters and those that change the text direction: one key must not look like another.
const plain = text =>
  String(text).replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu,
    character => `\\u{${character.codePointAt(0).toString(16)}}`);

// Security: what a peer has sent becomes text, never markup.
function make(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = plain(text);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function makeSVG(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Replaces the content of an element if it has changed, unless text in it is selected.
function show(place, content, signature = String(content)) {
  if (place.shown === signature) return;
  const selection = getSelection();
  if (!selection.isCollapsed && selection.containsNode(place, true)) return;
  place.shown = signature;
  place.replaceChildren(typeof content === "string" ? plain(content) : content);
}

// Makes the children of `parent` match `items`. Unchanged children stay in place and keep the focus.
function sync(parent, tag, items, keyOf, fill) {
  const known = new Map([...parent.children].map(child => [child.itemKey, child]));
  const seen = new Map();
  const wanted = items.map(item => {
    const base = keyOf(item);
    const count = seen.get(base) || 0;
    seen.set(base, count + 1);
    const key = count ? base + "\n" + count : base;
    const child = known.get(key) || make(tag);
    known.delete(key);
    child.itemKey = key;
    fill(child, item);
    return child;
  });
  for (const child of known.values()) child.remove();
  const focused = document.activeElement;
  let place = parent.firstElementChild;
  for (const child of wanted) {
    if (child === place) {
      place = place.nextElementSibling;
    } else {
      parent.insertBefore(child, place);
    }
  }
  if (focused !== document.activeElement && parent.contains(focused)) focused.focus();
}

// Fills a table. A cell is a text, a number, or [signature, function that makes its node].
function rows(id, items, keyOf, cells) {
  sync(element(id).tBodies[0], "tr", items, keyOf, (row, item) =>
    cells(item).forEach((cell, index) => {
      const td = row.cells[index] || row.appendChild(make("td"));
      if (Array.isArray(cell)) {
        showNode(td, cell);
        return;
      }
      td.className = typeof cell === "number" ? "number" : "";
      show(td, String(cell));
    }));
}

function showNode(place, [signature, makeNode]) {
  if (place.shown !== signature) show(place, makeNode(), signature);
}

// Fills a list of names and values.
function figures(id, values) {
  sync(element(id), "div", Object.entries(values), ([name]) => name, (part, [name, value]) => {
    if (!part.firstChild) part.append(make("dt", name), make("dd"));
    show(part.lastChild, String(value));
  });
}

const clock = seconds => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
const date = seconds => new Date(seconds * 1000).toLocaleString([], { hour12: false });

function duration(microseconds) {
  if (microseconds === undefined) return "none";
  return microseconds < 1000 ? microseconds + " µs" : microseconds / 1000 + " ms";
}

const size = bytes => (bytes < 1e6 ? Math.ceil(bytes / 1e3) + " kB" : (bytes / 1e6).toFixed(1) + " MB");

// The seconds of a window such as `15m`.
const secondsOf = window => parseInt(window) * { s: 1, m: 60, h: 3600, d: 86400, w: 604800 }[window.slice(-1)];

let token = sessionStorage.getItem("token");

// Sends a request with the token and returns the JSON of the response.
// Throws an error to show; `isSilence` is set if there was no response.
async function ask(path, options = {}) {
  const headers = {};
  if (options.body) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = "Bearer " + token;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw Object.assign(new Error("no response"), { isSilence: true });
  }
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) element("token").hidden = false;
  if (!response.ok) throw new Error(body.error || "unexpected HTTP status " + response.status);
  return body;
}

function useToken(text) {
  token = text;
  sessionStorage.setItem("token", token);
}

const say = text => {
  element("said").textContent = text;
};

// Shows the error if the body throws one.
async function attempt(body) {
  try {
    await body();
  } catch (error) {
    say(error.message);
  }
}
