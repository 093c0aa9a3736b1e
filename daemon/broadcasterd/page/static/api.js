// Requests to the daemon, with the token of this tab.

const KEY = "broadcasterd.token";

/** Where the daemon is: beside this page, also below a path of a proxy. */
const base = new URL("./", location.href);
export const url = (path) => new URL(path, base).href;

/** Whether the daemon asks for no tokens. */
export const isOpen = document.documentElement.dataset.auth === "none";

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

export function headers() {
  const held = isOpen ? null : token.get();
  return held ? { Authorization: `Bearer ${held}` } : {};
}

/** Make a request; return `{ok, status, body, why}`. Nothing is thrown. */
export async function ask(method, path, body) {
  try {
    const response = await fetch(url(path), {
      method,
      headers: { Accept: "application/json", ...headers(), ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body),
      cache: "no-store",
    });
    const text = await response.text();
    const told = text ? JSON.parse(text) : null;
    return { ok: response.ok, status: response.status, body: told, why: response.ok ? "" : told?.detail ?? response.statusText };
  } catch {
    return { ok: false, status: 0, body: null, why: "the daemon does not answer" };
  }
}

export const sessionPath = (name, rest = "") => `v1/sessions/${encodeURIComponent(name)}${rest}`;
