// npm @microsoft/fetch-event-source: node fetch-event-source.mjs URL
//
// It is made for browsers, so it gets the two globals that it asks for.

import { createRequire } from "node:module";

import { followFetch } from "./follow.mjs";
import { print } from "./print.mjs";

globalThis.window = globalThis;
globalThis.document = new EventTarget();

const { fetchEventSource } = createRequire(import.meta.url)("@microsoft/fetch-event-source");

await followFetch(fetchEventSource, process.argv[2], print);
