// npm launchdarkly-eventsource: node launchdarkly-eventsource.mjs URL

import launchdarkly from "launchdarkly-eventsource";

import { follow } from "./follow.mjs";
import { print } from "./print.mjs";

const source = new launchdarkly.EventSource(process.argv[2]);

// It calls the end of every connection "end" too; that one has no data.
follow(source, (seen) => seen.data === undefined || print(seen));
source.addEventListener("closed", () => print({ closed: true }));
