"""`systemctl reload`: settings change, and nobody is disconnected."""

from __future__ import annotations

from tests.support.container import until
from tests.support.service import Service


def reload(service: Service, *, taken: bool = True) -> None:
    """Reload, and wait until the daemon has said what became of it."""
    record = "configuration reloaded" if taken else "reload refused"
    done = service.container.run("systemctl", "reload", service.unit, check=False)

    assert (done.returncode == 0) is taken, done.stderr
    until(lambda: any(message.startswith(record) for message in service.messages()))


def test_settings_change_and_streams_go_on(serving: Service) -> None:
    pid = serving.pid
    with serving.listening("s") as listener:
        serving.publish("s", "before")
        serving.configure(
            sessions={"max_subscribers_per_session": 1},
            server={"max_body_bytes": 1000},
            memory={"warning_mb": 150},
            log={"level": "warning"},
        )
        serving.container.run("systemctl", "reload", serving.unit)  # too quietly to be heard of
        until(lambda: serving.get("/health").json()["memory"]["warning_mb"] == 150)
        serving.publish("s", "after")

        assert [listener.until(data).data for data in ("before", "after")] == ["before", "after"]
        assert 413 == serving.post("s", "x" * 2000).status_code
        assert 503 == serving.get("/v1/sessions/s/events?overload=status").status_code
    assert pid == serving.pid
    assert "active" == serving.show("ActiveState")
    assert "0" == serving.show("NRestarts")


def test_the_record_says_what_has_changed_and_what_has_to_wait(serving: Service) -> None:
    serving.configure(sessions={"max_sessions": 7}, log={"format": "json"})
    reload(serving)
    [record] = serving.journal("MESSAGE_ID=011cf163a8f14615b1ed8354db9da336")

    assert ("sessions.max_sessions", "log.format") == (record["CHANGED"], record["NEEDS_RESTART"])
    assert "4" == record["PRIORITY"], "something has to wait: that is a warning"


def test_a_broken_file_is_refused_and_the_old_one_stays(serving: Service) -> None:
    with serving.listening("s") as listener:
        serving.write_configuration("[auth]\nmode = 'none'\n[sessions]\nmax_sessions = 'many'\n")
        reload(serving, taken=False)
        serving.publish("s", "still here")

        assert "still here" == listener.until("still here").data
    [record] = serving.journal("MESSAGE_ID=3df7a52f33a74c97a37f49b63676b3ac")

    assert "3" == record["PRIORITY"]
    assert 'sessions.max_sessions = "many"' in record["WHY"]
    serving.until_status("the last reload was refused: sessions.max_sessions")

    serving.configure()
    reload(serving)
    until(lambda: "refused" not in serving.show("StatusText"))
