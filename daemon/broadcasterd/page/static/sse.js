// Server-sent events by fetch: EventSource can send no Authorization header.

import { Parser } from "../client.js";

/** Yield the events of a stream of bytes; `onBytes` is told of each piece, which may have none. */
async function* events(stream, onBytes) {
  const parser = new Parser();
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    onBytes();
    yield* parser.feed(value);
  }
}

const LONGEST_WAIT_MS = 15_000;

/**
 * Follow a stream for as long as it is wanted, and come back whenever it breaks.
 *
 * `isLiveAtOnce`: it may be silent; else it is live with its first event. `stallMs`: a silence that
 * is as good as an end.
 * `onState` is told `{kind, why, since, retryAt}`: "connecting", "live", "lost" (it comes back),
 * "denied" (another token is needed) or "over" (it does not come back). Times are milliseconds.
 */
export function follow(url, { headers, onEvent, onState, isLiveAtOnce = false, stallMs = 0 }) {
  let stopped = false;
  let controller = null;
  let wake = () => {};
  let retryMs = 3000;
  let failures = 0;
  let since = null;

  async function once() {
    controller = new AbortController();
    let stall = null;
    const expectMore = () => {
      clearTimeout(stall);
      if (stallMs) stall = setTimeout(() => controller.abort(), stallMs);
    };
    let isLive = false;
    const live = () => {
      if (isLive) return;
      isLive = true;
      failures = 0;
      since = null;
      onState({ kind: "live" });
    };
    expectMore();
    try {
      const response = await fetch(url, {
        headers: { Accept: "text/event-stream", ...headers() },
        cache: "no-store",
        signal: controller.signal,
      });
      if (response.status === 204) return { kind: "over", why: "closed" };
      if (response.status >= 400) {
        const problem = await response.json().catch(() => ({}));
        const why = problem.detail ?? `status ${response.status}`;
        return { kind: response.status < 429 ? "denied" : "lost", why };
      }
      if (isLiveAtOnce) live();
      let why = "the connection ended";
      for await (const event of events(response.body, expectMore)) {
        if (event.retry !== null) retryMs = event.retry;
        if (event.data === null) continue;
        if (event.type === "broadcaster.end") {
          const end = JSON.parse(event.data);
          why = end.reason;
          if (end.reason === "token_expired") return { kind: "denied", why: "the token has expired" };
          if (!end.reconnect) return { kind: "over", why };
          continue;
        }
        live();
        try {
          onEvent(event);
        } catch (error) {
          reportError(error); // of the page: the stream is as good as before
        }
      }
      return { kind: "lost", why };
    } catch {
      return { kind: "lost", why: "the daemon does not answer" };
    } finally {
      clearTimeout(stall);
      controller.abort();
    }
  }

  async function run() {
    onState({ kind: "connecting" });
    while (!stopped) {
      const { kind, why } = await once();
      if (stopped) return;
      since ??= Date.now();
      if (kind !== "lost") {
        onState({ kind, why, since });
        return;
      }
      const wait = Math.min(retryMs * 2 ** failures, LONGEST_WAIT_MS) * (0.75 + Math.random() / 4);
      failures = Math.min(failures + 1, 5);
      onState({ kind, why, since, retryAt: Date.now() + wait });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        wake = () => (clearTimeout(timer), resolve());
      });
    }
  }

  const hurry = () => document.hidden || wake();
  const letGo = () => controller?.abort(); // a page that is kept for "Back" would hold a connection
  const listeners = [["online", hurry], ["visibilitychange", hurry], ["pageshow", hurry], ["pagehide", letGo]];
  for (const [name, act] of listeners) addEventListener(name, act);
  run();
  return {
    stop() {
      stopped = true;
      for (const [name, act] of listeners) removeEventListener(name, act);
      controller?.abort();
      wake();
    },
  };
}
