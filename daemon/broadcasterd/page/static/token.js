// The token of this tab, and how to make one.

import { isOpen, token } from "./api.js";
import { h } from "./dom.js";

const COMMAND = "broadcasterd token --admin --subscribe '*' --publish '*' --ttl 28800";

export class Token {
  /** `onChange` is called when there is another token, or none. */
  constructor(onChange) {
    this.onChange = onChange;
    this.field = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false" });
    this.trouble = h("p", { class: "trouble", role: "alert", hidden: true });
    this.element = h("div", { class: "narrow" }, h("h1", { text: "Token" }), ...(isOpen ? open() : this.#asked()));
  }

  start() {
    this.field.focus();
  }

  stop() {}

  /** Say what was wrong with the token that was tried. */
  refuse(why) {
    this.trouble.hidden = !why;
    this.trouble.textContent = why;
  }

  #asked() {
    return [
      h("p", { text: "The daemon shows its figures to admins. The token is kept for this tab alone, until it is closed." }),
      this.trouble,
      h("form", { class: "card", onsubmit: (event) => this.#use(event) },
        h("label", { for: "token", text: "Token (a JWT; empty: the cookie of this browser)" }), this.field,
        h("div", { class: "buttons" },
          h("button", { class: "primary", text: "Use it" }),
          h("button", { type: "button", text: "Forget it", onclick: () => this.#forget() }))),
      h("section", { class: "card" },
        h("h2", { text: "How to make one" }),
        h("p", { text: "On the daemon's machine, as a user who may read its secret:" }),
        h("pre", {}, h("code", { text: COMMAND })),
        h("dl", { class: "facts" },
          h("dt", {}, h("code", { text: "--admin" })), h("dd", { text: "shows figures, sessions and subscribers, and ends a stream" }),
          h("dt", {}, h("code", { text: "--subscribe '*'" })), h("dd", { text: "shows the events of every session; a glob such as 'chat:*' limits that" }),
          h("dt", {}, h("code", { text: "--publish '*'" })), h("dd", { text: "publishes test events, and closes sessions" }),
          h("dt", {}, h("code", { text: "--ttl" })), h("dd", { text: "seconds until it expires: 28800 are a working day" })),
        h("p", { text: "Where a login service issues your tokens, it gives the same rights in the claim “broadcaster”." })),
    ];
  }

  #use(event) {
    event.preventDefault();
    const value = this.field.value.trim();
    this.field.value = "";
    this.refuse("");
    token.set(value);
    this.onChange();
  }

  #forget() {
    token.forget();
    this.onChange();
  }
}

function open() {
  return [h("p", { text: "This daemon asks nobody for a token (auth.mode is none): whoever reaches it may do anything." })];
}
