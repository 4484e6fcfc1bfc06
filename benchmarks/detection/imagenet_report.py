"""The page of photographs, its picture, and the README's part of it."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from benchmarks.common.results import read
from benchmarks.common.tables import interval, paragraph, table
from benchmarks.detection.imagenet import ALONE, COMPANION, CURVATURE

__all__ = ["fit_minutes", "page", "pictures", "relabelled_alone", "short"]

INTRODUCTION = """# Photographs: a network of ImageNet's size

EfficientNet-Lite0 (224 x 224 pixels, 1,000 classes), which nobody here trained, on
{n_images} photographs of ImageNet, one a class; it gets {accuracy} right. Of these, 150
went to `fit`, which learned from 100 and set its threshold with 50; 100 more set the
thresholds for 1 and 5 % here, together with those 50; the other {n_test} were attacked:
FGSM and PGD (10 steps) of torchattacks, and minimal L2 perturbations times 1.02 and 2.
Adversarial images are right before and wrong after. The companion is
EfficientNet-Lite1, as it comes, asked about the same pictures at 240 x 240 pixels.
Brackets hold 95 % intervals for the images at hand; one fit, one draw; no attack knew
of the detector: those that do were tried on smaller networks only ({{doc}}`companion`).

Made by `python -m benchmarks imagenet`; torch {torch}, one thread on a CPU.

![AUROC by attack, with and without a companion, and of curvature](images/imagenet.png)
"""
WAYS = (
    "way",
    "FE, clean",
    "ms an image",
    "`fit`, s",
    "memory, MiB",
    "clean flagged at 1 %",
    "at 5 %",
    "wrong ones flagged at 5 %",
)
READING = """
A forward pass takes {forward} ms here. FE: forward-equivalents, the companion's pass
({passes} of the network's) among them. *Memory*: the largest of the process that
fitted and judged, with all images; `fit` shared the two cores of the machine with other
work, which made it longer. *Wrong ones*: the {n_wrong} clean photographs that
the network gets wrong. Curvature is what 0.1 did, the largest average curvature of the
five nearest boundaries, on the first {n_curved} images of a set.
"""
CELLS = (
    "attack",
    "success",
    "L2 norm",
    "images",
    "AUROC",
    "detected at 1 %",
    "at 5 %",
    "noise as long, at 5 %",
    "relabelled",
    "FE",
)


def page() -> str:
    """Return the page."""
    found = read("imagenet")
    n = found["n"]
    parts = [
        INTRODUCTION.format(
            n_images=n["images"],
            accuracy=interval(found["accuracy"]),
            n_test=n["test"],
            torch=found["torch"],
        ),
        "\n" + table(WAYS, ways(found)) + "\n",
        READING.format(
            forward=found["ms"]["forward pass"],
            passes=found[COMPANION]["passes"],
            n_wrong=found[ALONE]["flagged_wrong"]["n"],
            n_curved=max(c["n"] for c in found[CURVATURE]["cells"].values()),
        ),
    ]
    for way, title in ((ALONE, "Without a companion"), (COMPANION, "With a companion")):
        rows = [
            cell(attack, found["success"][attack], of, n["test"])
            for attack, of in found[way]["cells"].items()
        ]
        said = "\n".join(f"> {warning}\n" for warning in found[way]["warnings"])
        test = "\n".join(found[way]["self_test"])
        parts.append(
            f"\n## {title}\n\n{table(CELLS, rows)}\n\nIts self-test says:\n\n"
            f"```text\n{test}\n```\n" + (f"\n{said}" if said else "")
        )
    return "".join(parts)


def pictures() -> dict[str, Figure]:
    """Return the picture of AUROC by attack."""
    return {"imagenet.png": draw(read("imagenet"))}


def ways(found: dict[str, Any]) -> list[list[str]]:
    """Return a row for each way."""
    rows = []
    for way in (ALONE, COMPANION, CURVATURE):
        of = found[way]
        row = [way, f"{of['cost_clean']:.1f}", f"{found['ms'][way]:,}"]
        row += [f"{of['fit_seconds']:,}", f"{of['MiB']:,}"]
        if "flagged_clean" in of:
            row += [interval(of["flagged_clean"][rate]) for rate in ("0.01", "0.05")]
            row += [interval(of["flagged_wrong"]["0.05"])]
        rows.append(row + [""] * (len(WAYS) - len(row)))
    return rows


def cell(
    attack: str, success: list[float], of: dict[str, Any], n_clean: int
) -> list[str]:
    """Return a row for an attack."""
    return [
        attack,
        f"{success[0]:.3f}",
        f"{of['norm']:.3g}",
        f"{n_clean} + {of['n']}",
        interval(of["auroc"]),
        interval(of["detected"]["0.01"]),
        interval(of["detected"]["0.05"]),
        interval(of["flagged_noise"]["0.05"]),
        interval(of["relabelled"]),
        f"{of['cost']:.1f}",
    ]


def short() -> str:
    """Return what the README says: how it was measured, and a table."""
    found = read("imagenet")
    n, with_it = found["n"], found[COMPANION]
    others = with_it["n_calibrated"]
    learned_from = n["fit"] - (others - n["calibration"])
    wrong = with_it["flagged_wrong"]
    text = f"""
        EfficientNet-Lite0 (224 x 224, 1,000 classes; a public network) on {n["images"]}
        photographs of ImageNet: learned from {learned_from}, threshold set by {others}
        others, judged by {n["test"]} more, with EfficientNet-Lite1, as it comes, as
        companion, and without; beside them 0.1's rule, the largest curvature of the
        five nearest boundaries. With the companion
        {with_it["flagged_clean"]["0.05"][0]:.3f} of the
        clean test photographs are flagged at a threshold for 5 %, and
        {wrong["0.05"][0]:.2f} of the {wrong["n"]} that the network gets wrong; no
        attack knew of the guard ([every figure with its interval](docs/imagenet.md),
        `python -m benchmarks imagenet`):
    """
    return paragraph(text) + "\n\n" + short_table(found)


def relabelled_alone() -> str:
    """Say how badly a weak attack is relabelled without a companion."""
    cell = read("imagenet")[ALONE]["cells"]["PGD 1/255"]
    return f"{cell['relabelled'][0]:.2f} right after PGD at 1/255"


def fit_minutes() -> str:
    """Say how long `fit` took, without a companion."""
    return f"{read('imagenet')[ALONE]['fit_seconds'] / 60:.0f} minutes"


def short_table(found: dict[str, Any]) -> str:
    """Return the README's table."""
    attacks, rows = list(found[ALONE]["cells"]), []
    for way in (ALONE, COMPANION, CURVATURE):
        of = [found[way]["cells"].get(attack) for attack in attacks]
        row = [
            f"{cell['auroc'][0]:.3f} ({cell['relabelled'][0]:.2f})" if cell else ""
            for cell in of
        ]
        cost = f"{found[way]['cost_clean']:.1f}"
        rows.append([way, *row, cost, f"{found['ms'][way]:,}"])
    return table(["AUROC (relabelled)", *attacks, "FE, clean", "ms"], rows)


def draw(found: dict[str, Any]) -> Figure:
    """Draw AUROC by attack: a row an attack, a point and an interval a way."""
    figure = Figure(figsize=(6.6, 3.4), layout="constrained", dpi=110)
    ax = figure.subplots()
    attacks = list(found[ALONE]["cells"])
    for number, way in enumerate((COMPANION, ALONE, CURVATURE)):
        cells = found[way]["cells"]
        rows = [place for place, attack in enumerate(attacks) if attack in cells]
        areas = [cells[attacks[row]]["auroc"] for row in rows]
        value, low, high = zip(*areas, strict=True)
        beside = [row + 0.18 * (number - 1) for row in rows]
        ax.hlines(beside, low, high, color=f"C{number}", lw=1.5)
        ax.plot(value, beside, "o", color=f"C{number}", label=way)
    ax.axvline(0.5, color="0.7", lw=0.8)
    ax.set(xlabel="AUROC against clean photographs", xlim=(None, 1.01))
    ax.set_yticks(range(len(attacks)), attacks)
    ax.invert_yaxis()
    ax.legend(frameon=False, loc="lower left")
    return figure
