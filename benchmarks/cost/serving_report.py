"""What the guide says of a service under load."""

from __future__ import annotations

from typing import Any

from benchmarks.common.results import read
from benchmarks.common.tables import paragraph, table

__all__ = ["under_load"]


def under_load() -> str:
    """Say what was asked and answered, in figures."""
    found = read("serving")
    return "\n\n".join(
        [
            paragraph(_asked(found)),
            _pictures(found["pictures"]),
            paragraph(_shares(found)),
            paragraph(_answers(found)),
        ]
    )


def _asked(found: dict[str, Any]) -> str:
    return (
        f"**Under load** (`python -m benchmarks serving`; {found['cpus']} processors "
        f"that others were using, load {found['load_average']:.0f}; shipped LeNet, the "
        f"default guard, clean images, {100 * found['broken']:.0f} % of the bodies "
        f"broken): {found['clients']} clients that sent a picture at a time, for "
        f"{found['seconds']:.0f} seconds, and the same service with the bare network "
        "in the guard's place, before and after:"
    )


def _pictures(loads: dict[str, Any]) -> str:
    rows = [
        [
            what,
            f"{sum(of['requests_by_status'].values()):,}",
            f"{of['images_per_second']:.1f}",
            f"{of['latency_p50_seconds']:.2f}",
            f"{of['latency_p99_seconds']:.2f}",
        ]
        for what, of in loads.items()
    ]
    head = ["served", "requests", "images a second", "p50, seconds", "p99, seconds"]
    return table(head, rows)


def _shares(found: dict[str, Any]) -> str:
    shares = found["shares"]
    called, served = (
        shares[f"guard of network, {how}"] for how in ("called", "served")
    )
    loop = shares["served of called"]
    return (
        "In turns, three times, with batches of 32 images: the guard called in a loop "
        f"took {_range(called)} of the images a second that the bare network called in "
        f"a loop took (asked for: at least {called['asked']:.2f}), and, both served to "
        f"16 clients, {_range(served)}. Served, the guard took {_range(loop)} times as "
        f"many as in the loop (asked for: at least {loop['asked']:.1f}): the service "
        "puts several requests into a batch, and, with its clients, had two processes "
        "among those of others where the loop had one. A request takes several times "
        "what this small network takes for an image, so send several images at once."
    )


def _range(share: dict[str, Any]) -> str:
    return f"{min(share['each']):.2f} to {max(share['each']):.2f}"


def _answers(found: dict[str, Any]) -> str:
    ending, of = found["sigterm"], found["pictures"]["guard"]
    answered = ending["images_answered_by_then"]
    arrays = found["arrays, 16 clients"]
    loads = [*found["pictures"].values(), *arrays["guard"], *arrays["network"], ending]
    wrong = sum(load["wrong_answers"] for load in loads)
    memory = of["memory"]
    slope, low, high = memory["mib_per_1000_requests"]
    return (
        f"{wrong} answers were wrong. At SIGTERM {ending['images_assessed']:,} images "
        f"had been assessed, and {answered:,} answered. Under the load of pictures "
        f"memory was {memory['mib_settled']:.0f} MiB after a quarter of it and "
        f"{memory['mib_at_the_end']:.0f} MiB at the end: {slope:+.1f} MiB for each "
        f"1,000 requests (95 % interval {low:+.1f} to {high:+.1f}), in the first "
        "minute of the process."
    )
