// Charts over time, as SVG. Each has a legend that tells the figures under the pointer, and a table.

import { h, s, table, update } from "./dom.js";
import { clock, shortClock } from "./format.js";

const LEFT = 56, RIGHT = 8, TOP = 8, BOTTOM = 20;
const DASHES = [null, "6 3", "2 3"];
const PATTERNS = ["solid", "rising", "falling"];
const BANDS = { warning: "warning", "half-open": "half-open", open: "open" };
const TABLE_ROWS = 24;
const GAP_S = 15; // no points for so long: nothing is known of that time
const SHORTEST_S = 10;

let numbered = 0;

/** The least round number that is not below `value`, of steps that people count in. */
function round(value, isWhole) {
  const power = 10 ** Math.floor(Math.log10(value));
  const found = [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
  return isWhole ? Math.max(1, Math.ceil(found)) : found;
}

const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

/**
 * A chart of some fields of the points.
 *
 * `spec`: title; kind "lines" or "bars" (stacked counts); series `[{field, label}]`; format; least
 * (of the scale); thresholds (of the latest frame, `[{label, value}]`); bands (the breaker's).
 * `view`: {from, to, cursor}, shared by all charts, and changed through `steer`.
 */
export class Chart {
  constructor(spec, steer) {
    this.spec = spec;
    this.steer = steer;
    this.id = `chart-${++numbered}`;
    this.width = 0;
    this.height = spec.height ?? 130;
    this.tell = spec.tell ?? spec.format;
    this.series = spec.series.map((each, at) => ({
      ...each, at, dash: DASHES[at % 3], color: `c${at % 7}`, pattern: PATTERNS[at % 3],
    }));
    this.when = h("span", { class: "when" });
    this.legend = h("ul", { class: "legend" });
    this.entries = this.series.map((each) => this.#entry(each));
    this.legend.append(...this.entries.map(({ item }) => item));
    this.nothing = h("li", { class: "nothing", text: "none in this time" });
    this.svg = s("svg", { "aria-hidden": "true", height: this.height });
    this.plot = h("div", {
      class: "plot", tabindex: 0, role: "slider", "aria-label": `${spec.title}: time`,
      "aria-orientation": "horizontal", "aria-describedby": `${this.id}-hint`,
      onkeydown: (event) => this.#key(event),
    }, this.svg);
    this.#point();
    this.rows = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${spec.title}: table` });
    this.details = h("details", { ontoggle: () => this.#fillTable() },
      h("summary", { text: "Table", "aria-label": `Table of ${spec.title}` }), this.rows);
    this.element = h("figure", { class: `card chart ${spec.class ?? ""}`, "aria-labelledby": this.id },
      h("figcaption", {}, h("h2", { id: this.id, text: spec.title }), this.when),
      this.legend, this.plot,
      h("p", { id: `${this.id}-hint`, class: "hidden", text: "Arrow keys move in time, plus and minus zoom, Escape returns to now." }),
      this.details);
    new ResizeObserver(([entry]) => {
      this.width = Math.round(entry.contentRect.width);
      this.draw();
    }).observe(this.plot);
  }

  #entry(each) {
    const key = s("svg", { class: "key", width: 18, height: 10, "aria-hidden": "true" });
    key.append(this.spec.kind === "bars"
      ? s("rect", { width: 18, height: 10, class: each.color, fill: this.#paint(each) })
      : s("path", { d: "M0 5H18", class: `line ${each.color}`, "stroke-dasharray": each.dash }));
    const value = h("b");
    return { item: h("li", {}, key, h("span", { text: each.label }), value), value, shown: null };
  }

  #paint(each) {
    return each.pattern === "solid" ? "currentColor" : `url(#${this.id}-${each.pattern}-${each.color})`;
  }

  /** Take what is to be shown from now on, and show it. */
  show(store, view) {
    this.store = store;
    this.view = view;
    this.draw();
  }

  draw() {
    const { store, view, width } = this;
    if (!store || width < 100) return;
    const inner = { width: width - LEFT - RIGHT, height: this.height - TOP - BOTTOM };
    const x = (time) => LEFT + ((time - view.from) / (view.to - view.from)) * inner.width;
    const shown = store.between(view.from - GAP_S, view.to);
    const isBars = this.spec.kind === "bars";
    const bins = isBars ? this.#sums(shown, inner.width) : this.#peaks(shown, inner.width);
    const thresholds = this.spec.thresholds?.(store.latest) ?? [];
    const highest = Math.max(
      this.spec.least ?? 1,
      ...thresholds.map(({ value }) => value * 1.05),
      ...bins.map((bin) => (isBars ? bin.values.reduce((a, b) => a + b, 0) : Math.max(...bin.values))),
    );
    const step = round(highest / 3, this.spec.isWhole ?? isBars);
    const top = Math.ceil((highest / step) * 0.999) * step;
    const y = (value) => TOP + inner.height * (1 - value / top);
    this.scale = { x, y, inner, bins, width: bins.seconds };

    const parts = [this.#patterns(), ...this.#bands(store, shown, x, y, top)];
    for (let value = 0; value <= top * 1.001; value += step) {
      parts.push(s("path", { class: "grid", d: `M${LEFT} ${y(value)}H${width - RIGHT}` }));
      parts.push(s("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end", text: this.spec.format(value) }));
    }
    parts.push(...this.#times(x, inner));
    parts.push(...(isBars ? this.#bars(bins, x, y) : this.#lines(bins, x, y)));
    for (const { label, value } of thresholds) {
      parts.push(s("path", { class: `threshold ${label}`, d: `M${LEFT} ${y(value)}H${width - RIGHT}` }));
      parts.push(s("text", { class: "tick threshold-label", x: LEFT + 4, y: y(value) - 4, text: `${label} ${this.spec.format(value)}` }));
    }
    for (const { time, label } of store.marks) {
      if (time < view.from || time > view.to) continue;
      parts.push(s("path", { class: "mark", d: `M${x(time)} ${TOP}V${TOP + inner.height}` }));
      parts.push(s("text", { class: "tick mark-label", x: x(time) + (x(time) > width - 70 ? -4 : 4), y: TOP + 9, "text-anchor": x(time) > width - 70 ? "end" : "start", text: label }));
    }
    this.cursorLayer = s("g");
    this.selection = s("rect", { class: "selection", y: TOP, height: inner.height, width: 0 });
    parts.push(this.cursorLayer, this.selection);
    this.svg.setAttribute("width", width);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.replaceChildren(...parts);
    this.#tell();
    if (this.details.open && Date.now() - (this.filledAt ?? 0) > 5000) this.#fillTable();
  }

  // What is in each piece of time. Pieces begin at round times, so that they do not flicker.

  #bin(points, seconds) {
    const { from } = this.view;
    const found = new Map();
    for (const point of points) {
      if (point[0] < from) continue;
      const at = Math.floor(point[0] / seconds);
      const bin = found.get(at);
      if (bin) bin.push(point);
      else found.set(at, [point]);
    }
    return found;
  }

  #peaks(points, width) {
    const { view, store } = this;
    const seconds = (view.to - view.from) / Math.max(1, width / 2);
    const indexes = this.series.map(({ field }) => store.index(field));
    const bins = [...this.#bin(points, seconds).values()].map((inside) => ({
      time: inside.at(-1)[0],
      values: indexes.map((index) => Math.max(...inside.map((point) => point[index]))),
    }));
    bins.seconds = seconds;
    return bins;
  }

  #sums(points, width) {
    const { view, store } = this;
    const least = Math.max(1, ((view.to - view.from) / width) * 6);
    const seconds = TIME_STEPS.find((step) => step >= least) ?? 3600;
    const indexes = this.series.map(({ field }) => store.index(field));
    const bins = [...this.#bin(points, seconds)].map(([at, inside]) => ({
      time: (at + 1) * seconds,
      values: indexes.map((index) => inside.reduce((sum, point) => sum + point[index], 0)),
    }));
    bins.seconds = seconds;
    return bins;
  }

  // What is drawn

  #patterns() {
    const defs = s("defs");
    if (this.spec.kind !== "bars") return defs;
    for (const { pattern, color } of this.series) {
      if (pattern === "solid") continue;
      const lean = pattern === "rising" ? 45 : -45;
      defs.append(s("pattern", { id: `${this.id}-${pattern}-${color}`, class: color, width: 4, height: 4, patternUnits: "userSpaceOnUse", patternTransform: `rotate(${lean})` },
        s("rect", { width: 4, height: 4, class: "under" }), s("rect", { width: 2, height: 4, fill: "currentColor" })));
    }
    return defs;
  }

  #lines(bins, x, y) {
    const gap = Math.max(GAP_S, bins.seconds * 3);
    const parts = this.series.map((each, at) => {
      let d = "", before = -Infinity;
      for (const { time, values } of bins) {
        d += `${time - before > gap ? "M" : "L"}${x(time).toFixed(1)} ${y(values[at]).toFixed(1)}`;
        before = time;
      }
      return s("path", { class: `line ${each.color}`, d, "stroke-dasharray": each.dash });
    });
    return parts.reverse(); // the first is the most important, and so on top
  }

  #bars(bins, x, y) {
    const parts = [];
    for (const { time, values } of bins) {
      let below = 0;
      const left = Math.max(x(time - bins.seconds) + 0.5, LEFT);
      const width = Math.max(1, Math.min(x(time), this.width - RIGHT) - left - 0.5);
      values.forEach((value, at) => {
        if (!value) return;
        const upper = y(below + value);
        parts.push(s("rect", { class: `bar ${this.series[at].color}`, fill: this.#paint(this.series[at]), x: left.toFixed(1), y: upper.toFixed(1), width: width.toFixed(1), height: Math.max(1, y(below) - upper).toFixed(1) }));
        below += value;
      });
    }
    return parts;
  }

  #bands(store, points, x, y, top) {
    if (!this.spec.bands) return [];
    const index = store.index("breaker");
    const runs = [];
    for (const point of points) {
      const state = store.breakerStates[point[index]];
      const last = runs.at(-1);
      if (last?.state === state && point[0] - last.to < GAP_S) last.to = point[0];
      else runs.push({ state, from: last && point[0] - last.to < GAP_S ? last.to : point[0], to: point[0] });
    }
    return runs.filter(({ state, to }) => BANDS[state] && to >= this.view.from).flatMap(({ state, from, to }) => {
      const left = Math.max(LEFT, x(from)), right = Math.min(this.width - RIGHT, x(to));
      const size = { x: left, width: Math.max(2, right - left), y: y(top), height: y(0) - y(top) };
      const label = right - left > state.length * 6.5 + 6;
      return [
        s("rect", { class: `band ${state}`, ...size }),
        s("rect", { class: `band-edge ${state}`, ...size, y: y(0) - 3, height: 3 }),
        label ? s("text", { class: "tick band-label", x: left + 4, y: y(0) - 6, text: state }) : null,
      ];
    }).filter(Boolean);
  }

  #times(x, inner) {
    const { from, to } = this.view;
    const most = Math.max(2, inner.width / 72);
    const step = TIME_STEPS.find((each) => (to - from) / each <= most) ?? 3600;
    const format = step < 60 ? clock : shortClock;
    const parts = [];
    for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
      if (x(time) < LEFT + 14 || x(time) > this.width - 24) continue;
      parts.push(s("path", { class: "grid", d: `M${x(time)} ${TOP + inner.height}v4` }));
      parts.push(s("text", { class: "tick", x: x(time), y: this.height - 4, "text-anchor": "middle", text: format(time) }));
    }
    return parts;
  }

  // The figures under the pointer, or else the latest

  #nearest() {
    const { bins } = this.scale;
    const { cursor } = this.view;
    if (cursor === null) return bins.at(-1);
    const centre = this.spec.kind === "bars" ? bins.seconds / 2 : 0;
    return bins.reduce((best, bin) =>
      !best || Math.abs(bin.time - centre - cursor) < Math.abs(best.time - centre - cursor) ? bin : best, undefined);
  }

  #tell() {
    const { view, spec } = this;
    const bin = this.#nearest();
    const isBars = spec.kind === "bars";
    const total = (at) => this.scale.bins.reduce((sum, each) => sum + each.values[at], 0);
    const texts = this.series.map((each, at) => {
      if (isBars && view.cursor === null) return this.tell(total(at));
      return bin ? this.tell(bin.values[at]) : "–";
    });
    this.entries.forEach(({ item, value }, at) => {
      update(value, texts[at]);
      item.hidden = isBars && !total(at);
    });
    const isEmpty = isBars && this.entries.every(({ item }) => item.hidden);
    if (isEmpty && !this.nothing.isConnected) this.legend.append(this.nothing);
    else if (!isEmpty) this.nothing.remove();
    const span = isBars && bin ? `${clock(bin.time - this.scale.width)}, ${this.scale.width} s` : "";
    const time = bin && view.cursor !== null ? (isBars ? span : clock(bin.time)) : "";
    update(this.when, time || (isBars ? `in all · bars of ${this.scale.width} s` : ""));
    const told = this.series.map((each, at) => `${each.label} ${texts[at]}`).filter((_, at) => !this.entries[at].item.hidden);
    this.plot.setAttribute("aria-valuemin", Math.round(view.from));
    this.plot.setAttribute("aria-valuemax", Math.round(view.to));
    this.plot.setAttribute("aria-valuenow", Math.round(Math.min(view.cursor ?? view.to, view.to)));
    if (view.cursor !== this.toldAt || !this.plot.hasAttribute("aria-valuetext")) {
      this.toldAt = view.cursor;
      this.plot.setAttribute("aria-valuetext", `${time || "now"}: ${told.join(", ") || "none"}`);
    }
    const { x, y, inner } = this.scale;
    this.cursorLayer.replaceChildren();
    if (view.cursor === null || !bin) return;
    const at = isBars ? bin.time - this.scale.width / 2 : bin.time;
    this.cursorLayer.append(s("path", { class: "cursor", d: `M${x(at)} ${TOP}v${inner.height}` }));
    if (!isBars) {
      this.cursorLayer.append(...bin.values.map((value, index) =>
        s("circle", { class: `dot c${index % 7}`, r: 3, cx: x(at), cy: y(value) })));
    }
  }

  #fillTable() {
    if (!this.details.open || !this.scale) return;
    this.filledAt = Date.now();
    const { bins } = this.scale;
    const every = Math.max(1, Math.ceil(bins.length / TABLE_ROWS));
    const rows = bins.filter((_, at) => (bins.length - 1 - at) % every === 0).reverse();
    const shown = this.series.filter(({ at }) => !this.entries[at].item.hidden); // bars: what there was
    const columns = [{ label: "Time" }, ...shown.map(({ label }) => ({ label, numeric: true }))];
    this.rows.replaceChildren(table(this.spec.title, columns,
      rows.map(({ time, values }) => [clock(time), ...shown.map(({ at }) => this.tell(values[at]))])));
  }

  // Pointer and keys

  #timeAt(event) {
    const { left } = this.plot.getBoundingClientRect();
    const { view, scale } = this;
    const share = (event.clientX - left - LEFT) / scale.inner.width;
    return view.from + Math.min(1, Math.max(0, share)) * (view.to - view.from);
  }

  #point() {
    let began = null;
    const select = (event) => {
      const { x } = this.scale;
      const [from, to] = [began, this.#timeAt(event)].sort((a, b) => a - b);
      this.selection.setAttribute("x", x(from));
      this.selection.setAttribute("width", x(to) - x(from));
      return [from, to];
    };
    this.plot.addEventListener("pointermove", (event) => {
      if (!this.scale) return;
      if (began !== null) select(event);
      this.steer.cursor(this.#timeAt(event));
    });
    this.plot.addEventListener("pointerleave", () => began === null && this.steer.cursor(null));
    this.plot.addEventListener("pointerdown", (event) => {
      if (!this.scale || event.button !== 0) return;
      began = this.#timeAt(event);
      this.steer.hold(true);
      this.plot.setPointerCapture(event.pointerId);
    });
    this.plot.addEventListener("pointerup", (event) => {
      if (began === null) return;
      const [from, to] = select(event);
      began = null;
      this.steer.hold(false);
      this.selection.setAttribute("width", 0);
      if (to - from >= SHORTEST_S / 2) this.steer.zoom(from, to);
    });
    this.plot.addEventListener("pointercancel", () => {
      began = null;
      this.steer.hold(false);
      this.steer.cursor(null);
    });
    this.plot.addEventListener("dragstart", (event) => event.preventDefault());
    this.plot.addEventListener("dblclick", () => this.steer.live());
  }

  #key(event) {
    const { view } = this;
    const span = view.to - view.from;
    const at = view.cursor ?? view.to;
    const step = span / (event.shiftKey ? 10 : 50);
    const zoom = (factor) => {
      const size = Math.max(SHORTEST_S, span * factor);
      this.steer.zoom(at - (size * (at - view.from)) / span, at + (size * (view.to - at)) / span);
    };
    const actions = {
      ArrowLeft: () => this.steer.cursor(Math.max(view.from, at - step)),
      ArrowRight: () => this.steer.cursor(Math.min(view.to, at + step)),
      Home: () => this.steer.cursor(view.from),
      End: () => this.steer.cursor(view.to),
      "+": () => zoom(0.5),
      "-": () => zoom(2),
      Escape: () => (view.cursor === null ? this.steer.live() : this.steer.cursor(null)),
    };
    const act = actions[event.key];
    if (act && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      act();
    }
  }
}

/** Return a chart of one figure over test runs; a figure may be null where a run does not tell it. */
export function runsChart(title, runs, field, format, most) {
  const values = runs.map((run) => run[field]);
  const known = values.filter((value) => value !== null);
  const top = most ?? round(Math.max(1, ...known), false);
  const height = 120;
  const last = known.length ? format(known.at(-1)) : "unknown";
  const svg = s("svg", { height, role: "img", "aria-label": `${title}: ${last} in the last of ${runs.length} runs` });
  const plot = h("div", { class: "runs" }, svg);
  new ResizeObserver(([entry]) => draw(Math.round(entry.contentRect.width))).observe(plot);

  function draw(width) {
    const x = (at) => LEFT + ((at + 0.5) / runs.length) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - value / top);
    const ticks = [0, top / 2, top].flatMap((value) => [
      s("path", { class: "grid", d: `M${LEFT} ${y(value)}H${width - RIGHT}` }),
      s("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end", text: format(value) }),
    ]);
    const dots = values.flatMap((value, at) => (value === null ? [] : [
      s("circle", { class: "dot c0", r: 3, cx: x(at), cy: y(value) }, s("title", { text: `${runs[at].date}: ${format(value)}` })),
    ]));
    const d = values.map((value, at) => (value === null ? "" : `${at && values[at - 1] !== null ? "L" : "M"}${x(at)} ${y(value)}`)).join("");
    const day = (at, anchor, place) => s("text", { class: "tick", x: place, y: height - 4, "text-anchor": anchor, text: runs.at(at).date.slice(0, 10) });
    svg.setAttribute("width", width);
    svg.replaceChildren(...ticks, s("path", { class: "line c0", d }), ...dots,
      day(0, "start", LEFT), ...(runs.length > 1 ? [day(-1, "end", width - RIGHT)] : []));
  }

  return h("figure", { class: "card chart" }, h("figcaption", {}, h("h2", { text: title })), plot);
}
