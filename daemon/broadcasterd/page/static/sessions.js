// The open sessions: filtered, sorted and paged by the daemon, however many there are.

import { ask } from "./api.js";
import { h, table, update } from "./dom.js";
import * as format from "./format.js";

const SIZE = 50;
const EVERY_MS = 3000;
const COLUMNS = [
  { key: "session", label: "Session" },
  { key: "subscribers", label: "Subscribers", numeric: true, show: format.exact },
  { key: "retained_events", label: "Events", numeric: true, show: format.exact },
  { key: "retained_bytes", label: "Size", numeric: true, show: format.bytes },
  { key: "age_s", label: "Open for", numeric: true, wide: true, show: format.duration },
  { key: "idle_s", label: "Idle for", numeric: true, wide: true, show: format.duration },
];

export class Sessions {
  constructor() {
    this.sort = "-subscribers";
    this.offset = 0;
    this.filter = h("input", { type: "search", id: "filter", placeholder: "part of a name", autocomplete: "off", spellcheck: "false", oninput: () => this.#filterSoon() });
    this.place = h("span", { class: "place", role: "status" });
    this.previous = h("button", { type: "button", text: "Previous", onclick: () => this.#go(-SIZE) });
    this.next = h("button", { type: "button", text: "Next", onclick: () => this.#go(SIZE) });
    this.trouble = h("p", { class: "trouble", role: "alert", hidden: true });
    this.rows = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Table of sessions" });
    this.element = h("div", {},
      h("h1", { text: "Sessions" }),
      h("div", { class: "toolbar" },
        h("label", { for: "filter", text: "Filter" }), this.filter,
        h("span", { class: "grow" }), this.place, this.previous, this.next),
      this.trouble,
      h("div", { class: "card" }, this.rows));
  }

  start() {
    this.timer = setInterval(() => document.hidden || this.#load(), EVERY_MS);
    this.#load();
  }

  stop() {
    clearInterval(this.timer);
  }

  #filterSoon() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => {
      this.offset = 0;
      this.#load();
    }, 200);
  }

  #go(by) {
    this.offset = Math.max(0, this.offset + by);
    this.#load();
  }

  #sortBy(key) {
    const [first, second] = key === "session" ? [key, `-${key}`] : [`-${key}`, key];
    this.sort = this.sort === first ? second : first;
    this.offset = 0;
    this.#load();
  }

  async #load() {
    clearTimeout(this.waiting);
    const query = new URLSearchParams({ limit: SIZE, offset: this.offset, sort: this.sort, q: this.filter.value });
    const asked = (this.asked = query.toString());
    const answer = await ask("GET", `v1/sessions?${query}`);
    if (asked !== this.asked) return; // another one is under way
    this.trouble.hidden = answer.ok;
    update(this.trouble, answer.why);
    if (!answer.ok) return;
    const { sessions, found, total } = answer.body;
    const to = this.offset + sessions.length;
    const of = found === total ? format.exact(total) : `${format.exact(found)} (of ${format.exact(total)})`;
    update(this.place, sessions.length ? `${format.exact(this.offset + 1)}–${format.exact(to)} of ${of}` : `0 of ${of}`);
    this.previous.disabled = this.offset === 0;
    this.next.disabled = to >= found;
    this.#show(sessions);
  }

  #show(sessions) {
    const columns = COLUMNS.map((column) => {
      const falls = this.sort === `-${column.key}`;
      const isSorted = falls || this.sort === column.key;
      const head = h("button", { type: "button", class: "sort", "data-key": column.key, onclick: () => this.#sortBy(column.key) },
        column.label, h("span", { "aria-hidden": "true", text: isSorted ? (falls ? " ▼" : " ▲") : "" }));
      return { ...column, head, sorted: isSorted ? (falls ? "descending" : "ascending") : null };
    });
    const rows = sessions.map((each) => COLUMNS.map(({ key, show }) => key === "session"
      ? h("a", { href: `#/sessions/${encodeURIComponent(each.session)}`, text: each.session })
      : show(each[key])));
    const focused = this.rows.contains(document.activeElement) ? document.activeElement : null;
    const { hash } = focused ?? {};
    const key = focused?.dataset.key;
    this.rows.replaceChildren(table("Sessions", columns, rows));
    if (!sessions.length) this.rows.append(h("p", { class: "muted", text: this.filter.value ? "No session has this in its name." : "No session is open." }));
    const same = [...this.rows.querySelectorAll("a, button")].find((each) =>
      (hash && each.hash === hash) || (key && each.dataset.key === key));
    same?.focus(); // what had the focus keeps it
  }
}
