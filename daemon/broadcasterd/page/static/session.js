// One session: who listens, what arrives, and what an operator can do about it.

import { ask, headers, sessionPath, url } from "./api.js";
import { confirmed, h, table, update } from "./dom.js";
import * as format from "./format.js";
import { follow } from "./sse.js";

const EVERY_MS = 2000;
const SHOWN_EVENTS = 100;
const SHOWN_STREAMS = 50;
const FACTS = [
  ["Subscribers", "subscribers", format.exact],
  ["Events kept", "retained_events", format.exact],
  ["Size", "retained_bytes", format.bytes],
  ["Oldest event", "oldest_age_s", (value) => (value === null ? "–" : `${format.duration(value)} ago`)],
  ["Open for", "age_s", format.duration],
  ["Last id", "last_id", (value) => value ?? "–"],
];

export class Session {
  constructor(name) {
    this.name = name;
    this.isPaused = false;
    this.missed = 0;
    this.facts = FACTS.map(([label]) => ({ label, value: h("dd", { text: "–" }) }));
    this.notice = h("p", { class: "trouble", role: "alert", hidden: true });
    this.streams = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of subscribers" });
    this.more = h("p", { class: "muted", hidden: true });
    this.events = h("ol", { class: "events" });
    this.log = h("div", { class: "scroll log", role: "log", "aria-live": "off", "aria-label": "Events, newest first", tabindex: 0 }, this.events);
    this.empty = h("p", { class: "muted", text: "Nothing has arrived yet." });
    this.state = h("span", { class: "muted", role: "status" });
    this.pretty = h("input", { type: "checkbox", id: "pretty", checked: true, onchange: () => this.#redraw() });
    this.pause = h("button", { type: "button", text: "Pause", "aria-pressed": "false", onclick: () => this.#pause() });
    this.kind = h("input", { id: "kind", placeholder: "message", autocomplete: "off", maxlength: 256 });
    this.data = h("textarea", { id: "data", rows: 4, spellcheck: "false", required: true });
    this.data.value = '{"text": "hello from the page"}';
    this.result = h("p", { class: "result", role: "status" });
    this.element = h("div", {},
      h("p", {}, h("a", { href: "#/sessions", text: "← All sessions" })),
      h("div", { class: "title" }, h("h1", { class: "name", text: name }),
        h("button", { type: "button", class: "danger", text: "Close session …", onclick: () => this.#close() })),
      this.notice,
      h("dl", { class: "tiles" }, this.facts.map(({ label, value }) => h("div", { class: "card" }, h("dt", { text: label }), value))),
      h("div", { class: "halves" },
        h("section", { class: "card", "aria-labelledby": "arriving" },
          h("div", { class: "title" }, h("h2", { id: "arriving", text: "Events as they arrive" }), this.state),
          h("div", { class: "toolbar" }, this.pause, h("label", { for: "pretty" }, this.pretty, " JSON in lines")),
          this.empty, this.log),
        h("div", {},
          h("section", { class: "card", "aria-labelledby": "publishing" },
            h("h2", { id: "publishing", text: "Publish a test event" }),
            h("form", { onsubmit: (event) => this.#publish(event) },
              h("label", { for: "kind", text: "Type" }), this.kind,
              h("label", { for: "data", text: "Data: JSON is sent as such, anything else as text" }), this.data,
              h("div", { class: "buttons" }, h("button", { class: "primary", text: "Publish" }), this.result))),
          h("section", { class: "card", "aria-labelledby": "listening" },
            h("h2", { id: "listening", text: "Subscribers" }), this.streams, this.more))));
  }

  start() {
    this.timer = setInterval(() => document.hidden || this.isGone || this.#load(), EVERY_MS);
    this.#load();
  }

  stop() {
    clearInterval(this.timer);
    this.following?.stop();
  }

  // What is told of it

  async #load() {
    const [session, streams] = await Promise.all([
      ask("GET", sessionPath(this.name)),
      ask("GET", sessionPath(this.name, `/streams?limit=${SHOWN_STREAMS}`)),
    ]);
    if (session.status === 404 || streams.status === 404) {
      this.#gone("No session of this name is open. Publishing to it opens it.");
      return;
    }
    this.#notice(session.ok && streams.ok ? "" : session.why || streams.why);
    if (session.ok) {
      FACTS.forEach(([, key, show], at) => update(this.facts[at].value, show(session.body[key])));
      this.#listen();
    }
    if (streams.ok) this.#showStreams(streams.body);
  }

  #showStreams({ streams, total }) {
    const focused = this.streams.contains(document.activeElement) && document.activeElement.dataset.stream;
    const columns = [
      { label: "Address" }, { label: "Subject", wide: true },
      ...["Age", "Behind", "Events", "Bytes"].map((label) => ({ label, numeric: true, wide: label === "Events" })),
      { label: "End", head: h("span", { class: "hidden", text: "End" }) },
    ];
    const rows = streams.map((each) => [
      h("span", { title: `stream ${each.stream}`, text: each.peer }), each.subject ?? "–", format.duration(each.age_s),
      each.lag_events ? `${format.exact(each.lag_events)} events` : "–",
      format.exact(each.sent_events), format.bytes(each.sent_bytes),
      h("button", { type: "button", class: "small", "data-stream": each.stream, text: "End …", "aria-label": `End the stream of ${each.subject ?? each.peer}`, onclick: () => this.#end(each) }),
    ]);
    this.streams.replaceChildren(total
      ? table("Subscribers of the session", columns, rows)
      : h("p", { class: "muted", text: "Nobody listens." }));
    this.more.hidden = total <= streams.length;
    update(this.more, `The oldest ${format.exact(streams.length)} of ${format.exact(total)}.`);
    if (focused) this.streams.querySelector(`[data-stream="${focused}"]`)?.focus();
  }

  #notice(text) {
    this.notice.hidden = !text;
    update(this.notice, text);
  }

  #gone(text) {
    this.isGone = true;
    this.following?.stop();
    this.following = null;
    update(this.state, "");
    this.#notice(text);
    this.streams.replaceChildren(h("p", { class: "muted", text: "Nobody listens." }));
  }

  // Its events

  #listen() {
    this.following ??= follow(url(sessionPath(this.name, "/events?from=last:20")), {
      headers,
      isLiveAtOnce: true,
      onEvent: (event) => this.#take(event),
      onState: ({ kind, why }) => {
        if (kind === "over") this.#gone(`This session is over (${why}).`);
        const told = { live: "● live", connecting: "connecting …", lost: `▲ ${why}; coming back`, denied: `▲ ${why}` };
        update(this.state, told[kind] ?? "");
      },
    });
  }

  #take({ type, data, id }) {
    if (this.isPaused) {
      update(this.pause, `Go on (${++this.missed} more)`);
      return;
    }
    this.empty.hidden = true;
    const pre = h("pre");
    pre.raw = data;
    this.#write(pre);
    this.events.prepend(h("li", {},
      h("div", { class: "about" },
        h("time", { text: format.clock(Date.now() / 1000) }), h("b", { text: type }),
        h("span", { class: "muted", text: format.bytes(new Blob([data]).size) }), h("code", { text: id ?? "" })),
      pre));
    while (this.events.children.length > SHOWN_EVENTS) this.events.lastChild.remove();
  }

  #write(pre) {
    pre.textContent = this.pretty.checked ? inLines(pre.raw) : pre.raw;
  }

  #redraw() {
    for (const pre of this.events.querySelectorAll("pre")) this.#write(pre);
  }

  #pause() {
    this.isPaused = !this.isPaused;
    this.pause.setAttribute("aria-pressed", String(this.isPaused));
    update(this.pause, this.isPaused ? "Go on" : "Pause");
    this.missed = 0;
  }

  // What can be done

  async #publish(event) {
    event.preventDefault();
    const text = this.data.value;
    const body = { data: asJson(text) ?? text };
    if (this.kind.value) body.event = this.kind.value;
    const answer = await ask("POST", sessionPath(this.name, "/events"), body);
    this.result.classList.toggle("bad", !answer.ok);
    update(this.result, answer.ok
      ? `✓ ${answer.body.last_id} went to ${format.exact(answer.body.subscribers)} subscribers`
      : `✕ ${answer.why}`);
    if (answer.ok) {
      this.isGone = false; // it was opened anew
      this.#load();
    }
  }

  async #close() {
    if (!(await confirmed(`Close ${this.name}?`, "Its subscribers are told not to come back, and its events are gone.", "Close session"))) return;
    this.isGone = true; // nothing is asked about it meanwhile
    const answer = await ask("DELETE", sessionPath(this.name));
    if (answer.ok) this.#gone("This session was closed. Publishing to it opens it anew.");
    else {
      this.isGone = false;
      this.#notice(answer.why);
    }
  }

  async #end({ stream, peer, subject, age_s: age }) {
    const whose = subject ? `${subject} at ${peer}` : peer;
    if (!(await confirmed("End this stream?", `It is of ${whose}, open for ${format.duration(age)}. Its client is told not to come back; its token stays good.`, "End stream"))) return;
    const answer = await ask("DELETE", `v1/streams/${stream}`);
    if (answer.ok) this.#load();
    else this.#notice(answer.why);
  }
}

function asJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function inLines(text) {
  const value = asJson(text);
  return value !== null && typeof value === "object" ? JSON.stringify(value, null, 2) : text;
}
