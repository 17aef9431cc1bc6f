// SPDX-License-Identifier: Apache-2.0
internal import Hummingbird
internal import Limits

/// The page of the admin listener: three files, nothing from elsewhere. It knows nothing by itself, and shows what
/// `/snapshot`, `/limits` and their like tell; on loopback these want the token, which the page asks for.
enum AdminPage {
    struct File: Sendable {
        let path: String
        let type: String
        let content: String
    }

    static let files = [
        File(path: "/", type: "text/html; charset=utf-8", content: html),
        File(path: "/page.css", type: "text/css; charset=utf-8", content: css),
        File(path: "/page.js", type: "text/javascript; charset=utf-8", content: script),
    ]

    static func headers(type: String) -> HTTPFields {
        [
            .contentType: type, .cacheControl: "no-store",
            .contentSecurityPolicy:
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            .xContentTypeOptions: "nosniff", .init("Referrer-Policy")!: "no-referrer",
        ]
    }

    private static let html = #"""
        <!doctype html>
        <html lang="en">
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Weir</title>
        <link rel="stylesheet" href="/page.css">
        <script src="/page.js" defer></script>
        <header>
          <h1>Weir</h1>
          <p id="state" role="status">connecting</p>
          <p id="said" role="status"></p>
        </header>
        <main>
          <section id="token" hidden aria-labelledby="token-title">
            <h2 id="token-title">Token</h2>
            <p>The admin listener is on loopback, where anybody of this machine may knock. The token is in the file <code>admin-token</code>
              beside the ledger.</p>
            <form><label>Token <input name="token" type="password" autocomplete="off" required></label> <button>Use it</button></form>
          </section>
          <section aria-labelledby="rate-title">
            <h2 id="rate-title">Policy requests, last ten minutes</h2>
            <svg id="rate" viewBox="0 0 599 120" preserveAspectRatio="none" role="img" aria-labelledby="rate-text"></svg>
            <p id="rate-text"></p>
            <ul id="legend" aria-label="Answers by action"></ul>
            <dl id="figures"></dl>
          </section>
          <section aria-labelledby="search-title">
            <h2 id="search-title">A user, client or domain</h2>
            <form id="search"><label>Key, or a part of it <input name="text" maxlength="256" autocomplete="off" required></label> <button>Search</button></form>
            <div id="found"></div>
            <div id="key"></div>
          </section>
          <section aria-labelledby="top-title">
            <h2 id="top-title">Nearest to their limits</h2>
            <p><label>Limit <select id="limit"><option value="">all</option></select></label></p>
            <div class="wide" tabindex="0" role="group" aria-labelledby="top-title"><table id="top" aria-labelledby="top-title"><thead><tr><th scope="col">Key<th scope="col">Used<th scope="col">Window<th scope="col">Course<th scope="col">Limit<th scope="col">Refused tries</tr></thead><tbody></tbody></table></div>
          </section>
          <section aria-labelledby="limits-title">
            <h2 id="limits-title">Limits</h2>
            <div class="wide" tabindex="0" role="group" aria-labelledby="limits-title"><table id="limits" aria-labelledby="limits-title"><thead><tr><th scope="col">Limit<th scope="col">Counts<th scope="col">Rates<th scope="col">Keys<th scope="col">Refusals</tr></thead><tbody></tbody></table></div>
          </section>
          <section class="broad" aria-labelledby="refusals-title">
            <h2 id="refusals-title">Refusals, newest first</h2>
            <div class="wide" tabindex="0" role="group" aria-labelledby="refusals-title"><table id="refusals" aria-labelledby="refusals-title"><thead><tr><th scope="col">Time<th scope="col">Limit<th scope="col">Key<th scope="col">Why<th scope="col">Room in<th scope="col">Answer<th scope="col">Message</tr></thead><tbody></tbody></table></div>
          </section>
          <section aria-labelledby="ledger-title">
            <h2 id="ledger-title">Ledger</h2>
            <dl id="ledger"></dl>
          </section>
          <section aria-labelledby="ways-title">
            <h2 id="ways-title">Messages</h2>
            <div class="wide" tabindex="0" role="group" aria-labelledby="ways-title"><table id="ways" aria-labelledby="ways-title"><thead><tr><th scope="col">Way in<th scope="col">Passed<th scope="col">Edited<th scope="col">Held<th scope="col">Refused<th scope="col">Deferred<th scope="col">Discarded<th scope="col">Connections</tr></thead><tbody></tbody></table></div>
          </section>
          <section aria-labelledby="hops-title">
            <h2 id="hops-title">Next hops</h2>
            <div class="wide" tabindex="0" role="group" aria-labelledby="hops-title"><table id="hops" aria-labelledby="hops-title"><thead><tr><th scope="col">Address<th scope="col">State<th scope="col">Busy<th scope="col">Idle<th scope="col">Failures</tr></thead><tbody></tbody></table></div>
          </section>
          <section aria-labelledby="rules-title">
            <h2 id="rules-title">Rules by hits</h2>
            <div class="wide" tabindex="0" role="group" aria-labelledby="rules-title"><table id="rules" aria-labelledby="rules-title"><thead><tr><th scope="col">Checks<th scope="col">Rule<th scope="col">Hits<th scope="col">Last hit<th scope="col">Given up<th scope="col">Time</tr></thead><tbody></tbody></table></div>
            <details id="unused"><summary>Rules without a hit</summary><div class="wide" tabindex="0" role="group" aria-label="Rules without a hit"><ul></ul></div></details>
          </section>
          <section aria-labelledby="audit-title">
            <h2 id="audit-title">Changes by hand</h2>
            <div class="wide" tabindex="0" role="group" aria-labelledby="audit-title"><ul id="audit"></ul></div>
          </section>
        </main>
        <footer id="about"></footer>
        </html>

        """#

    private static let css = #"""
        :root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --ground: #f6f8fa; --card: #fff; --line: #d5dce4; --edge: #7b8794; --good: #1a7f5a; --warn: #a85b00; --bad: #b3261e; --bar: #2b78b0 }
        @media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9aa7b5; --ground: #12171d; --card: #1a2129; --line: #323c47; --edge: #76828f; --good: #5fd1a3; --warn: #ffb454; --bad: #ff8a80; --bar: #58a6d8 } }
        * { box-sizing: border-box }
        body { margin: 0; font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground) }
        header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem; padding: .5rem 1rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
        header p { margin: .2rem 0 } h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.05rem; margin: 0 0 .5rem } h3, h4 { font-size: 1rem; margin: .8rem 0 .3rem; overflow-wrap: anywhere }
        main { display: grid; gap: 1rem; padding: 1rem; align-items: start; grid-auto-flow: dense; grid-template-columns: repeat(auto-fit, minmax(min(100%, 40rem), 1fr)) }
        section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; min-width: 0 }
        @media (min-width: 84rem) { .broad { grid-column: span 2 } }
        main.stale { filter: grayscale(1); opacity: .6 }
        .wide { overflow: auto; max-height: 30rem } table { border-collapse: collapse; width: 100%; min-width: 34rem; font-size: .9rem } #refusals { min-width: 56rem }
        th, td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top } thead th { position: sticky; top: 0; background: var(--card) }
        td.number { text-align: right; font-variant-numeric: tabular-nums } td button, li button { border: 0; background: none; color: inherit; text-decoration: underline; padding: 0; font: inherit; text-align: left; cursor: pointer } td button { min-width: 7rem }
        #rate { display: block; width: 100%; height: 8rem; background: var(--ground) } svg.course { width: 100%; min-width: 6rem; height: 2rem; background: var(--ground) } svg.meter { width: 6rem; height: .8rem; border: 1px solid var(--edge); border-radius: .2rem; vertical-align: middle }
        .level, .passed { fill: var(--bar) } .warn .level, .warns { fill: var(--warn) } .bad .level, .answered { fill: var(--bad) }
        .course, .meter, #rate { forced-color-adjust: none }
        dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 9rem), 1fr)); gap: .5rem; margin: 0 } dt { color: var(--soft); font-size: .85rem } dd { margin: 0; font-size: 1.1rem; font-variant-numeric: tabular-nums }
        .good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) } .soft, footer, #rate-text { color: var(--soft); font-size: .85rem } footer { padding: 0 1rem 1rem; overflow-wrap: anywhere }
        ul { margin: .3rem 0; padding-left: 1.2rem } #legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem } #legend svg { width: .8rem; height: .8rem; margin-right: .3rem }
        input, select, form button, .acts button { font: inherit; padding: .3rem .6rem; max-width: 100% } .acts { display: flex; flex-wrap: wrap; gap: .5rem; align-items: end; border: 1px solid var(--line); border-radius: .3rem; margin: .5rem 0 } .acts label, #search label { font-size: .85rem; color: var(--soft) } .acts input, .acts select { display: block }
        :focus-visible { outline: 3px solid var(--good); outline-offset: 2px } td button, li button, code, dd, li { overflow-wrap: anywhere } td { overflow-wrap: break-word } summary { cursor: pointer; margin: .5rem 0 }

        """#

    private static let script = #"""
        "use strict";
        const element = id => document.getElementById(id);
        let token = sessionStorage.getItem("token");
        // The key whose standings are open, and the limits in which it is one.
        let opened = null;
        let limits = [];
        let lastAnswer = null;

        // Characters that nobody sees, or that turn text about, would make one key look like another.
        const plain = text => String(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, character => `\\u{${character.codePointAt(0).toString(16)}}`);

        // Everything that a peer has sent goes in as text, never as markup.
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

        async function ask(path, options = {}) {
          const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...(token ? { Authorization: "Bearer " + token } : {}) };
          let reply;
          try { reply = await fetch(path, { ...options, headers, cache: "no-store" }); }
          catch { throw Object.assign(new Error("no answer"), { isSilence: true }); }
          const body = await reply.json().catch(() => ({}));
          if (reply.status === 401) element("token").hidden = false;
          if (!reply.ok) throw new Error(body.error || "the service answered " + reply.status);
          return body;
        }

        const say = text => { element("said").textContent = text; };
        const clock = seconds => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
        const date = seconds => new Date(seconds * 1000).toLocaleString([], { hour12: false });
        const took = microseconds => microseconds === undefined ? "none" : microseconds < 1000 ? microseconds + " µs" : microseconds / 1000 + " ms";
        const size = bytes => bytes < 1e6 ? Math.ceil(bytes / 1e3) + " kB" : (bytes / 1e6).toFixed(1) + " MB";

        // Replaces what has changed, and nothing that somebody has selected text in.
        function show(place, content, signature = String(content)) {
          if (place.shown === signature) return;
          const selection = getSelection();
          if (!selection.isCollapsed && selection.containsNode(place, true)) return;
          place.shown = signature;
          place.replaceChildren(typeof content === "string" ? plain(content) : content);
        }

        // Brings the children of `parent` to one for each item; those that stay the same stay in place, with their focus.
        function sync(parent, tag, items, keyOf, fill) {
          const known = new Map([...parent.children].map(child => [child.itemKey, child]));
          const seen = new Map();
          const wanted = items.map(item => {
            const base = keyOf(item), count = seen.get(base) || 0;
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
            if (child === place) place = place.nextElementSibling; else parent.insertBefore(child, place);
          }
          if (focused !== document.activeElement && parent.contains(focused)) focused.focus();
        }

        // A cell is text, a number, or [signature, function that makes its node].
        function rows(id, items, keyOf, cells) {
          sync(element(id).tBodies[0], "tr", items, keyOf, (row, item) => cells(item).forEach((cell, index) => {
            const td = row.cells[index] || row.appendChild(make("td"));
            if (Array.isArray(cell)) { if (td.shown !== cell[0]) show(td, cell[1](), cell[0]); return; }
            td.className = typeof cell === "number" ? "number" : "";
            show(td, String(cell));
          }));
        }

        function figures(id, values) {
          sync(element(id), "div", Object.entries(values), ([name]) => name, (part, [name, value]) => {
            if (!part.firstChild) part.append(make("dt", name), make("dd"));
            show(part.lastChild, String(value));
          });
        }

        const keyCell = key => ["key " + key, () => {
          const button = make("button", key, { type: "button" });
          button.addEventListener("click", () => open(key));
          return button;
        }];

        const share = rate => rate.used / Math.max(1, rate.limit);
        const fullest = item => item.rates.reduce((one, other) => share(other) > share(one) ? other : one);

        function meterCell(rate, isBlocked) {
          const part = share(rate), percent = Math.floor(part * 100);
          const word = isBlocked ? "blocked" : part >= 1 ? "full" : part >= .8 ? percent + " %, near" : percent + " %";
          const text = `${rate.used}/${rate.limit}, ${word}`;
          return [text, () => {
            const span = make("span", undefined, { class: isBlocked || part >= 1 ? "bad" : part >= .8 ? "warn" : "" });
            span.append(makeSVG("svg", { class: "meter", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
              makeSVG("rect", { class: "level", width: Math.min(100, part * 100), height: 10 })), " " + text);
            return span;
          }];
        }

        function courseCell(rate) {
          const history = rate.history || [], top = Math.max(1, ...history);
          return ["course " + history.join(), () => makeSVG("svg",
            { class: "course", viewBox: `0 0 ${history.length || 1} 10`, preserveAspectRatio: "none", role: "img",
              "aria-label": `use over the last ${rate.window}, at most ${Math.max(0, ...history)} in a sixtieth of it` },
            ...history.flatMap((amount, index) => amount ? [makeSVG("rect", { class: "passed", x: index, width: .9, y: 10 - amount / top * 10, height: amount / top * 10 })] : []))];
        }

        const longest = item => item.rates.reduce((one, other) => (other.history || []).length && seconds(other.window) > seconds(one.window) ? other : one);
        const seconds = window => parseInt(window) * { s: 1, m: 60, h: 3600, d: 86400, w: 604800 }[window.slice(-1)];

        const colours = { DUNNO: "passed", DEFER: "warns", REJECT: "answered" };
        const colourOf = action => colours[action] || "answered";

        function drawRate(answers) {
          const length = answers[0].perSecond.length, sums = answers[0].perSecond.map((_, second) => answers.reduce((sum, one) => sum + one.perSecond[second], 0));
          const top = Math.max(1, ...sums);
          element("rate").replaceChildren(...sums.flatMap((sum, second) => {
            if (!sum) return [];
            let base = 120;
            return answers.flatMap(one => {
              const height = one.perSecond[second] / top * 120;
              base -= height;
              return height ? [makeSVG("rect", { class: colourOf(one.action), x: second, width: 1, y: base, height })] : [];
            });
          }));
          show(element("rate-text"), `${sums[length - 1]} in the last second; at most ${Math.max(0, ...sums)} in one second.`);
          sync(element("legend"), "li", answers, one => one.action, (item, one) => {
            const text = ` ${one.action}: ${one.perSecond[length - 1]} per second, ${one.total} since the start`;
            if (item.shown !== text) {
              const content = make("span");
              content.append(makeSVG("svg", { viewBox: "0 0 1 1", "aria-hidden": "true" }, makeSVG("rect", { class: colourOf(one.action), width: 1, height: 1 })), text);
              show(item, content, text);
            }
          });
        }

        function draw(snapshot) {
          const status = snapshot.status, ledger = status.ledger;
          limits = status.limits;
          drawRate(snapshot.answers);
          figures("figures", { "half within, last minute": took(snapshot.medianAnswer), "99 % within, last minute": took(snapshot.slowAnswer),
            "policy connections": status.connections, "faulty requests": status.faults.malformed + status.faults.tooSlow + status.faults.droppedMidRequest,
            "connections refused": status.faults.refusedConnections });
          const state = element("state");
          const troubles = [...(status.trouble ? ["the ledger can't be kept: " + status.trouble] : []),
            ...snapshot.ways.filter(way => way.values.nextHop && way.values.nextHop.trouble).map(way => `no next hop for ${way.name}: ${way.values.nextHop.trouble.cause}`)];
          show(state, troubles.join("; ") || "the ledger is kept");
          state.className = troubles.length ? "bad" : "good";
          figures("ledger", { "state": status.trouble ? "can't be kept: " + status.trouble : "kept", "keys": `${status.keys} of ${ledger.mostKeys} at most`,
            "keys given up": ledger.evictedKeys, "journal": size(ledger.journalBytes), "last checkpoint": ledger.lastCheckpoint ? date(ledger.lastCheckpoint) : "none",
            "it took": ledger.checkpointSeconds === undefined ? "not known yet" : ledger.checkpointSeconds + " s", "store": ledger.path, "durability": ledger.durability });
          rows("limits", limits, item => item.name, item => [item.name + (item.mode === "shadow" ? " (shadow)" : ""), `${item.count} by ${item.attributes}`, item.rates.join(", "), item.keys, item.refusals]);
          sync(element("limit"), "option", ["", ...limits.map(limit => limit.name)], name => name, (option, name) => { option.value = name; show(option, name || "all"); });
          rows("refusals", snapshot.refusals, item => JSON.stringify(item), item => [clock(item.time), item.limit + (item.mode === "shadow" ? " (shadow)" : ""), keyCell(item.key),
            `${item.reason}: ${item.usage}`, item.retry + " s", item.action, [item.queueID, item.client, item.login && "login " + item.login, item.sender && "from " + item.sender, item.recipient && "to " + item.recipient].filter(Boolean).join(", ")]);
          rows("ways", snapshot.ways, item => item.name, item => { const m = item.values.messages; return [item.name, m.passed, m.edited, m.held, m.refused, m.deferred, m.discarded, item.values.connections]; });
          rows("hops", snapshot.ways.filter(item => item.values.nextHop), item => item.name, item => {
            const hop = item.values.nextHop, trouble = hop.trouble && `not to be had since ${date(hop.trouble.since)}: ${hop.trouble.cause}`;
            return [hop.address, [trouble || "no fault", () => make("span", trouble || "no fault", { class: trouble ? "bad" : "" })], hop.connections - hop.idle, hop.idle, hop.failures];
          });
          rows("rules", snapshot.rules.slice(0, 100), item => item.checks + " " + item.location, item => [item.checks, item.location, item.hits, item.lastHit ? date(item.lastHit) : "", item.limitsReached, item.milliseconds.toFixed(1) + " ms"]);
          show(element("unused").firstElementChild, `${snapshot.rulesWithoutHits} rules have decided nothing since they were loaded`);
          sync(element("audit"), "li", snapshot.audit, entry => JSON.stringify(entry), (item, entry) => show(item, `${date(entry.time)} ${entry.user}: ${entry.action} ${entry.key}`
            + (entry.details && ` (${entry.details})`) + (entry.limits.length ? ": done for " + entry.limits.join(", ") : ": no limit knows this key") + (entry.reason && ": " + entry.reason)));
          show(element("about"), `Weir ${snapshot.version}: ${snapshot.configuration}`);
        }

        function drawTop(standings) {
          rows("top", standings, item => item.limit + "|" + item.key, item => {
            const rate = fullest(item);
            return [keyCell(item.key), meterCell(rate, item.blockedUntil), rate.window, courseCell(longest(item)), item.limit + (item.mode === "shadow" ? " (shadow)" : ""), item.refusedTries];
          });
        }

        // More would slow the page down, and nobody reads them.
        const mostUnused = 1000;

        async function drawUnused() {
          if (!element("unused").open) return;
          const unused = await ask("/rules/unused?age=10");
          const more = unused.length > mostUnused ? [`and ${unused.length - mostUnused} more`] : [];
          sync(element("unused").querySelector("ul"), "li", [...unused.slice(0, mostUnused).map(rule => `${rule.checks} ${rule.location}`), ...more], text => text, show);
        }

        // Lists the keys in which the text stands, and opens the one that it means where it means one.
        async function search(text) {
          const place = element("found");
          const result = await ask("/search?text=" + encodeURIComponent(text));
          const found = [...new Set(result.found.map(item => item.key))];
          place.replaceChildren(make("p", found.length ? `${found.length === 1 ? "1 key has" : found.length + " keys have"} ${text} in ${found.length === 1 ? "it" : "them"}${result.isCut ? ", and there are more" : ""}:` : `No key has ${text} in it.`));
          const list = make("ul");
          for (const key of found) { const item = make("li"); item.append(keyCell(key)[1]()); list.append(item); }
          place.append(list);
          say(place.firstChild.textContent);
          if (found.length === 1 && !result.meant.some(item => item.isKnown)) await open(found[0]);
          else if (result.meant.length) await open(text);
          else close();
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
          const meant = await meanings(now);
          if (now !== opened) return;
          const items = meant.map(item => standings.find(one => one.limit === item.limit) || { ...item, rates: [] });
          sync(element("key").lastElementChild, "div", items, item => item.limit, drawStanding);
        }

        // In which limits it is a key, known or not.
        async function meanings(now) {
          if (!now.meant) now.meant = await ask("/limits/meant?key=" + encodeURIComponent(now.key));
          return now.meant;
        }

        function drawStanding(panel, item) {
          if (!panel.firstChild) panel.append(make("h4"), make("p"), make("div"), acts(item));
          const [title, text, list] = panel.children;
          const name = `${item.limit}: ${item.key}`;
          show(title, name + (item.mode === "shadow" ? ", shadow" : ""));
          const overridden = item.rates.filter(rate => !item.raisedUntil && rate.rate.split("/")[0] !== String(rate.limit)).map(rate => `${rate.limit} per ${rate.window} in place of ${rate.rate}`);
          show(text, [item.rates.length ? "" : "nothing has been counted for it lately", item.exempt && "exempt by a table", overridden.length && "a table says " + overridden.join(", "),
            item.blockedUntil && "blocked until " + date(item.blockedUntil), item.raisedUntil && "raised until " + date(item.raisedUntil),
            item.refusedTries && item.refusedTries + " refused tries"].filter(Boolean).join("; "));
          text.className = item.blockedUntil ? "bad" : "";
          sync(list, "div", item.rates, rate => rate.window, (part, rate) => {
            if (!part.firstChild) part.append(make("span"), make("span"), make("div"));
            const meter = meterCell(rate, item.blockedUntil), course = courseCell(rate);
            if (part.children[0].shown !== meter[0]) show(part.children[0], meter[1](), meter[0]);
            show(part.children[1], ` ${item.count} per ${rate.window}` + (rate.freesAt ? ", room at " + clock(rate.freesAt) : ""));
            if (part.children[2].shown !== course[0]) show(part.children[2], course[1](), course[0]);
          });
        }

        const durations = { "1 hour": 3600, "12 hours": 43200, "1 day": 86400, "2 days": 172800, "1 week": 604800, "30 days": 2592000, "until ended": "" };

        // What a key is held to now: a raise begins with that.
        const inForce = (item, limit) => item.rates.length ? item.rates.map(rate => rate.limit + "/" + rate.window).join(" ") : limit ? limit.rates.join(" ") : "";

        // What can be done to a key; made once, so that what is being typed stays.
        function acts(item) {
          const limit = limits.find(limit => limit.name === item.limit), group = make("fieldset", undefined, { class: "acts" });
          const field = (name, input) => { const label = make("label", name + " "); label.append(input); input.setAttribute("aria-label", `${name}, ${item.limit}`); group.append(label); return input; };
          group.append(make("legend", "Change " + item.limit));
          const rates = field("Rates", make("input", undefined, { value: inForce(item, limit), autocomplete: "off" }));
          const duration = field("For", make("select"));
          for (const [name, value] of Object.entries(durations)) duration.append(make("option", name, { value }));
          duration.value = 86400;
          const reason = field("Reason", make("input", undefined, { maxlength: 200, autocomplete: "off" }));
          const act = (name, more) => {
            const button = make("button", name, { type: "button", "aria-label": `${name} ${item.limit}` });
            button.addEventListener("click", () => intervene({ action: name.toLowerCase(), key: item.key, limit: item.limit, reason: reason.value.trim() || undefined, ...more() }));
            group.append(button);
          };
          const time = () => ({ duration: Number(duration.value) || undefined });
          act("Reset", () => ({}));
          act("Raise", () => ({ rates: rates.value.trim().split(/[\s,]+/), ...time() }));
          act("Block", time);
          act("Unblock", () => ({}));
          return group;
        }

        async function intervene(intervention) {
          await attempt(async () => {
            const standings = await ask("/limits/key", { method: "POST", body: JSON.stringify(intervention) });
            say([`${intervention.action} done for ${standings.map(item => `${item.limit}: ${item.key}`).join(", ")}`, ...standings.flatMap(item => item.note || [])].join("; "));
            await refreshKey();
            draw(await ask("/snapshot"));
          });
        }

        // Says what has failed.
        async function attempt(body) {
          try { await body(); } catch (error) { say(error.message); }
        }

        async function refresh() {
          const state = element("state"), main = document.querySelector("main");
          try {
            const snapshot = await ask("/snapshot?age=1");
            element("token").hidden = true;
            main.className = "";
            lastAnswer = Date.now() / 1000;
            draw(snapshot);
            const limit = element("limit").value;
            drawTop(await ask("/limits?most=20&history=1&age=1" + (limit && "&limit=" + encodeURIComponent(limit))));
            await drawUnused();
            await refreshKey();
          } catch (error) {
            if (error.isSilence && lastAnswer) main.className = "stale";
            show(state, error.isSilence ? (lastAnswer ? `no answer since ${clock(lastAnswer)}, trying again` : "no answer, trying again") : error.message);
            state.className = "bad";
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
          token = new FormData(event.target).get("token").trim();
          sessionStorage.setItem("token", token);
          refresh();
        });
        (async function run() { for (;;) { if (!document.hidden) await refresh(); await new Promise(done => setTimeout(done, 2000)); } })();

        """#
}
