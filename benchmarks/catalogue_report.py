"""The table of `benchmarks/README.md`, and the commands of `docs/results.md`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.catalogue import MEASUREMENTS, ROOT, Measurement
from benchmarks.common.tables import paragraph, table

__all__ = ["commands", "figures"]

#: What each page asks, in the order of the page of results.
QUESTIONS = {
    "detection": "How well does it detect, after which attacks, beside "
    "other packages' detectors?",
    "adaptive": "What does evasion cost an attacker who knows the threshold of "
    "curvature?",
    "learned": "What does the learned guard reach, on networks of ours and of other "
    "people, on attacks that it did not make?",
    "companion": "What does a second network add, for attackers who know it, and what "
    "do votes certify?",
    "imagenet": "Does it work on photographs, with 1,000 classes, and at what price?",
    "bounds": "How well does it do on networks of other people, and what does it "
    "change to keep probes within the bounds?",
    "cost": "What does it cost, beside other ways to the same number? In which "
    "precision, and for how many images?",
    "guide/serve": "How soon does a watch over a stream raise an alarm, what does a "
    "service answer under load, and does an exported guard say what the guard says?",
}


def commands() -> str:
    """Return what each page of results asks, and the commands that make it."""
    parts = [
        paragraph(f"**{{doc}}`{page}`**. {question}") + "\n\n" + blocks(of_page(page))
        for page, question in QUESTIONS.items()
    ]
    parts.append(
        paragraph(
            "**{doc}`Fashion-MNIST <reproduction/fashion-mnist/README>` and "
            "{doc}`MNIST <reproduction/mnist/README>`**. Does the experiment that the "
            "method comes from give what was reported?"
        )
        + "\n\n"
        + blocks(of_page("reproduction"))
    )
    parts.append(
        "**This page, and the README's table of three networks a data set.**\n\n"
        + blocks(of_page("results"))
    )
    return "\n\n".join(parts)


def of_page(page: str) -> list[Measurement]:
    return [each for each in MEASUREMENTS if each.page == page]


def blocks(measurements: Iterable[Measurement]) -> str:
    """Return a block of commands, without repeating one."""
    lines = [line for each in measurements for line in each.lines()]
    text = "\n".join(wrapped(line) for line in dict.fromkeys(lines))
    return f"```bash\n{text}\n```"


def wrapped(command: str, width: int = 88) -> str:
    """Return a command in lines that a shell joins."""
    lines, line = [], ""
    for word in re.findall(r'(?:[^ "]|"[^"]*")+', command):
        if line and len(line) + len(word) + 3 > width:
            lines.append(line + " \\")
            line = "   "
        line += (" " if line else "") + word
    return "\n".join([*lines, line])


def figures() -> str:
    """Return the table of all measurements, with links from `benchmarks/`."""
    rows = []
    for each in MEASUREMENTS:
        name = each.name + (f". *{each.note}*" if each.note else "")
        files = [path.relative_to(ROOT).as_posix() for path in each.files()]
        shown = [f"[{link}](../{link})" for link in pages_of(each)]
        shown += [f"README, *{each.readme}*"] if each.readme else []
        rows.append(
            [
                name,
                "<br>".join(f"`{line}`" for line in each.lines()),
                each.time,
                "<br>".join(f"[{Path(file).name}](../{file})" for file in files),
                "<br>".join(shown),
            ]
        )
    head = ("figure or table", "commands", "time", "results", "shown in")
    return table(head, rows)


def pages_of(measurement: Measurement) -> list[str]:
    """Return the pages that show a measurement."""
    if measurement.page != "reproduction":
        return [f"docs/{measurement.page}.md"]
    return [
        f"docs/reproduction/{name}/README.md" for name in ("fashion-mnist", "mnist")
    ]
