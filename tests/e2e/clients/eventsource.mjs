// npm eventsource: node eventsource.mjs URL

import { EventSource } from "eventsource";

import { follow } from "./follow.mjs";
import { print } from "./print.mjs";

follow(new EventSource(process.argv[2]), print);
