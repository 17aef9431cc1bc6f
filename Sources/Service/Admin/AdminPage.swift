// SPDX-License-Identifier: Apache-2.0
internal import Hummingbird

/// The page of the admin listener: three files, nothing from elsewhere. It knows nothing by itself, and shows what
/// `/snapshot`, `/limits` and `/limits/key` tell; on loopback these want the token, which the page asks for.
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
            <svg id="rate" viewBox="0 0 600 120" preserveAspectRatio="none" role="img" aria-labelledby="rate-text"></svg>
            <p id="rate-text"></p>
            <dl id="figures"></dl>
          </section>
          <section aria-labelledby="search-title">
            <h2 id="search-title">A user, client or domain</h2>
            <form id="search"><label>Key <input name="key" autocomplete="off" required></label> <button>Show</button></form>
            <div id="key" aria-live="polite"></div>
          </section>
          <section aria-labelledby="top-title">
            <h2 id="top-title">Nearest to their limits</h2>
            <div class="wide" tabindex="0" role="group"><table id="top"><thead><tr><th>Key<th>Used<th>Fullest window<th>Limit<th>Refused tries</tr></thead><tbody></tbody></table></div>
          </section>
          <section aria-labelledby="refusals-title">
            <h2 id="refusals-title">Refusals, newest first</h2>
            <div class="wide" tabindex="0" role="group"><table id="refusals"><thead><tr><th>Time<th>Limit<th>Key<th>Why<th>Room in<th>Message</tr></thead><tbody></tbody></table></div>
          </section>
          <section aria-labelledby="ways-title">
            <h2 id="ways-title">Messages</h2>
            <div class="wide" tabindex="0" role="group"><table id="ways"><thead><tr><th>Way in<th>Passed<th>Edited<th>Held<th>Refused<th>Deferred<th>Discarded<th>Connections<th>Next hop failures</tr></thead><tbody></tbody></table></div>
          </section>
          <section aria-labelledby="rules-title">
            <h2 id="rules-title">Rules by hits</h2>
            <p id="dead"></p>
            <div class="wide" tabindex="0" role="group"><table id="rules"><thead><tr><th>Rule<th>Hits<th>Given up<th>Time</tr></thead><tbody></tbody></table></div>
          </section>
          <section aria-labelledby="audit-title">
            <h2 id="audit-title">Changes by hand</h2>
            <ul id="audit"></ul>
          </section>
        </main>
        <footer id="about"></footer>
        </html>

        """#

    private static let css = #"""
        :root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --ground: #f6f8fa; --card: #fff; --line: #d5dce4; --good: #1a7f5a; --bad: #b3261e; --bar: #9cc8e8 }
        @media (prefers-color-scheme: dark) { :root { --ink: #e6ebf1; --soft: #9aa7b5; --ground: #12171d; --card: #1a2129; --line: #323c47; --good: #5fd1a3; --bad: #ff8a80; --bar: #2f5f80 } }
        * { box-sizing: border-box }
        body { margin: 0; font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--ground) }
        header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 1rem; padding: .5rem 1rem; border-bottom: 1px solid var(--line) }
        h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.05rem; margin: 0 0 .5rem }
        main { display: grid; gap: 1rem; padding: 1rem; align-items: start; grid-template-columns: repeat(auto-fit, minmax(min(100%, 40rem), 1fr)) }
        section { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem; min-width: 0 }
        .wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; min-width: 34rem; font-size: .9rem } #refusals { min-width: 48rem }
        th, td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid var(--line); vertical-align: top }
        td.number { text-align: right; font-variant-numeric: tabular-nums } td button { border: 0; background: none; color: inherit; text-decoration: underline; padding: 0; font: inherit; text-align: left; cursor: pointer }
        #rate { width: 100%; height: 8rem; background: var(--ground) } .passed { fill: var(--bar) } .answered { fill: var(--bad) }
        progress { width: 8rem; accent-color: var(--good) } .full progress { accent-color: var(--bad) } svg.history { width: 100%; height: 3rem; background: var(--ground) }
        dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .5rem; margin: 0 } dt { color: var(--soft); font-size: .85rem } dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums }
        .good { color: var(--good) } .bad { color: var(--bad) } footer, #rate-text, #dead { color: var(--soft); font-size: .85rem } footer { padding: 0 1rem 1rem; overflow-wrap: anywhere }
        input, form button, .acts button { font: inherit; padding: .3rem .6rem } :focus-visible { outline: 3px solid var(--good); outline-offset: 2px } td button, code, dd, li { overflow-wrap: anywhere } td { overflow-wrap: break-word } progress { vertical-align: middle }

        """#

    private static let script = #"""
        "use strict";
        const element = id => document.getElementById(id);
        let token = sessionStorage.getItem("token");
        let shownKey = null;

        // Everything that a peer has sent goes in as text, never as markup.
        function make(name, text, attributes = {}) {
          const made = document.createElement(name);
          if (text !== undefined) made.textContent = text;
          for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
          return made;
        }

        function makeSVG(name, attributes) {
          const made = document.createElementNS("http://www.w3.org/2000/svg", name);
          for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
          return made;
        }

        async function ask(path, options = {}) {
          const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...(token ? { Authorization: "Bearer " + token } : {}) };
          const reply = await fetch(path, { ...options, headers, cache: "no-store" });
          if (reply.status === 401) { element("token").hidden = false; throw new Error("the token is needed"); }
          const body = await reply.json();
          if (!reply.ok) throw new Error(body.error || "the service answered " + reply.status);
          return body;
        }

        function rows(id, items, cells) {
          const focused = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.row : undefined;
          element(id).tBodies[0].replaceChildren(...items.map(item => {
            const row = make("tr");
            for (const cell of cells(item)) {
              const td = make("td");
              if (cell instanceof Node) td.append(cell); else { td.textContent = cell; if (typeof cell === "number") td.className = "number"; }
              row.append(td);
            }
            return row;
          }));
          if (focused) { const again = document.querySelector(`[data-row="${CSS.escape(focused)}"]`); if (again) again.focus(); }
        }

        const clock = seconds => new Date(seconds * 1000).toLocaleTimeString([], { hour12: false });
        const took = microseconds => microseconds === undefined ? "-" : microseconds < 1000 ? microseconds + " µs" : microseconds / 1000 + " ms";

        function keyButton(limit, key, place) {
          const button = make("button", key, { type: "button", "data-row": place + limit + "|" + key });
          button.addEventListener("click", () => showKey(key));
          return button;
        }

        function bar(used, limit) {
          const span = make("span", undefined, used >= limit ? { class: "full" } : {});
          span.append(make("progress", undefined, { max: Math.max(1, limit), value: Math.min(used, limit), "aria-label": `${used} of ${limit}` }), ` ${used}/${limit}`);
          return span;
        }

        function draw(snapshot) {
          const passed = snapshot.passedPerSecond, answered = snapshot.answeredPerSecond, chart = element("rate");
          const top = Math.max(1, ...passed.map((count, index) => count + answered[index]));
          chart.replaceChildren(...passed.flatMap((count, index) => {
            const all = count + answered[index];
            if (!all) return [];
            const height = all / top * 120, bad = answered[index] / top * 120;
            return [makeSVG("rect", { class: "passed", x: index, width: 1, y: 120 - height, height }),
                    makeSVG("rect", { class: "answered", x: index, width: 1, y: 120 - bad, height: bad })];
          }));
          const last = passed.length - 1;
          element("rate-text").textContent = `${passed[last]} let through and ${answered[last]} answered with an action in the last second; at most ${top} in one second.`;
          const figures = { "let through": snapshot.passed, "with an action": snapshot.answered, "half within": took(snapshot.medianAnswer),
            "99 % within": took(snapshot.slowAnswer), "keys": snapshot.status.keys, "connections": snapshot.status.connections };
          element("figures").replaceChildren(...Object.entries(figures).map(([name, value]) => { const part = make("div"); part.append(make("dt", name), make("dd", value)); return part; }));
          const state = element("state");
          state.textContent = snapshot.status.trouble ? "the ledger can't be kept: " + snapshot.status.trouble : "the ledger is kept";
          state.className = snapshot.status.trouble ? "bad" : "good";
          rows("refusals", snapshot.refusals, item => [clock(item.time), item.limit + (item.mode === "shadow" ? " (shadow)" : ""), keyButton(item.limit, item.key, "r"),
            `${item.reason}: ${item.usage}`, item.retry + " s", [item.queueID, item.client, item.login && "login " + item.login, item.sender && "from " + item.sender, item.recipient && "to " + item.recipient].filter(Boolean).join(", ")]);
          rows("ways", snapshot.ways, item => { const m = item.values.messages; return [item.name, m.passed, m.edited, m.held, m.refused, m.deferred, m.discarded, item.values.connections, item.values.nextHopFailures ?? "-"]; });
          rows("rules", snapshot.rules.slice(0, 100), item => [item.location, item.hits, item.limitsReached, item.milliseconds.toFixed(1) + " ms"]);
          element("dead").textContent = snapshot.rulesWithoutHits + " rules have not decided anything since they were loaded.";
          element("audit").replaceChildren(...snapshot.audit.map(entry => make("li", `${new Date(entry.time * 1000).toLocaleString()} ${entry.user}: ${entry.action} ${entry.key}`
            + (entry.details && ` (${entry.details})`) + (entry.limits.length ? ": done for " + entry.limits.join(", ") : ": no limit knows this key") + (entry.reason && ": " + entry.reason))));
          element("about").textContent = `Weir ${snapshot.version}: ${snapshot.configuration}`;
        }

        function drawTop(standings) {
          rows("top", standings, item => {
            const fullest = item.rates.reduce((one, other) => other.used / Math.max(1, other.limit) > one.used / Math.max(1, one.limit) ? other : one);
            return [keyButton(item.limit, item.key, "t"), bar(fullest.used, fullest.limit), fullest.window, item.limit + (item.blockedUntil ? " (blocked)" : ""), item.refusedTries];
          });
        }

        async function showKey(key) {
          shownKey = key;
          const place = element("key");
          try {
            const standings = await ask("/limits/key?key=" + encodeURIComponent(key));
            place.replaceChildren(make("h3", key), ...(standings.length ? standings.flatMap(drawStanding) : [make("p", "No limit knows this key: nothing has been counted for it lately.")]));
          } catch (error) { place.replaceChildren(make("p", error.message, { class: "bad" })); }
        }

        function drawStanding(item) {
          const parts = [make("h4", `${item.limit}, ${item.count}` + (item.mode === "shadow" ? ", shadow" : "") + (item.exempt ? ", exempt" : ""))];
          const until = [item.blockedUntil && "blocked until " + new Date(item.blockedUntil * 1000).toLocaleString(), item.raisedUntil && "raised until " + new Date(item.raisedUntil * 1000).toLocaleString(), item.refusedTries && item.refusedTries + " refused tries"].filter(Boolean).join(", ");
          if (until) parts.push(make("p", until));
          for (const rate of item.rates) {
            const line = make("p"); line.append(bar(rate.used, rate.limit), ` per ${rate.window}` + (rate.freesAt ? ", room at " + clock(rate.freesAt) : ""));
            const history = rate.history || [], top = Math.max(1, ...history);
            const chart = makeSVG("svg", { class: "history", viewBox: `0 0 ${history.length || 1} 10`, preserveAspectRatio: "none", role: "img", "aria-label": `use over the last ${rate.window}` });
            history.forEach((amount, index) => { if (amount) chart.append(makeSVG("rect", { class: "passed", x: index, width: .9, y: 10 - amount / top * 10, height: amount / top * 10 })); });
            parts.push(line, chart);
          }
          const acts = make("p", undefined, { class: "acts" }), label = make("label", "Reason "), reason = make("input", undefined, { maxlength: 200, autocomplete: "off" });
          label.append(reason);
          acts.append(label, " ");
          const change = intervention => intervene({ ...intervention, reason: reason.value.trim() || undefined });
          const act = (name, ask) => { const button = make("button", name, { type: "button" }); button.addEventListener("click", ask); acts.append(button, " "); };
          act("Reset", () => confirm(`Forget what ${item.limit} has counted for ${item.key}?`) && change({ action: "reset", key: item.key, limit: item.limit }));
          act("Raise", () => { const rate = prompt("Rates for one day, such as 500/1h", item.rates.map(rate => rate.rate).join(" ")); if (rate) change({ action: "raise", key: item.key, limit: item.limit, rates: rate.trim().split(/[\s,]+/), duration: 86400 }); });
          act("Block", () => confirm(`Refuse everything of ${item.key} for one day?`) && change({ action: "block", key: item.key, limit: item.limit, duration: 86400 }));
          act("Unblock", () => change({ action: "unblock", key: item.key, limit: item.limit }));
          parts.push(acts);
          return parts;
        }

        async function intervene(intervention) {
          try { await ask("/limits/key", { method: "POST", body: JSON.stringify(intervention) }); await showKey(intervention.key); await refresh(); }
          catch (error) { alert(error.message); }
        }

        async function refresh() {
          try { draw(await ask("/snapshot?age=1")); drawTop(await ask("/limits?most=20&age=1")); element("token").hidden = true; }
          catch (error) { const state = element("state"); state.textContent = error.message; state.className = "bad"; }
        }

        element("search").addEventListener("submit", event => { event.preventDefault(); showKey(new FormData(event.target).get("key").trim()); });
        element("token").querySelector("form").addEventListener("submit", event => {
          event.preventDefault();
          token = new FormData(event.target).get("token").trim();
          sessionStorage.setItem("token", token);
          refresh();
        });
        (async function run() { for (;;) { if (!document.hidden) await refresh(); await new Promise(done => setTimeout(done, 2000)); } })();

        """#
}
