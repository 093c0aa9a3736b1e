// Elements without markup: text stays text, whatever it is.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element. Properties: attributes by name, `on` + event for listeners, `text`. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** Return an SVG element. */
export function s(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return a table whose columns may be `{label, numeric, wide}`; cells are texts or elements. */
export function table(label, columns, rows) {
  const kind = (column) => [column.numeric && "number", column.wide && "wide"].filter(Boolean).join(" ");
  const heads = columns.map((column) =>
    h("th", { scope: "col", class: kind(column) || null, "aria-sort": column.sorted }, column.head ?? column.label));
  const body = rows.map((row) =>
    h("tr", {}, row.map((cell, at) => h("td", { class: kind(columns[at]) || null }, cell))));
  return h("table", { "aria-label": label }, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, body));
}

/** Ask before something that cannot be undone; resolves to whether it is wanted. */
export function confirmed(question, detail, action) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "question", onclose: () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    } });
    const answer = (value) => () => dialog.close(value);
    dialog.append(
      h("h2", { id: "question", text: question }),
      h("p", { text: detail }),
      h("div", { class: "buttons" },
        h("button", { type: "button", autofocus: true, text: "Cancel", onclick: answer("no") }),
        h("button", { type: "button", class: "danger", text: action, onclick: answer("yes") })),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Put a text into an element, where it differs from what is there. */
export function update(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
