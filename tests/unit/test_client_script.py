"""The parser of event streams of ``/client.js``, in Node.js, against the one that tests trust."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from broadcasterd.page.assets import CLIENT
from tests.support.sse import parse
from tests.support.tools import require

STREAM = (
    "\ufeffretry: 50\n: a comment\ndata: one\nid: 7-1\n\n"
    "event: greeting\r\ndata: two\r\ndata:  lines\r\n\r\n"
    "data\rdata: ü€😀\rid: 7-\0\rid: 7-2\r\rid: 7-3\n\n"
    "event:\ndata: {}\nunknown: field\nretry: soon\n\n"
    "data: never ended\n"
)

SCRIPT = f"""
import {{ Parser }} from {json.dumps(CLIENT.as_uri())};
const bytes = new TextEncoder().encode(JSON.parse(process.argv[1]));
const seen = [];
for (let cut = 0; cut <= bytes.length; cut++) {{
  for (const size of cut ? [cut] : [1, 2, 3]) {{
    const pieces = cut ? [bytes.slice(0, cut), bytes.slice(cut)] : [];
    for (let at = 0; !cut && at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size));
    const events = [];
    const parser = new Parser();
    const texts = ReadableStream.from(pieces).pipeThrough(new TextDecoderStream());
    for await (const text of texts) events.push(...parser.feed(text));
    seen.push(events);
  }}
}}
console.log(JSON.stringify(seen));
"""


def test_events_are_the_same_however_their_bytes_are_cut() -> None:
    command = [require("node"), "--input-type=module", "-e", SCRIPT, json.dumps(STREAM)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seen: list[list[dict[str, Any]]] = json.loads(done.stdout)
    lines = STREAM.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]

    expected = [(event.type, event.data) for event in parse(lines)]
    told = {
        tuple((each["type"], each["data"]) for each in events if each["data"] is not None)
        for events in seen
    }
    assert {tuple(expected)} == told
    assert {50} == {events[0]["retry"] for events in seen}
