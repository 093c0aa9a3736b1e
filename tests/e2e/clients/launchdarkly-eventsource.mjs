// npm launchdarkly-eventsource: node launchdarkly-eventsource.mjs URL

import launchdarkly from "launchdarkly-eventsource";

import { follow } from "./follow.mjs";
import { print } from "./print.mjs";

const source = new launchdarkly.EventSource(process.argv[2]);

follow(source, print);
source.addEventListener("closed", () => print({ closed: true }));
