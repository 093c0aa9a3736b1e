// The daemon at a glance: figures, charts, what is wrong.

import { Chart, runsChart } from "./chart.js";
import { h, table, update } from "./dom.js";
import * as format from "./format.js";

const LATENCIES = ["p50", "p95", "p99"];
const some = (value) => (value ? format.milliseconds(value) : "–"); // 0: there was none
const latency = (title, field) => ({
  title, kind: "lines", format: format.milliseconds, tell: some, least: 1,
  series: LATENCIES.map((name) => ({ field: `${field}_${name}_ms`, label: name })),
});
const words = (name) => name.replaceAll("_", " ");

const MEMORY = {
  title: "Memory", class: "memory", kind: "lines", format: format.megabytes, bands: true, height: 190,
  series: [{ field: "used_mb", label: "used" }, { field: "accounted_mb", label: "accounted" }],
  thresholds: (frame) => (frame ? [
    { label: "warning", value: frame.health.memory.warning_mb },
    { label: "critical", value: frame.health.memory.critical_mb },
  ] : []),
};

function specs(fields) {
  const reasons = fields.filter((field) => field.startsWith("ended."));
  const troubles = fields.filter((field) => field === "errors" || /^(failed|refused)\./.test(field));
  const label = (field) => (field === "errors" ? "5xx answers" : words(field.replace(".", ": ")));
  return [
    { title: "Published", kind: "lines", format: format.rate, least: 1, series: [
      { field: "publishes_per_s", label: "publishes" }, { field: "events_per_s", label: "events" },
      { field: "engine_events_per_s", label: "given to the engine" }] },
    { title: "Delivered", kind: "lines", format: format.rate, least: 1, series: [
      { field: "deliveries_per_s", label: "deliveries" }] },
    { title: "Sessions and streams", kind: "lines", format: format.count, isWhole: true, least: 3, series: [
      { field: "streams", label: "streams" }, { field: "sessions", label: "sessions" },
      { field: "connections", label: "connections" }] },
    latency("Latency of publishing", "publish"),
    latency("Latency of fan-out", "fan_out"),
    latency("Commits of the engine", "commit"),
    latency("Lag of the event loop", "loop_lag"),
    { title: "Streams ended, by reason", kind: "bars", format: format.exact, least: 3,
      series: reasons.map((field) => ({ field, label: words(field.slice("ended.".length)) })) },
    { title: "Errors and refusals, by cause", kind: "bars", format: format.exact, least: 3,
      series: troubles.map((field) => ({ field, label: label(field) })) },
    { title: "Bytes delivered", kind: "lines", format: format.byteRate, least: 1000, series: [
      { field: "delivered_bytes_per_s", label: "bytes" }] },
  ];
}

const SPANS = [["5 min", 300], ["15 min", 900], ["1 h", 3600]];
const TILES = [
  ["Memory used", "used_mb", format.megabytes],
  ["Sessions", "sessions", format.exact],
  ["Streams", "streams", format.exact],
  ["Published", "publishes_per_s", format.rate],
  ["Delivered", "deliveries_per_s", format.rate],
  ["Publish p99", "publish_p99_ms", some],
  ["Fan-out p99", "fan_out_p99_ms", some],
  ["Loop lag p99", "loop_lag_p99_ms", some],
];

export const VERDICTS = { healthy: "✓", degraded: "▲", unhealthy: "✕" };

export class Overview {
  constructor(store) {
    this.store = store;
    this.view = { from: 0, to: 1, cursor: null };
    this.span = 900;
    this.skew = 0; // seconds that the daemon's clock is before ours
    this.zoomed = null;
    this.isHeld = false;
    this.charts = null;
    this.tiles = TILES.map(([label, field, show]) => ({ field, show, value: h("dd", { text: "–" }), label }));
    this.spans = SPANS.map(([text, seconds]) => h("button", {
      type: "button", text, "aria-pressed": "false", onclick: () => this.#live(seconds),
    }));
    this.range = h("span", { class: "range" });
    this.now = h("button", { type: "button", class: "primary", text: "Back to now", hidden: true, onclick: () => this.#live() });
    this.state = h("section", { class: "card state", "aria-label": "State" }, h("h2", { text: "State" }));
    this.grid = h("div", { class: "grid-of-charts" });
    this.routes = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Requests by route" });
    this.quality = h("section", { "aria-label": "Quality of test runs", hidden: true });
    this.element = h("div", {},
      h("h1", { class: "hidden", text: "Overview" }),
      h("dl", { class: "tiles" }, this.tiles.map(({ label, value }) => h("div", { class: "card" }, h("dt", { text: label }), value))),
      h("div", { class: "toolbar", role: "group", "aria-label": "Time shown" }, this.spans, this.now, this.range),
      this.grid,
      this.quality,
      h("section", { class: "card" }, h("h2", { text: "Requests of the last minute, by route" }), this.routes));
  }

  #build() {
    const steer = {
      cursor: (time) => {
        this.view.cursor = time;
        this.charts.forEach((chart) => chart.draw());
      },
      hold: (isHeld) => (this.isHeld = isHeld),
      zoom: (from, to) => {
        const newest = Date.now() / 1000 + this.skew;
        const size = Math.min(Math.max(to - from, 10), 3600);
        const end = Math.min(to, newest);
        this.zoomed = { from: end - size, to: end };
        this.view.cursor = null;
        this.draw();
      },
      live: () => this.#live(),
    };
    const made = [MEMORY, ...specs([...this.store.fields.keys()])].map((spec) => new Chart(spec, steer));
    this.charts = made;
    this.grid.replaceChildren(made[0].element, this.state, ...made.slice(1).map(({ element }) => element));
  }

  #live(span = this.span) {
    this.span = span;
    this.zoomed = null;
    this.view.cursor = null;
    this.draw();
  }

  takeHistory() {
    this.#build();
    this.#showTiles();
    this.#showQuality();
  }

  takeFrame() {
    const { store } = this;
    this.skew = store.latest.point[0] - Date.now() / 1000;
    this.#showTiles();
    this.#showState(store.latest);
    this.#showRoutes(store.latest.stats.performance.latency_ms.requests);
  }

  #showTiles() {
    if (!this.store.points.length) return;
    for (const { field, show, value } of this.tiles) update(value, show(this.store.now(field)));
  }

  draw() {
    if (!this.charts || !this.element.isConnected || this.isHeld) return;
    const now = Date.now() / 1000 + this.skew;
    Object.assign(this.view, this.zoomed ?? { from: now - this.span, to: now });
    SPANS.forEach(([, seconds], at) =>
      this.spans[at].setAttribute("aria-pressed", String(!this.zoomed && seconds === this.span)));
    this.now.hidden = !this.zoomed;
    update(this.range, this.zoomed
      ? `${format.clock(this.view.from)} – ${format.clock(this.view.to)}`
      : "Drag on a chart to zoom");
    for (const chart of this.charts) chart.show(this.store, this.view);
  }

  #showState({ health, stats }) {
    const { memory, engine } = health;
    const alerts = health.alerts ?? [];
    const { history } = stats.performance.breaker;
    const rows = [
      ["Status", h("span", { class: `verdict ${health.status}`, text: `${VERDICTS[health.status]} ${health.status}` })],
      ["Breaker", h("span", { class: `breaker ${memory.breaker}`, text: memory.breaker })],
      ["Engine", h("span", {
        class: `engine ${engine.state}`,
        text: engine.state === "up" ? engine.kind : `▲ ${engine.kind} is down: ${engine.why}`,
      })],
      ["Alerts firing", alerts.length
        ? h("ul", { class: "alerts" }, alerts.map((name) => h("li", { text: `▲ ${name}` })))
        : "none"],
      ["Commit p99", some(stats.engine.commit_ms.p99)],
      ["Memory trend", `${memory.trend.mb_per_minute > 0 ? "+" : ""}${memory.trend.mb_per_minute.toFixed(1)} MB/min`],
      ["Held for clients", format.megabytes(memory.clients_mb)],
      ["Up for", format.duration(health.uptime_s)],
      ["Version", health.version],
    ];
    const key = JSON.stringify([health.status, memory.breaker, engine, alerts, history.length]);
    if (key !== this.stateKey) {
      this.stateKey = key;
      this.values = rows.map(([, value]) => h("dd", {}, value));
      this.state.replaceChildren(
        h("h2", { text: "State" }),
        h("dl", { class: "facts" }, rows.flatMap(([label], at) => [h("dt", { text: label }), this.values[at]])),
        h("h3", { text: "The breaker's last transitions" }),
        history.length
          ? h("ol", { class: "transitions" }, history.slice(-5).reverse().map((change) => h("li", {},
            h("time", { datetime: change.time, text: format.clock(Date.parse(change.time) / 1000) }),
            ` ${change.from} → ${change.to} at ${format.megabytes(change.used_mb)}`)))
          : h("p", { class: "muted", text: "none since the start" }));
    } else {
      rows.forEach(([, value], at) => typeof value === "string" && update(this.values[at], value));
    }
  }

  #showRoutes(requests) {
    const rows = Object.entries(requests).map(([route, { count, p50, p95, p99, max }]) =>
      [route, format.exact(count), ...[p50, p95, p99, max].map(format.milliseconds)]);
    const columns = [{ label: "Route" },
      ...["Requests", "p50", "p95", "p99", "Longest"].map((label) => ({ label, numeric: true, wide: ["p50", "p95"].includes(label) }))];
    this.routes.replaceChildren(rows.length
      ? table("Requests by route", columns, rows)
      : h("p", { class: "muted", text: "none" }));
  }

  #showQuality() {
    const runs = this.store.quality;
    this.quality.hidden = !runs.length;
    if (!runs.length) return;
    const cells = ({ date, success_rate: rate, hooks_seconds: seconds }) =>
      [date, rate === null ? "–" : format.percent(rate), seconds === null ? "–" : `${seconds} s`];
    this.quality.replaceChildren(
      h("div", { class: "grid-of-charts two" },
        runsChart("Tests that passed, by run", runs, "success_rate", format.percent, 1),
        runsChart("Time that hooks took, by run", runs, "hooks_seconds", (value) => `${Math.round(value * 10) / 10} s`)),
      h("details", { class: "card" }, h("summary", { text: "Table of test runs" }),
        table("Test runs", [{ label: "Date" }, { label: "Passed", numeric: true }, { label: "Hooks", numeric: true }],
          [...runs].reverse().map(cells))));
  }
}
