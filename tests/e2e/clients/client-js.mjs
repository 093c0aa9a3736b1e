// The daemon's own client, from its file: node client-js.mjs URL MODULE

import { followOwn } from "./follow.mjs";
import { print } from "./print.mjs";

const [url, file] = process.argv.slice(2);
// By its text: to Node, a file outside of a package of modules is none.
const text = (await import("node:fs")).readFileSync(file, "base64");
const { subscribe } = await import(`data:text/javascript;base64,${text}`);
followOwn(subscribe, url, {}, print);
