// The client of broadcasterd for pages, and for Node: an ES module that the daemon serves as /client.js.
//
//   import { publish, subscribe } from "https://events.example/client.js";

/**
 * @typedef {string | (() => string | Promise<string>)} Source
 *   A text, or a function that returns one.
 *
 * @typedef {object} State
 * @property {"open" | "waiting" | "closed"} state
 * @property {string} why - of "waiting", what happened; of "closed", "" or the refusal
 * @property {number} wait - milliseconds to the next attempt, of "waiting"
 * @property {number} status - of the refusal, of "closed"; else 0
 *
 * @typedef {object} SubscribeOptions
 * @property {Source} [token] - sent as a bearer token; a function is asked at first, and for another one
 *   when the daemon takes the last one no more
 * @property {() => string | Promise<string>} [ticket] - returns a ticket of this session; asked at each attempt,
 *   because a ticket opens one stream. Without token and ticket, cookies are sent.
 * @property {"fetch" | "EventSource"} [transport] - "EventSource" where there is a ticket and it exists, else "fetch"
 * @property {string} [start] - where to begin without an id: "start" (everything retained), "now", "last:N", a time
 * @property {string} [lastEventId] - begin after this event instead
 * @property {number} [retry] - milliseconds before another attempt, until the stream says otherwise: over "EventSource",
 *   which does not show that, always
 * @property {(state: State) => void} [onState] - told what becomes of the connection
 * @property {number} [stall] - milliseconds without a byte after which a stream is dead: four heartbeats, over "fetch"
 *
 * @typedef {object} PublishOptions
 * @property {Source} [token] - as above
 * @property {string} [event] - its name; without it, it is a plain message
 * @property {number} [ttl] - seconds that it is replayed
 * @property {number} [retry] - the reconnection time of listeners from now on, in milliseconds
 * @property {string} [idempotencyKey] - the same key again is not broadcast twice; one is made without it
 * @property {number} [retryFor] - milliseconds that it is sent again for, while it is not acknowledged
 *
 * @typedef {object} Receipt
 * @property {string} session
 * @property {number} accepted
 * @property {number} [duplicates]
 * @property {string} first_id
 * @property {string} last_id
 * @property {number} subscribers
 */

export const GAP = "broadcaster.gap";
export const END = "broadcaster.end";

const MIN_WAIT = 100; // milliseconds, as all that follow
const MAX_WAIT = 60_000;
const DEFAULT_RETRY = 3_000; // until the daemon's `retry:` says otherwise
const STALL = 60_000;
const RETRY_FOR = 60_000;
const FIRST_WAIT = 250;
const PASSING = new Set([408, 429]); // and what is 500 or more

/** The daemon refused; the message is for a person. */
export class RequestFailed extends Error {
  /**
   * @param {string} message
   * @param {number} status
   * @param {number} retryAfter - milliseconds
   */
  constructor(message, status, retryAfter) {
    super(message);
    this.name = "RequestFailed";
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** Whether another attempt may fare better. */
  get isPassing() {
    return this.status >= 500 || PASSING.has(this.status);
  }
}

/**
 * Follow a session, from its URL (…/v1/sessions/NAME/events), until it ends or `close` is called.
 *
 * @param {string | URL} url
 * @param {SubscribeOptions} [options]
 */
export function subscribe(url, options = {}) {
  return new Subscription(url, options);
}

/**
 * The events of a session, across reconnects, each once: `addEventListener` takes their names, "message" of those
 * without. `data` is their text; of `GAP` ({asked, oldest}) and `END` ({reason, reconnect}) it is an object.
 */
export class Subscription extends EventTarget {
  /** @type {string | null} */ #cursor;
  /** @type {EventSource | null} */ #source = null;
  #options;
  #url;
  #token;
  #names = new Set(["message", GAP, END]);
  #stop = new AbortController();
  #retry;
  #failures = 0; // in a row, without a stream between them
  #seesAll = true; // whether the next attempt has to see statuses and bare ids, as EventSource shows none

  /**
   * @param {string | URL} url
   * @param {SubscribeOptions} options
   */
  constructor(url, options) {
    super();
    this.#url = String(url);
    this.#options = options;
    this.#cursor = options.lastEventId ?? null;
    this.#retry = options.retry ?? DEFAULT_RETRY;
    this.#token = new Token(options.token);
    this.#seesAll = this.#cursor === null && (options.start ?? "start") !== "start";
    this.#run();
  }

  /** The id of the last event. */
  get lastEventId() {
    return this.#cursor;
  }

  /** Follow it no more. */
  close() {
    this.#stop.abort();
    this.#source?.close();
  }

  /**
   * @param {string} name
   * @param {...any} rest
   */
  addEventListener(name, ...rest) {
    // @ts-ignore: as they are
    super.addEventListener(name, ...rest);
    if (!this.#names.has(name)) this.#source?.addEventListener(name, this.#forward);
    this.#names.add(name);
  }

  async #run() {
    let isRenewed = false; // whether the token, or the ticket, was got for this very attempt
    while (!this.#stop.signal.aborted) {
      let why = "the stream ended";
      let asked = 0;
      try {
        if (await this.#attempt()) return this.#tell("closed");
        isRenewed = false;
      } catch (error) {
        if (this.#stop.signal.aborted) break;
        why = String(error?.message ?? error);
        if (error instanceof RequestFailed) {
          if (error.status === 401 && !isRenewed && (this.#token.isRenewable || this.#options.ticket)) {
            this.#token.forget();
            isRenewed = true;
            continue;
          }
          if (!error.isPassing) return this.#tell("closed", { why, status: error.status });
          asked = error.retryAfter;
        }
        isRenewed = false;
      }
      const wait = backoff(this.#retry, this.#failures++, asked);
      this.#tell("waiting", { why, wait });
      await pause(wait, this.#stop.signal);
    }
    this.#tell("closed");
  }

  /** Follow one stream to its end; return whether that is the last one. */
  async #attempt() {
    const { ticket, transport = ticket ? "EventSource" : "fetch" } = this.#options;
    const canSource = typeof EventSource === "function";
    if (transport === "fetch" || !canSource || this.#seesAll) return await this.#fetched();
    return await this.#sourced();
  }

  async #fetched() {
    const { ticket, stall = STALL } = this.#options;
    const query = ticket ? { ticket: await ticket() } : {};
    const headers = { Accept: "text/event-stream", ...(await this.#token.headers()) };
    const dead = new AbortController();
    const stop = () => dead.abort();
    this.#stop.signal.addEventListener("abort", stop);
    let timer = setTimeout(stop, stall);
    try {
      const response = await ask(this.#at(query), { headers, signal: dead.signal }, this.#isBare);
      if (response.status === 204) return true;
      this.#opened();
      const parser = new Parser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return false;
        clearTimeout(timer);
        timer = setTimeout(stop, stall);
        for (const block of parser.feed(value)) if (this.#take(block)) return true;
      }
    } catch (error) {
      if (dead.signal.aborted && !this.#stop.signal.aborted) throw new Error("nothing came for too long");
      throw error;
    } finally {
      clearTimeout(timer);
      this.#stop.signal.removeEventListener("abort", stop);
      dead.abort();
    }
  }

  async #sourced() {
    const { ticket, token } = this.#options;
    const query = ticket ? { ticket: await ticket() } : token ? { ticket: await this.#exchange() } : {};
    if (this.#stop.signal.aborted) return false;
    const source = new EventSource(this.#at(query), { withCredentials: this.#isBare });
    this.#source = source;
    for (const name of this.#names) source.addEventListener(name, this.#forward);
    try {
      return await new Promise((resolve, reject) => {
        let isOpen = false;
        source.onopen = () => {
          isOpen = true;
          this.#opened();
        };
        source.onerror = () => {
          if (!isOpen) this.#seesAll = true; // it was refused, and does not say why: the next one does
          reject(new Error(isOpen ? "the stream ended" : "the stream was refused"));
        };
        source.addEventListener("broadcaster.end", ({ data }) => {
          if (JSON.parse(data).reconnect === false) resolve(true);
        });
        this.#stop.signal.addEventListener("abort", () => resolve(false));
      });
    } finally {
      source.close(); // by itself it would come back with the same ticket
      this.#source = null;
    }
  }

  #forward = ({ type, data, lastEventId }) => {
    if (!this.#stop.signal.aborted) this.#take({ type, data, id: lastEventId || null, retry: null });
  };

  /** Exchange the token for a ticket. */
  async #exchange() {
    const session = decodeURIComponent(/\/sessions\/([^/?]+)\/events/.exec(this.#url)?.[1] ?? "");
    const response = await ask(this.#url.replace(/\/v1\/sessions\/.*$/, "/v1/tickets"), {
      method: "POST",
      headers: { "Content-Type": "application/json", ...(await this.#token.headers()) },
      body: JSON.stringify({ session }),
      signal: this.#stop.signal,
    });
    return (await response.json()).ticket;
  }

  /** Take a block of a stream; return whether it was the last one. */
  #take({ type, data, id, retry }) {
    if (retry !== null) this.#retry = retry;
    if (id !== null) this.#cursor = id;
    if (data === null) return false;
    const said = type === GAP || type === END ? JSON.parse(data) : data;
    if (type === GAP && said.oldest === null) this.#seesAll = true; // a bare id follows
    if (type === END && said.reason === "token_expired") this.#token.forget();
    this.dispatchEvent(new MessageEvent(type, { data: said, lastEventId: this.#cursor ?? "", origin: this.#origin }));
    return type === END && said.reconnect === false;
  }

  #opened() {
    this.#failures = 0;
    this.#seesAll = false;
    this.#tell("open");
  }

  #tell(state, { why = "", wait = 0, status = 0 } = {}) {
    this.#options.onState?.({ state, why, wait, status });
  }

  get #isBare() {
    return !this.#options.token && !this.#options.ticket;
  }

  get #origin() {
    return new URL(this.#url, globalThis.location?.href).origin;
  }

  #at(query) {
    const url = new URL(this.#url, globalThis.location?.href);
    const { start } = this.#options;
    const place = this.#cursor !== null ? { last_event_id: this.#cursor } : start ? { from: start } : {};
    for (const [name, value] of Object.entries({ ...place, ...query })) url.searchParams.set(name, value);
    return url.href;
  }
}

/**
 * Publish an event to a session, from its URL; resolves when the daemon has it.
 *
 * It is sent again while it is not acknowledged, for as long as `retryFor` says, and is broadcast once.
 *
 * @param {string | URL} url
 * @param {unknown} data - a text, or anything that JSON can say
 * @param {PublishOptions} [options]
 * @returns {Promise<Receipt>}
 * @throws {RequestFailed}
 */
export async function publish(url, data, options = {}) {
  const { event, ttl, retry, idempotencyKey = newKey(), retryFor = RETRY_FOR } = options;
  const token = new Token(options.token);
  const body = JSON.stringify({ data, event, ttl, retry, idempotency_key: idempotencyKey });
  const until = performance.now() + retryFor;
  let isRenewed = false;
  for (let failures = 0; ; failures++) {
    let asked = 0;
    let failed;
    try {
      const headers = { "Content-Type": "application/json", ...(await token.headers()) };
      const receipt = await (await ask(url, { method: "POST", headers, body }, !options.token)).json();
      if (failures === 0 || !receipt.duplicates) return receipt;
      return { ...receipt, accepted: receipt.accepted + receipt.duplicates, duplicates: undefined };
    } catch (error) {
      failed = error;
      if (error instanceof RequestFailed) {
        if (error.status === 401 && token.isRenewable && !isRenewed) {
          token.forget();
          isRenewed = true;
          continue;
        }
        if (!error.isPassing) throw error;
        asked = error.retryAfter;
      }
    }
    const wait = backoff(FIRST_WAIT, failures, asked);
    if (performance.now() + wait > until) throw failed;
    await pause(wait);
  }
}

/** The token of this moment, and where the next one comes from. */
class Token {
  #source;
  #token = null;

  constructor(source) {
    this.#source = source;
  }

  get isRenewable() {
    return typeof this.#source === "function";
  }

  forget() {
    this.#token = null;
  }

  async headers() {
    if (this.#source === undefined) return {};
    this.#token ??= this.isRenewable ? await this.#source() : this.#source;
    return { Authorization: `Bearer ${this.#token}` };
  }
}

/** Ask; return a response that is none of a refusal. */
async function ask(url, init, isBare = false) {
  const credentials = isBare ? "include" : "omit"; // a token and another one in a cookie would be two
  const response = await fetch(url, { cache: "no-store", credentials, ...init });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const why = problem.detail ?? problem.title ?? response.statusText;
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  throw new RequestFailed(`${response.status}: ${why}`, response.status, seconds * 1000);
}

/** A decoder of event streams (WHATWG HTML §9.2.6): text in, blocks out, of which `data` may be null. */
export class Parser {
  #rest = "";
  #block = new Block();

  *feed(text) {
    const all = this.#rest + text;
    // A CR at the end may be half a line break: it waits for what follows.
    const lines = all.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line) this.#block.add(line);
      else {
        yield this.#block.done();
        this.#block = new Block();
      }
    }
  }
}

class Block {
  #lines = [];
  #type = "message";
  #id = null;
  #retry = null;

  add(line) {
    const [, name, value] = /^([^:]*):? ?([^]*)$/.exec(line);
    if (name === "data") this.#lines.push(value);
    else if (name === "event") this.#type = value || "message";
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.#retry = Number(value);
  }

  done() {
    const data = this.#lines.length ? this.#lines.join("\n") : null;
    return { type: this.#type, id: this.#id, retry: this.#retry, data };
  }
}

/** Return how long to wait: what was asked for, longer after each failure in a row, and jittered. */
function backoff(first, failures, asked) {
  const least = Math.max(first, MIN_WAIT);
  const grown = least * 2 ** Math.min(failures, 16) * (1 + Math.random() / 2);
  return Math.max(Math.min(grown, MAX_WAIT), least, asked * (1 + Math.random() / 4));
}

/** Wait so many milliseconds, or until a signal. */
function pause(wait, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, wait);
    signal?.addEventListener("abort", done);
  });
}

/** Return a key that no other event has; `crypto.randomUUID` is for secure contexts alone. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
