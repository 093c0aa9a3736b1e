// Reports what a client sees: one object per event, and {closed: true} when it gave up for good.

const CLOSED = 2;

// Anything that has the interface of EventSource.
export function follow(source, report) {
  for (const type of ["message", "greeting", "broadcaster.gap", "broadcaster.end"]) {
    source.addEventListener(type, (event) => report({ id: event.lastEventId, type, data: event.data }));
  }
  source.addEventListener("error", () => {
    if (source.readyState === CLOSED) report({ closed: true });
  });
}

class Over extends Error {}

// @microsoft/fetch-event-source leaves to its user whether to come back. This user comes back from everything but a 204,
// as EventSource does.
export async function followFetch(fetchEventSource, url, report) {
  let lastEventId = "";
  const request = fetchEventSource(url, {
    openWhenHidden: true,
    onopen(response) {
      if (response.status === 204) throw new Over();
    },
    onmessage({ id, event, data }) {
      lastEventId = id || lastEventId;
      // It makes a message of an id without data, where the standard fires no event.
      if (data) report({ id: lastEventId, type: event || "message", data });
    },
    onclose() {
      throw new Error("the server closed the stream");
    },
    onerror(error) {
      if (error instanceof Over) throw error;
    },
  });
  await request.catch(() => report({ closed: true }));
}

// The daemon's own: what it says itself comes as an object.
export function followOwn(subscribe, url, options, report) {
  const events = subscribe(url, {
    ...options,
    onState: ({ state, why, status }) => state === "closed" && report({ closed: true, why, status }),
  });
  const take = ({ type, data, lastEventId }) =>
    report({ id: lastEventId, type, data: typeof data === "string" ? data : JSON.stringify(data) });
  for (const type of ["message", "greeting", "broadcaster.gap", "broadcaster.end"]) events.addEventListener(type, take);
  return events;
}
