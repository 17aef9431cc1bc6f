"use strict";

// Elements and requests, without knowledge of what the page shows.

const element = id => document.getElementById(id);

// Security: what a peer has sent becomes text, never markup.
function make(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = plain(text);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function makeButton(text, label, action, name = "") {
  const button = make("button", text, { type: "button", "aria-label": label, class: name });
  button.addEventListener("click", action);
  return button;
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

function showNode(place, [signature, makeNode]) {
  if (place.shown !== signature) show(place, makeNode(), signature);
}

// Makes the children of `parent` match `items`. Unchanged children stay in place and keep the focus.
function sync(parent, tag, items, keyOf, fill) {
  const known = new Map([...parent.children].map(child => [child.itemKey, child]));
  const seen = new Map();
  const wanted = items.map(item => {
    const base = keyOf(item);
    const number = seen.get(base) || 0;
    seen.set(base, number + 1);
    const key = number ? base + "\n" + number : base;
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
      show(td, typeof cell === "number" ? count(cell) : cell);
    }));
  element(id).hidden = !items.length;
}

const lines = (id, items, textOf) =>
  sync(element(id), "li", items, textOf, (item, value) => show(item, textOf(value)));

// Fills a list of names and values.
function figures(id, values) {
  sync(element(id), "div", Object.entries(values), ([name]) => name, (part, [name, value]) => {
    if (!part.firstChild) part.append(make("dt", name), make("dd"));
    show(part.lastChild, String(value));
  });
}

// A command to copy.
function showCommand(item, [text, command]) {
  if (item.shown === command) return;
  item.shown = command;
  const code = make("code", command, { tabindex: "0", role: "group", "aria-label": text });
  item.replaceChildren(make("span", text), code);
}

let token = sessionStorage.getItem("token");

// Sends a request with the token and returns the JSON of the response.
// Throws an error to show; `isSilence` is set if there was no response within `timeout` milliseconds.
async function ask(path, { timeout = 10000, ...options } = {}) {
  const headers = {};
  if (options.body) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = "Bearer " + token;
  let response;
  let body;
  try {
    const signal = AbortSignal.timeout(timeout);
    response = await fetch(path, { ...options, headers, signal, cache: "no-store" });
    const text = await response.text();
    try {
      body = JSON.parse(text);
    } catch {
      body = {};
    }
  } catch {
    throw Object.assign(new Error("no response"), { isSilence: true });
  }
  if (response.status === 401) element("token").hidden = false;
  if (!response.ok) throw new Error(body.error || "unexpected HTTP status " + response.status);
  return body;
}

function useToken(text) {
  token = text;
  sessionStorage.setItem("token", token);
}

// For screen readers; what is said also stands where it belongs.
const say = text => {
  element("said").textContent = text;
};
