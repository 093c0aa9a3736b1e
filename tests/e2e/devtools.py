"""Pages in Chromium that a test drives: the DevTools protocol over a pipe, a session for each tab.

What the page does wrong is kept: errors on its console, violations of its policy, exceptions.
"""

from __future__ import annotations

import base64
import json
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.browser import running

PATIENCE_S = 60.0
"""How long anything may take on a loaded machine."""

Json = dict[str, Any]


class Browser:
    """A browser, for many tabs.

    Args:
        to_browser, from_browser: the pipe's ends.

    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._rest = b""
        self._number = 0

    @contextmanager
    def tab(self) -> Iterator[Tab]:
        """Open a tab in a profile of its own, with which nobody has ever been anywhere."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        try:
            opened = self.call("Target.createTarget", url="about:blank", browserContextId=context)
            attached = self.call("Target.attachToTarget", targetId=opened["targetId"], flatten=True)
            yield Tab(self, attached["sessionId"])
        finally:
            self.call("Target.disposeBrowserContext", browserContextId=context)

    def call(self, method: str, tab: Tab | None = None, **parameters: object) -> Json:
        """Have the browser do something, or a tab of it; return what it answers."""
        self._number += 1
        message: Json = {"id": self._number, "method": method, "params": parameters}
        if tab is not None:
            message["sessionId"] = tab.session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while (answer := self.next(deadline)).get("id") != self._number:
            if tab is not None:
                tab.note(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: Json = answer["result"]
        return result

    def next(self, deadline: float) -> Json:
        """Return what the browser says next, of whatever tab."""
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], deadline - time.monotonic())
            if not ready:
                raise TimeoutError("the browser says nothing")
            data = os.read(self._from, 1 << 20)
            if not data:
                raise EOFError("the browser has ended")
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        told: Json = json.loads(message)
        return told


class Tab:
    """A tab.

    Args:
        browser: has it.
        session: its name to the browser.

    Attributes:
        faults: what the page did wrong, as far as the browser tells it.

    """

    def __init__(self, browser: Browser, session: str) -> None:
        self.session = session
        self._browser = browser
        self._is_loaded = self._is_held = False
        self.faults: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScrollbarsHidden", hidden=True)

    def call(self, method: str, **parameters: object) -> Json:
        """Have the browser do something with the tab; return what it answers."""
        return self._browser.call(method, self, **parameters)

    def go(self, url: str) -> None:
        """Open an address, and wait until the page is loaded."""
        self._is_loaded = False
        navigated = self.call("Page.navigate", url=url)
        deadline = time.monotonic() + PATIENCE_S
        while "loaderId" in navigated and not self._is_loaded:  # else it is the same document
            self.note(self._browser.next(deadline))

    @contextmanager
    def beginning(self, script: str) -> Iterator[None]:
        """Have a page that is opened run a script before all of its own."""
        added = self.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        try:
            yield
        finally:
            self.call("Page.removeScriptToEvaluateOnNewDocument", **added)

    def run(self, script: str) -> Any:  # noqa: ANN401 (JSON)
        """Return what an expression of JavaScript is; a promise is awaited."""
        done = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, condition: str, *, within: float = PATIENCE_S) -> Any:  # noqa: ANN401 (JSON)
        """Wait until an expression is true in the page, and return it."""
        deadline = time.monotonic() + within
        while True:
            # Short waits in the page: it may be reloaded meanwhile.
            found = self.run(
                "new Promise((done) => { const began = Date.now(); const look = () => {"
                f" const found = {condition};"
                " if (found || Date.now() - began > 500) done(found); else setTimeout(look, 20);"
                " }; look(); })"
            )
            if found:
                return found
            if time.monotonic() > deadline:
                shown = self.run("document.body.innerText")
                raise AssertionError(f"never so: {condition}; the page shows:\n{shown}")

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def click(self, selector: str) -> None:
        """Click an element, once it is there."""
        self.until(f"!!document.querySelector({json.dumps(selector)})")
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def fill(self, selector: str, text: str) -> None:
        """Put a text into a field, as somebody who types it does."""
        self.run(
            f"{{ const field = document.querySelector({json.dumps(selector)});"
            f" field.value = {json.dumps(text)};"
            " field.dispatchEvent(new Event('input', {bubbles: true})); }"
        )

    def press(self, key: str) -> None:
        """Press a key where the focus is."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """Move, press or release the mouse."""
        held = {"mouseMoved": int(self._is_held), "mousePressed": 1, "mouseReleased": 0}[kind]
        self._is_held = kind == "mousePressed" or (self._is_held and kind == "mouseMoved")
        button = "left" if kind != "mouseMoved" or held else "none"
        self.call(
            "Input.dispatchMouseEvent",
            type=kind, x=x, y=y, button=button, buttons=held, clickCount=int(kind != "mouseMoved"),
        )  # fmt: skip

    def wear(self, width: int, scheme: str) -> None:
        """Show the page on a screen of that width, to a person who prefers light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page."""
        # Two frames, so that what was resized is drawn.
        self.run(
            "new Promise((d) => requestAnimationFrame(() => requestAnimationFrame(() => d(true))))"
        )
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        taken = self.call(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(taken["data"]))

    def note(self, message: Json) -> None:
        """Take what the browser says, if it is of this tab."""
        if message.get("sessionId") != self.session:
            return
        told = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._is_loaded = True
            case "Runtime.exceptionThrown":
                self.faults.append(json.dumps(told["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if told["type"] in {"error", "warning", "assert"}:
                self.faults.append(json.dumps(told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] in {"error", "warning"}:
                entry = told["entry"]
                self.faults.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")


@contextmanager
def open_browser(chromium: str) -> Iterator[Browser]:
    """Have a browser."""
    theirs_in, to_browser = os.pipe()
    from_browser, theirs_out = os.pipe()
    theirs = [theirs_in, theirs_out]
    try:
        with running(chromium, (theirs_in, theirs_out)):
            while theirs:
                os.close(theirs.pop())
            yield Browser(to_browser, from_browser)
    finally:
        for each in (to_browser, from_browser, *theirs):
            os.close(each)
