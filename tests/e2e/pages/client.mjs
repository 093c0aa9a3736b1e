// Runs the client that the page's query names on the stream that it names, and posts what it sees to the test.

import { follow, followFetch, followOwn } from "/clients/follow.mjs";

const MODULES = "/clients/node_modules";
const query = new URLSearchParams(location.search);
const stream = query.get("stream");

const unsent = [];
let sending = false;

async function report(seen) {
  unsent.push(seen);
  if (sending) return;
  sending = true;
  while (unsent.length) await fetch("/report", { method: "POST", body: JSON.stringify(unsent.splice(0)) });
  sending = false;
}

const own = (transport) => async () => {
  const { subscribe } = await import("/client.js");
  followOwn(subscribe, stream, { transport, retry: 50 }, report);
};

const clients = {
  "client.js-fetch": own("fetch"),
  "client.js-EventSource": own("EventSource"),
  // As a page of an application loads it: from the daemon, which is of another origin.
  async "client.js with tickets"() {
    const { subscribe } = await import(new URL("/client.js", stream).href);
    followOwn(subscribe, stream, { token: query.get("token"), transport: "EventSource", retry: 50 }, report);
  },
  EventSource() {
    follow(new EventSource(stream), report);
  },
  async "event-source-polyfill"() {
    await import(`${MODULES}/event-source-polyfill/src/eventsource.js`);
    follow(new EventSourcePolyfill(stream), report);
  },
  async "fetch-event-source"() {
    const { fetchEventSource } = await import(`${MODULES}/@microsoft/fetch-event-source/lib/esm/index.js`);
    await followFetch(fetchEventSource, stream, report);
  },
  // No client, but what a page does where a stream cannot pass: ask for the next events, and wait for them.
  async "long poll"() {
    const headers = { Accept: "application/json" };
    let cursor = "";
    for (;;) {
      const answer = await fetch(`${stream}?wait=10&last_event_id=${cursor}`, { headers });
      if (answer.status === 204) break;
      const page = await answer.json();
      for (const { id, event, data } of page.events) report({ id, type: event, data });
      cursor = page.next;
    }
    report({ closed: true });
  },
};

window.addEventListener("error", ({ message }) => report({ error: message }));
window.addEventListener("unhandledrejection", ({ reason }) => report({ error: String(reason) }));
await clients[query.get("client")]();
