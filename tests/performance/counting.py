"""What it costs to count a publish: all that the daemon does for that, and nothing else."""

from time import perf_counter, process_time

from broadcasterd.figures.counts import Counts, Format

TIMES = 200_000


def counting_us() -> float:
    """Return the µs of CPU that one publish takes to be counted, with its fan-out.

    A delivery takes none: a stream adds up its own bytes and events, which it had to know before,
    and they are summed up when somebody asks (``Subscribers.sent``).
    """
    counts = Counts()
    began_s = process_time()
    for _ in range(TIMES):
        began = perf_counter()  # api/routes.py
        body_at = perf_counter()  # api/publish.py
        batch_at = perf_counter()  # broadcast/session.py
        counts.events += 1
        counts.fan_out.record(perf_counter() - batch_at)
        counts.published.record(perf_counter() - body_at)
        by_status = counts.publishes[Format.TEXT]
        by_status[200] = by_status.get(200, 0) + 1
        assert began <= body_at
    return (process_time() - began_s) / TIMES * 1e6
