"""The table of how soon the monitor of a stream raises an alarm."""

from __future__ import annotations

from typing import Any

from benchmarks.common.results import read
from benchmarks.common.tables import interval, table

__all__ = ["alarms"]

#: By the names of the streams in the file, how they are called in the table.
STREAMS = {
    "100% pgd after 0 clean, calibration of 1000": "all PGD",
    "10% pgd after 0 clean, calibration of 1000": "10 % PGD",
    "10% pgd after 500 clean, calibration of 1000": "the same after 500 clean",
    "10% pgd after 0 clean, calibration of 300": "the same, calibration of 300",
    "5% pgd after 0 clean, calibration of 1000": "5 % PGD",
    "2% pgd after 0 clean, calibration of 1000": "2 % PGD",
    "100% darker after 0 clean, calibration of 1000": "all half as bright",
    "100% darker after 500 clean, calibration of 1000": "the same after 500 clean",
    "100% blurred more after 0 clean, calibration of 1000": "blurred, 2 pixels",
    "100% blurred after 0 clean, calibration of 1000": "blurred, 1 pixel",
    "100% noisy after 0 clean, calibration of 1000": "noise of 0.1",
}


def alarms() -> str:
    """Return a row for each stream: alarms in time, and ever, and how long it took."""
    known = read("monitor")
    streams = known["test"]["streams"]
    clean = streams["0% clean after 0 clean, calibration of 1000"]
    rows = [["clean, up to 1,000 images", "", interval(clean["ever"]), ""]]
    for name, kind in (("continuous", "without ties"), ("five values", "with ties")):
        ever = interval(known["false_alarms"][name]["share"])
        rows.append([f"random scores {kind}, 10,000 images", "", ever, ""])
    rows += [
        [title, interval(of["within"]), interval(of["ever"]), waited(of["images"])]
        for title, of in ((title, streams[name]) for name, title in STREAMS.items())
    ]
    head = ["stream", f"alarm within {known['within']} images of the change", "ever"]
    return table([*head, "images until then, in half and in 95 % of orders"], rows)


def waited(images: list[Any]) -> str:
    """Return two quantiles; what was never reached is left out."""
    return ", ".join("-" if n is None else f"{n:.0f}" for n in images)
