"""The page of cost, precision and scale, and the README's parts of it."""

from __future__ import annotations

from statistics import mean
from typing import Any

from benchmarks.common.results import read
from benchmarks.common.tables import interval, paragraph, table

__all__ = ["page", "short_table", "speed"]

INTRODUCTION = """# What it costs

## Against other ways to the number

`python -m benchmarks cost`: the average curvature of every boundary around an image,
nine for ten classes, on the same images, network and machine, one thread each, every
way in a process of its own. **FE** are forward-equivalents an image: a forward pass
counts as one, a backward pass as two; for exact second derivatives, whose passes cannot
be told apart, floating-point operations over those of a forward pass. *Time* is over
that of a forward pass of one image at the best batch size, and over ours. *Memory* is
the peak above what the network and forward passes took. The AUROC is that of the
largest curvature, PGD (L-infinity, 16/255 for the LeNet on Fashion-MNIST, 2/255 for
ResNet-20 on CIFAR-10) against clean images, with a 95 % interval.

- *3 boundaries*: `n_boundaries=3, n_curved=2, n_directions=3`.
- *256 directions*: the reference, with `tol=1e-4`.
- *The report's five steps*: Goldman's formula along all pixel axes, step 0.1, at the
  image itself.
- *Double backward*: seven random tangents, exact second derivatives, at the image.
- *curvlinops*: its Hutchinson trace of the Hessian, seven products, at the image.
- *torch.func.hessian*: all second derivatives, then Goldman's formula, at the image.

Exact second derivatives of these ReLU networks are zero, so the last three, cheap or
not, tell nothing (AUROC 0.5). At the image itself, strong attacks such as PGD are told
apart as well as at the boundary, short ones are not.
The network of ImageNet's size is EfficientNet-Lite0, 224 x 224 pixels and 1,000
classes; where curvature is taken of three or five of its boundaries, the cost depends
neither on the number of pixels nor on that of the classes.

"""

MEASURED = """
All were timed on a machine that did nothing else; what takes less than ten seconds is
timed five times, and the best counts. A CPU's batches have at most 128 rows because of
malloc: with 256, glibc gave the memory of each batch back and took it again, which took
more time.
"""

FEW = """
## Three boundaries instead of all

`python -m benchmarks few-boundaries`: means over six LeNets, three on Fashion-MNIST and
three on MNIST, of 150 test images each and what PGD makes of them (16/255 and 50/255).
The cheap setting was chosen on development images of the same networks; since three
directions are few, it is drawn three times. In parentheses the worst and the best of
the networks.

"""

PRECISION = """
## Precision

`python -m benchmarks precision`: median error of the average curvature at boundary
points against double precision, over its median size, for steps h. Rounding grows with
1 / h^2: single precision is good from h = 0.01 on, on the vision transformer and the
ConvNet with GELU, whose boundaries are less curved, from 0.03 on, and
`CurvatureFeaturizer` warns below 0.0035. Half precision is not good enough at the steps
that matter, so autocast is switched off while the network is measured, and a network
with weights in half precision is warned of.

"""

SCALE = """
## Many images

`python -m benchmarks scale`. `curvdetect.storage.transform_in_shards` keeps features on
disk, `score_in_shards` scores, and both go on where they were interrupted; their peak
memory, above that before they began, on Fashion-MNIST images in a memory-mapped array:

"""

WORKERS = """
`curvdetect.integrations.dask.transform` on processes of one machine of two cores, one
thread each, default features:

"""

LEARNED = """
`curvdetect.integrations.dask.score_samples` of the learned guard with its defaults, in
the same way and in the same blocks without dask; beside it images a second of the
workers' own CPU time, which does not depend on what else the machine does:

"""

SIZING = """
To size a cluster: an image takes about FE times the time of a forward pass at the best
batch size (the first table says how far that holds), images are independent, and every
worker holds the network and one block of images. So N images of FE each, on W workers
that make P forward passes a second, take N x FE / (W x P) seconds: at the {speed:.0f}
images a second that each of two workers made, 10 workers take {minutes:.0f} minutes for
a million images.

*Dask's malloc* is what its workers have by default: `MALLOC_TRIM_THRESHOLD_=65536`,
with which glibc no longer adapts its other threshold, and maps and unmaps every tensor
of 128 KiB or more. *Ours* is 2^28, with `MALLOC_MMAP_THRESHOLD_` 2^25; the guide says
how to set it.
"""


def page() -> str:
    """Return the page."""
    scale = read("scale")
    workers = [
        [c["n_workers"] or "without dask", c["malloc"], c["images_per_second"]]
        for c in scale["features"]["workers"]
    ]
    two = next(c for c in scale["features"]["workers"] if c["n_workers"] == 2)
    speed = two["images_per_second"] / 2
    return "".join(
        [
            INTRODUCTION,
            short_table() + "\n" + MEASURED,
            FEW + few_table(read("few_boundaries")) + "\n",
            PRECISION + precision_table(read("precision")) + "\n",
            SCALE + memory_table(scale) + "\n",
            WORKERS + table(["workers", "malloc", "images a second"], workers) + "\n",
            LEARNED,
            learned_table(scale["learned"]["workers"]) + "\n",
            SIZING.format(speed=speed, minutes=1e6 / (10 * speed) / 60),
        ]
    )


def memory_table(scale: dict[str, Any]) -> str:
    """Return a row for each number of images."""
    what = {"features": "features", "learned": "scores of the learned guard"}
    rows = [
        [title, f"{cell['n_images']:,}", f"{cell['peak_mib']:.0f}"]
        for name, title in what.items()
        for cell in scale[name]["memory"]
    ]
    return table(["kept", "images", "peak memory, MiB"], rows)


def learned_table(cells: list[dict[str, Any]]) -> str:
    """Return a row for each number of workers."""
    rows = [
        [
            cell["n_workers"] or "without dask",
            cell["malloc"],
            cell["images_per_second"],
            cell["images_per_cpu_second"],
        ]
        for cell in cells
    ]
    head = ["workers", "malloc", "images a second", "images a second of their CPU time"]
    return table(head, rows)


def short_table() -> str:
    """Return the first table; ratios are to our first way of each network."""
    head = (
        "network",
        "way",
        "images",
        "FE",
        "time, forward passes",
        "time, ours",
        "memory, MiB",
        "AUROC, PGD",
    )
    rows, cells = [], read("cost")
    for cell in cells:
        ours = next(c for c in cells if c["network"] == cell["network"])
        rows.append(
            [
                cell["network"],
                cell["way"],
                cell["n_images"],
                f"{cell['fe']:,.0f}",
                f"{cell['in_forwards']:,.0f}",
                f"{cell['in_forwards'] / ours['in_forwards']:,.1f}",
                f"{cell['peak_mib']:,.0f}",
                interval(cell["auroc"]) if "auroc" in cell else "",
            ]
        )
    return table(head, rows)


def speed() -> str:
    """Say how many times as many images the learned guard decides as 0.1's default."""
    found = read("learned_speed")
    lenet, resnet = (
        f"{min(of):.0f} to {max(of):.0f} times"
        for of in (found[n]["times_as_many"] for n in ("fashion-mnist", "cifar10"))
    )
    text = f"""
        Beside the default of version 0.1, one threshold of curvature, in the same run:
        {lenet} as many clean images a second on the LeNet, {resnet} on the ResNet-20
        (`python -m benchmarks learned-speed`).
    """
    return paragraph(text)


def few_table(cells: list[dict[str, Any]]) -> str:
    """Return one table of means over the networks."""
    settings: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        settings.setdefault(cell["setting"], []).append(cell)
    rows = []
    for setting, found in settings.items():
        auroc = [cell["auroc"] for cell in found]
        rows.append(
            [
                setting,
                f"{mean(cell['fe'] for cell in found):,.1f}",
                f"{mean(auroc):.3f} ({min(auroc):.3f}-{max(auroc):.3f})",
                f"{mean(cell['relabelled'] for cell in found):.3f}",
            ]
        )
    return table(["setting", "FE", "AUROC, PGD (networks)", "relabelled"], rows)


def precision_table(cells: list[dict[str, Any]]) -> str:
    """Return a row for each network and step."""
    formats = ("float32", "bfloat16", "float16")
    rows = [
        [
            cell["dataset"],
            f"{cell['step']:g}",
            f"{cell['curvature']:.2f}",
            *(f"{cell[name]:.1e}" for name in formats),
        ]
        for cell in cells
    ]
    return table(["network of", "h", "median curvature", *formats], rows)
