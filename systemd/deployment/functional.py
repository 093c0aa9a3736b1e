"""The checks beyond the smoke test: the promises of docs/http.md, each asked for once."""

from __future__ import annotations

from deployment.http import Client
from deployment.smoke import Check, expect

UNKNOWN_ID = "00000000-1"


def a_client_resumes_where_it_was(client: Client, session: str) -> str:
    """Hang up after the first event, and come back with its id."""
    _publish(client, session, "one", "two", "three")
    with client.listen(f"{session}/events") as stream:
        first = stream.event()
    with client.listen(f"{session}/events", last_event_id=first.id) as stream:
        rest = [stream.event().data for _ in range(2)]
    expect(["one", "two", "three"], [first.data, *rest], "events")
    return "a client resumes where it was"


def what_is_missing_is_told(client: Client, session: str) -> str:
    """Ask for what comes after an event that never was."""
    _publish(client, session, "one")
    with client.listen(f"{session}/events", last_event_id=UNKNOWN_ID) as stream:
        came = [stream.event(), stream.event()]
    expect(["broadcaster.gap", "message"], [event.type for event in came], "events")
    return "what is missing is told of"


def a_retry_is_no_second_event(client: Client, session: str) -> str:
    """Publish twice with the same key."""
    event = {"data": 1, "idempotency_key": "key"}
    first, again = (client.ask("POST", f"{session}/events", event).document for _ in range(2))
    expect((1, 0, 1), (first["accepted"], again["accepted"], again["duplicates"]), "retry")
    return "a retry is no second event"


def there_are_pages(client: Client, session: str) -> str:
    """Read the log without streaming."""
    _publish(client, session, "one", {"two": 2})
    page = client.ask("GET", f"{session}/events", headers={"Accept": "application/json"})
    expect(["one", '{"two":2}'], [event["data"] for event in page.document["events"]], "page")
    return "the log can be read in pages"


def a_ticket_opens_one_stream(client: Client, session: str) -> str:
    """Exchange the token for a ticket, and use it twice."""
    name = session.rpartition("/")[2]
    ticket = client.ask("POST", "/v1/tickets", {"session": name}).document["ticket"]
    stranger = Client(client.url, None)
    found = []
    for _ in range(2):
        with stranger.listen(f"{session}/events?ticket={ticket}") as stream:
            found.append(stream.status)
    expect([200, 401 if client.token else 200], found, "the ticket's streams")
    return "a ticket opens one stream"


def a_token_allows_what_it_names(client: Client, _: str) -> str:
    """Ask for what only an administrator may see."""
    if client.token is None:
        return "nobody needs a token"
    expect(403, client.ask("GET", "/v1/sessions").status, "the list of sessions")
    return "a token allows what it names, and nothing else"


def a_closed_session_stays_closed(client: Client, session: str) -> str:
    """Come back to a session that was closed: an EventSource is told to stop."""
    _publish(client, session, "one")
    client.ask("DELETE", session)
    with client.listen(f"{session}/events") as stream:
        expect(204, stream.status, "listening to a closed session")
    return "a closed session stays closed"


CHECKS: list[Check] = [
    a_client_resumes_where_it_was,
    what_is_missing_is_told,
    a_retry_is_no_second_event,
    there_are_pages,
    a_ticket_opens_one_stream,
    a_token_allows_what_it_names,
    a_closed_session_stays_closed,
]


def _publish(client: Client, session: str, *data: object) -> None:
    answer = client.ask("POST", f"{session}/events", [{"data": each} for each in data])
    expect(200, answer.status, "publishing")
