r"""The sign of the average curvature, on every network.

    python -m benchmarks curvature-sign all --strangers FOLDER

The report found that boundaries around natural images curve away from them (negative,
where a ball of the predicted class has curvature 1/r) and around perturbed ones towards
them (positive), on one LeNet. Here the same is measured with our default on every
network of `detection`: natural test images that the network gets right, and
what PGD at its smallest budget made of others of them; the mean over an image's
boundaries, and the largest of them, which is the score of the threshold detector, and
of which the AUROC is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.common.arguments import add_data_dir, add_out, command_parser
from benchmarks.common.results import known, significant, write
from benchmarks.evidence.case import Case, Files, load_case
from benchmarks.evidence.networks import names, network
from curvdetect import CurvatureFeaturizer
from curvdetect.attacks import make_adversarial_set, pgd
from curvdetect.study import metrics

#: Natural images, and as many others to attack.
N_IMAGES = 60
#: Images that set the step.
N_SCALE = 50


def parser() -> argparse.ArgumentParser:
    parser = command_parser("curvature-sign", __doc__)
    parser.add_argument("networks", nargs="+", choices=["all", *names()])
    parser.add_argument("--strangers", type=Path, help="folder of ONNX files")
    add_data_dir(parser)
    add_out(parser, "curvature_sign.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    results = known(args.out, {})
    files = Files(args.data_dir, args.strangers)
    for name in names() if "all" in args.networks else args.networks:
        results[name] = measured(load_case(name, network(name), files))
        print(name, results[name], flush=True)
        write(args.out, results)


def measured(case: Case) -> dict:
    """Return means over boundaries of natural and of perturbed images, and AUROC."""
    model, budget = case.model, min(case.network.budgets)
    X, y = case.test
    right = np.flatnonzero(model.predict(X) == y)
    natural, rest = right[:N_IMAGES], right[N_IMAGES : 2 * N_IMAGES]
    found = make_adversarial_set(model, pgd(model, eps=budget / 255), X[rest], y[rest])
    featurizer = CurvatureFeaturizer(model, random_state=0).fit(case.fit.X[:N_SCALE])
    of_natural = bounded(featurizer.transform(X[natural]))
    of_perturbed = bounded(featurizer.transform(found.adversarial))
    return significant(
        {
            "title": case.network.title,
            "budget": budget,
            "step": featurizer.step_,
            "n_natural": len(of_natural),
            "n_perturbed": len(of_perturbed),
            "success": metrics.proportion(found.fooled),
            "natural": of_images(of_natural),
            "perturbed": of_images(of_perturbed),
            "auroc": metrics.auroc(largest(of_natural), largest(of_perturbed)),
        }
    )


def bounded(curvatures: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Leave out images of which no boundary was found."""
    return curvatures[~np.isnan(curvatures).all(axis=1)]


def of_images(curvatures: npt.NDArray[np.float64]) -> dict:
    """Return the mean with its interval, and the share of images above zero.

    Of each image's mean over its boundaries, and of the largest, in 1 / input units.
    """
    of = {"mean": np.nanmean(curvatures, axis=1), "largest": largest(curvatures)}
    return {
        name: {
            "value": metrics.mean_norm(values),
            "positive": metrics.proportion(values > 0),
        }
        for name, values in of.items()
    }


def largest(curvatures: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the largest average curvature of a class, by image."""
    return np.nanmax(curvatures, axis=1)
