r"""The report's observations on the curvature of boundaries, in numbers and pictures.

    python -m benchmarks curvature-profile fashion-mnist

On 40 test images that the network gets right: all principal curvatures of all nine
boundaries, the average curvature at the image and at the boundary, the loss curvature
profile; and, from 40 other images, the shared subspace of curved directions. For the
network as it is, at finite steps, and for the same network with softplus in place of
ReLU and average in place of maximum pooling, by exact derivatives; one with GELU is
the same either way.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch

from benchmarks.common.networks import SMALL, load_images
from benchmarks.common.results import significant
from benchmarks.geometry.pictured import keep, pictured_parser
from benchmarks.geometry.smoothed import smoothed
from curvdetect import TorchModel
from curvdetect.geometry import (
    curvature_in_subspace,
    hessian_eigenvalues,
    label_changes,
    mean_curvature,
    normal_curvature,
    principal_curvatures,
    profile_statistics,
    random_subspace,
    shared_subspace,
)
from curvdetect.network import find_nearest_boundaries
from curvdetect.plotting import BoundarySectionDisplay, CurvatureProfileDisplay
from curvdetect.study.networks import trained_model

N_IMAGES = 40
REPORT_STEP = 0.1
BATCH_SIZE = 512
#: Dimensions of the shared subspace that are looked at.
N_SHARED = 50


def parser() -> argparse.ArgumentParser:
    return pictured_parser("curvature_profile", __doc__, SMALL)


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    keep("curvature_profile", args, *measured(args))


def measured(args: argparse.Namespace) -> tuple[dict, plt.Figure]:
    """Return all figures of a network, and their picture."""
    X, y = load_images(args.network, args.data_dir)
    started = time.perf_counter()
    relu = trained_model(args.network, weights=args.weights)
    smooth = TorchModel(smoothed(relu.module), input_shape=(1, 28, 28))
    right = np.flatnonzero(relu.predict(X[:200]) == y[:200])
    images, others = X[right[:N_IMAGES]], X[right[N_IMAGES : 2 * N_IMAGES]]
    distance = find_nearest_boundaries(relu, images).distances.median()
    steps = [REPORT_STEP, round(float(distance), 3)]
    results = {
        "dataset": args.network,
        "n_images": len(images),
        "accuracy": float(np.mean(relu.predict(X) == y)),
        "accuracy_softplus": float(np.mean(smooth.predict(X) == y)),
        "softplus_agrees": float(np.mean(smooth.predict(X) == relu.predict(X))),
        "median_distance": steps[1],
        "average": {str(h): average_curvatures(relu, images, h) for h in steps},
    }
    fig, axes = plt.subplots(1, 4, figsize=(17, 4), constrained_layout=True)
    BoundarySectionDisplay.from_model(relu, images[0], step=steps[1], ax=axes[0])
    axes[0].set_title("section through the nearest boundary")
    panels = zip(axes[1:3], ("relu", "softplus"), strict=True)
    for ax, name in panels:
        model, settings = (
            (relu, {"method": "gradient", "step": REPORT_STEP})
            if name == "relu"
            else (smooth, {"method": "autodiff"})
        )
        results[name] = profile(model, images, settings, ax)
        results[name]["loss"] = loss_profile(model, images, settings)
        results[name]["shared"] = shared(model, others, images, settings, steps)
        ax.set_title(
            "as it is, h = 0.1" if name == "relu" else "smooth, exact derivatives"
        )
    draw_noise(results["relu"]["shared"]["noise"], axes[3])
    results["seconds"] = round(time.perf_counter() - started, 1)
    results["torch"] = torch.__version__
    return significant(results), fig


def average_curvatures(model, images, step):
    """Return how often the average curvature is negative, at the image and beyond."""
    nearest = find_nearest_boundaries(model, images, n_boundaries=None)
    result = {}
    for place, points in (("input", nearest.images), ("boundary", nearest.points)):
        with model.evaluating():
            kappa = mean_curvature(
                nearest.margin,
                points,
                n_directions=64,
                step=step,
                generator=torch.Generator().manual_seed(0),
                batch_size=BATCH_SIZE,
            )
        kappa = kappa.where(nearest.found, torch.nan).reshape(len(images), -1)
        for which, values in (("nearest", kappa[:, 0]), ("all", kappa.flatten())):
            values = values[values.isfinite()]
            result[f"{place}_{which}"] = {
                "mean": float(values.mean()),
                "negative": float((values < 0).double().mean()),
            }
    return result


def profile(model, images, settings, ax):
    """Return the findings on the principal curvatures of all boundaries; draw them."""
    nearest = find_nearest_boundaries(model, images, n_boundaries=None)
    with model.evaluating():
        values = principal_curvatures(
            nearest.margin,
            nearest.points,
            directions=False,
            batch_size=BATCH_SIZE,
            **settings,
        ).values
        first = torch.arange(0, len(values), len(values) // len(images))
        leading = principal_curvatures(
            nearest.margin.take(first),
            nearest.points[first],
            batch_size=BATCH_SIZE,
            **settings,
        )
        along = normal_curvature(
            nearest.margin.take(first),
            nearest.points[first],
            leading.directions[:, [0, -1]],
            batch_size=BATCH_SIZE,
            **settings,
        )
    values[~nearest.found] = torch.nan
    CurvatureProfileDisplay.from_predictions(
        values.reshape(len(images), -1, values.shape[1]).numpy(), ax=ax
    )
    statistics = profile_statistics(values.double())
    largest = values.abs().amax(1, keepdim=True)
    outliers = (values.abs() > 0.5 * largest).sum(1)[nearest.found]
    extremes = leading.values[:, [0, -1]]
    return {
        **{
            name: float(getattr(statistics, name).nanmean())
            for name in statistics._fields
        },
        "above_half_of_largest": float(outliers.double().mean()),
        "largest": float(extremes[:, 0].median()),
        "smallest": float(extremes[:, 1].median()),
        # what bends along the extreme eigenvectors at the same scale
        "along_largest": float(along[:, 0].median()),
        "along_smallest": float(along[:, 1].median()),
    }


def loss_profile(model, images, settings):
    """Return the findings on the eigenvalues of the loss (equation 4)."""
    x = next(model.split(model.to_tensor(images), size=len(images)))
    label = torch.from_numpy(model.predict(images))
    with model.evaluating():
        values = hessian_eigenvalues(
            model.loss(label), x, directions=False, batch_size=BATCH_SIZE, **settings
        ).values
    statistics = profile_statistics(values.double())
    return {
        "largest": float(values[:, 0].median()),
        "smallest": float(values[:, -1].median()),
        "trace": float(values.sum(1).median()),
        "near_zero": float(statistics.near_zero.nanmean()),
        "negative": float(statistics.negative.nanmean()),
    }


def shared(model, others, images, settings, steps):
    """Return the findings on the subspace that curved directions share."""
    source = find_nearest_boundaries(model, others, n_boundaries=3)
    target = find_nearest_boundaries(model, images)
    with model.evaluating():
        directions = most_curved(source, settings)
        S = shared_subspace(directions, dimension=0.9)
        at_random = random_subspace(
            len(directions), (1, 28, 28), generator=torch.Generator().manual_seed(0)
        )
        expected = shared_subspace(at_random, dimension=0.9)
        basis = S.basis[:N_SHARED]
        exact = settings["method"] == "autodiff"
        return {
            "n_directions": len(directions),
            "dimension_for_90%": len(S.basis),
            "dimension_for_90%_if_random": len(expected.basis),
            "dimension_used": N_SHARED,
            "mean_absolute_curvature": curved(target, basis, [] if exact else steps),
            "noise": changed_by_noise(model, target, basis),
        }


def most_curved(source, settings):
    """Return the five most curved directions of every boundary that was found."""
    spectrum = principal_curvatures(
        source.margin, source.points, batch_size=BATCH_SIZE, **settings
    )
    order = spectrum.values.abs().topk(5, dim=1).indices
    rows = torch.arange(len(order))[:, None]
    return spectrum.directions[rows, order][source.found].flatten(0, 1)


def curved(target, basis, steps):
    """Return mean curvatures in a subspace and in a random one, exact without steps."""
    random = random_subspace(
        N_SHARED, (1, 28, 28), generator=torch.Generator().manual_seed(1)
    ).to(basis)
    ways = {str(step): {"method": "forward", "step": step} for step in steps}
    found = {}
    for name, settings in (ways or {"exact": {"method": "autodiff"}}).items():
        found[name] = {
            place: float(
                curvature_in_subspace(
                    target.margin,
                    target.points,
                    vectors,
                    batch_size=BATCH_SIZE,
                    **settings,
                ).mean()
            )
            for place, vectors in (("in_S", basis), ("random", random))
        }
    return found


def changed_by_noise(model, target, basis):
    """Return how often noise changes predictions, in a subspace and beside it."""
    found = []
    for factor in (0.5, 1, 2, 4, 8):
        norm = factor * float(target.distances.median())
        shares = {
            name: float(
                label_changes(
                    model.logits,
                    target.images,
                    basis,
                    norm=norm,
                    complement=complement,
                    generator=torch.Generator().manual_seed(2),
                    batch_size=BATCH_SIZE,
                ).mean()
            )
            for name, complement in (("in_S", False), ("orthogonal", True))
        }
        found.append({"norm": norm, **shares})
    return found


def draw_noise(noise, ax):
    norms = [point["norm"] for point in noise]
    for name, colour, label in (
        ("in_S", "#D55E00", "in S (50 dimensions)"),
        ("orthogonal", "#0072B2", "orthogonal to S"),
    ):
        shares = [point[name] for point in noise]
        ax.plot(norms, shares, "o-", color=colour, label=label)
    ax.set_xlabel("L2 norm of the noise (input units)")
    ax.set_ylabel("share of predictions changed")
    ax.set_title("random noise")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
