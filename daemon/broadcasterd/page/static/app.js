// The page: what is shown by the part of the address after #, fed by one stream of figures.

import { headers, isOpen, token, url } from "./api.js";
import { update } from "./dom.js";
import { clock } from "./format.js";
import { Overview, VERDICTS } from "./overview.js";
import { Session } from "./session.js";
import { Sessions } from "./sessions.js";
import { follow } from "./sse.js";
import { Store } from "./store.js";
import { Token } from "./token.js";

const STALL_MS = 10_000; // a frame comes each second

const store = new Store();
const overview = new Overview(store);
const tokens = new Token(connect);
const main = document.querySelector("main");
const verdict = document.querySelector("#verdict");
const link = document.querySelector("#link");
const wait = document.querySelector("#wait");
const alerts = document.querySelector("#alerts");

// --- what is shown ---------------------------------------------------------------------------

let shown = null;

function page() {
  const [, name, ...rest] = location.hash.split("/");
  if (name === "sessions" && rest.join("/")) return new Session(decodeURIComponent(rest.join("/")));
  if (name === "sessions") return new Sessions();
  if (name === "token") return tokens;
  return overview;
}

function show() {
  shown?.stop?.();
  shown = page();
  main.replaceChildren(shown.element);
  for (const each of document.querySelectorAll("nav a")) {
    const isHere = each.hash === (location.hash.match(/^#\/[a-z]+/)?.[0] ?? "#/");
    if (isHere) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  shown.start?.();
  overview.draw();
  scrollTo(0, 0);
}

addEventListener("hashchange", () => {
  show();
  main.focus({ preventScroll: true });
});

// --- the stream ------------------------------------------------------------------------------

let following = null;
let state = { kind: "connecting" };

function connect() {
  following?.stop();
  if (!isOpen && token.get() === null) {
    tell({ kind: "denied", why: "" });
    return;
  }
  following = follow(url("v1/stats/events"), { headers, onEvent: take, onState: tell, stallMs: STALL_MS });
}

function take({ type, data }) {
  if (type === "history") {
    store.takeHistory(JSON.parse(data));
    overview.takeHistory();
  } else if (type === "stats") {
    store.takeFrame(JSON.parse(data));
    overview.takeFrame();
    head(store.latest.health);
    if (location.hash === "#/token") return;
  } else return;
  overview.draw();
}

function head({ status, alerts: firing = [] }) {
  verdict.className = `verdict ${status}`;
  update(verdict, `${VERDICTS[status]} ${status}`);
  alerts.hidden = !firing.length;
  update(alerts, `▲ ${firing.length === 1 ? "An alert fires" : "Alerts fire"}: ${firing.join(", ")}`);
}

function tell(told) {
  const before = state.kind;
  state = told;
  link.className = told.kind;
  const texts = {
    connecting: "connecting …",
    live: "● live",
    lost: `▲ Disconnected since ${clock((told.since ?? 0) / 1000)}: ${told.why}`,
    denied: told.why ? `✕ ${told.why}` : "a token is needed",
    over: `✕ The stream has ended: ${told.why}`,
  };
  update(link, texts[told.kind]);
  document.body.classList.toggle("stale", told.kind !== "live" && told.kind !== "connecting");
  document.title = told.kind === "live" ? "broadcasterd" : "▲ broadcasterd";
  if (told.kind !== "live" && told.kind !== "connecting") update(verdict, ""); // it is not known
  if (told.kind === "denied") {
    tokens.refuse(told.why);
    location.hash = "#/token";
  } else if (told.kind === "live" && before !== "live" && location.hash === "#/token") location.hash = "#/";
  tick();
}

function tick() {
  const seconds = state.retryAt ? Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000)) : 0;
  update(wait, state.kind === "lost" ? `trying again ${seconds ? `in ${seconds} s` : "now"}` : "");
  if (state.kind !== "live" && !document.hidden) overview.draw(); // time goes on, the figures do not
}

// --- light and dark --------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];
const theme = document.querySelector("#theme");

function wear(name) {
  document.documentElement.dataset.theme = name;
  update(theme, { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" }[name]);
  theme.setAttribute("aria-label", `Colours: ${name}`);
}

theme.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  localStorage.setItem("broadcasterd.theme", next);
  wear(next);
});

// ---------------------------------------------------------------------------------------------

document.querySelector("noscript")?.remove();
wear(localStorage.getItem("broadcasterd.theme") ?? "auto");
if (isOpen) document.querySelector('nav a[href="#/token"]').parentElement.hidden = true;
setInterval(tick, 1000);
show();
connect();
