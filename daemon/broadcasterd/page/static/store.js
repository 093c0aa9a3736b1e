// The points of the last hour: those that the daemon kept, and those that came since.

const KEPT_S = 3600;

export class Store {
  constructor() {
    this.points = [];
    this.marks = []; // restarts that were seen: {time, label}
    this.latest = null; // the last frame
    this.breakerStates = [];
    this.quality = [];
    this.everyS = 5;
    this.fields = new Map();
    this.startedAt = null;
  }

  /** Return where a field is in a point. */
  index(field) {
    return this.fields.get(field) ?? 0;
  }

  /** Return the figure of a field now; 0 before the first point. */
  now(field) {
    return this.points.at(-1)?.[this.index(field)] ?? 0;
  }

  /** Take what the daemon kept. Where there are points of ours, these are finer. */
  takeHistory(history) {
    const { fields, points, every_s: every, breaker_states: states, quality } = history;
    if (fields.join() !== [...this.fields.keys()].join()) this.points = []; // another version's
    this.fields = new Map(fields.map((name, at) => [name, at]));
    this.breakerStates = states;
    this.quality = quality;
    this.#noteStart(history.started_at);
    this.everyS = every;
    const ours = new Set(this.points.map(([time]) => Math.floor(time / every)));
    const missing = points.filter(([time]) => !ours.has(Math.floor(time / every)));
    this.points = [...this.points, ...missing].sort((a, b) => a[0] - b[0]);
  }

  /** Note when the daemon was started: another time is a restart. */
  #noteStart(time) {
    if (this.startedAt !== null && time !== this.startedAt) this.marks.push({ time, label: "restart" });
    this.startedAt = time;
  }

  takeFrame(frame) {
    this.latest = frame;
    this.points.push(frame.point);
    const oldest = frame.point[0] - KEPT_S;
    const first = this.points.findIndex(([time]) => time >= oldest);
    if (first > 60) this.points.splice(0, first);
    this.marks = this.marks.filter(({ time }) => time >= oldest);
  }

  between(from, to) {
    return this.points.filter(([time]) => time >= from && time <= to);
  }
}
