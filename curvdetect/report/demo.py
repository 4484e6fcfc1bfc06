"""``curvdetect demo``: the main job on real images, from attack to table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import RocCurveDisplay
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn

import curvdetect
from curvdetect._base.extras import require
from curvdetect.attacks import (
    AdversarialSet,
    make_adversarial_set,
    pgd,
    same_norm_noise,
)
from curvdetect.estimators.detector import CurvatureThresholdDetector
from curvdetect.estimators.featurizer import CurvatureFeaturizer
from curvdetect.estimators.relabeler import CurvatureRelabeler
from curvdetect.network import TorchModel
from curvdetect.plotting import (
    ADVERSARIAL,
    CLEAN,
    AverageCurvatureDisplay,
    RelabelRankDisplay,
)
from curvdetect.study import datasets, metrics
from curvdetect.study.networks import LeNet, trained_model

__all__ = ["run_demo"]

_TARGET_FPR = 0.05
_MIN_IMAGES = 100
#: L-infinity budgets of PGD, times 255; the first two are the report's.
_EPS = {"fashion-mnist": 16, "mnist": 50, "digits": 50, "cifar10": 2}
_CLASSES = {
    "fashion-mnist": "T-shirt trouser pullover dress coat sandal shirt sneaker bag "
    "boot",
    "cifar10": "airplane car bird cat deer dog frog horse ship truck",
}


@dataclass(frozen=True)
class _Results:
    """What was measured on the test half, and on what."""

    images: AdversarialSet
    clean: npt.NDArray[Any]
    adversarial: npt.NDArray[Any]
    detector: CurvatureThresholdDetector
    relabeler: CurvatureRelabeler
    figures: dict[str, metrics.Figure]


def run_demo(
    dataset: str = "fashion-mnist",
    *,
    out: str | Path = "curvdetect-demo",
    seed: int = 0,
    n_images: int = 800,
    device: str | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, metrics.Figure]:
    """Attack a trained network, detect and relabel; print a table, write pictures.

    Half of the images set the threshold and the finite step; all figures are those
    of the other half.

    Parameters
    ----------
    dataset : {"fashion-mnist", "mnist", "digits", "cifar10"}
        "fashion-mnist" is embedded, "digits" comes with scikit-learn.
    out : path
        Folder for the pictures and results.json; made if it is missing.
    seed : int
        Of the attack, the split and the directions.
    n_images : int
        Images to start from, at least 100.
    device : str, optional
        torch device.
    data_dir : path, optional
        Folder of data sets.

    Returns
    -------
    dict of str to Figure
        Every figure of the table with its 95 % interval.

    Raises
    ------
    ValueError
        If there are too few images.
    FileNotFoundError
        If the data set or the network's weights are missing; the message says where
        they should be.
    ImportError
        If an extra is missing.
    """
    if n_images < _MIN_IMAGES:
        raise ValueError(f"n_images must be at least {_MIN_IMAGES}; got {n_images}")
    for module, extra in (("matplotlib", "plot"), ("torchattacks", "attacks")):
        require(module, extra=extra)  # before any long work
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)

    model, X, y = _load(dataset, data_dir, device, seed)
    chosen = np.random.default_rng(seed).permutation(len(X))[:n_images]
    calibration, test = np.array_split(chosen, 2)
    eps = _EPS[dataset] / 255
    print(
        f"curvdetect {curvdetect.__version__}: {dataset}, {len(chosen)} images, "
        f"PGD with L-infinity budget {_EPS[dataset]}/255"
    )
    sets = [
        make_adversarial_set(
            model, pgd(model, eps=eps), X[part], y[part], seed=seed, verbose=1
        )
        for part in (calibration, test)
    ]
    if not all(len(images.adversarial) > 1 for images in sets):
        raise ValueError("the attack fooled the network on too few images to go on")
    pipeline = make_pipeline(
        CurvatureFeaturizer(model, random_state=seed, verbose=1),
        CurvatureThresholdDetector(),
    )
    known = sets[0].labelled()
    pipeline.fit(known.X, known.y)
    results = _evaluate(pipeline, sets[1], model.bounds, seed)

    _print_table(results)
    _draw(results, dataset, out)
    _write_json(results, dataset, sets[0], pipeline, seed, out)
    print(f"Pictures and results.json are in {out}/")
    return results.figures


def _evaluate(
    pipeline: Pipeline,
    images: AdversarialSet,
    bounds: tuple[float, float] | None,
    seed: int,
) -> _Results:
    """Measure the test half."""
    featurizer, detector = pipeline[0], pipeline[-1]
    clean = featurizer.transform(images.clean)
    adversarial = featurizer.transform(images.adversarial)
    noisy = featurizer.transform(
        same_norm_noise(
            images.clean, images.control_norms, bounds=bounds, random_state=seed
        )
    )
    relabeler = CurvatureRelabeler().fit(clean)  # learns the number of classes alone
    scores = detector.score_samples(clean), detector.score_samples(adversarial)
    right = np.concatenate(
        [detector.predict(clean) == 0, detector.predict(adversarial) == 1]
    )
    figures = {
        "attack success": metrics.share(images.fooled),
        "mean L2 norm of the attack": metrics.mean_norm(images.norms),
        "AUROC": metrics.auroc(*scores, seed=seed),
        "TPR at 1 % FPR": metrics.tpr_at_fpr(*scores, 0.01, seed=seed),
        "TPR at 5 % FPR": metrics.tpr_at_fpr(*scores, 0.05, seed=seed),
        "accuracy at the best threshold": metrics.share(right),
        "relabel accuracy": metrics.share(
            relabeler.predict(adversarial) == images.original_label
        ),
        "clean images flagged": metrics.share(detector.p_values(clean) <= _TARGET_FPR),
        "noisy images flagged": metrics.share(detector.p_values(noisy) <= _TARGET_FPR),
    }
    return _Results(images, clean, adversarial, detector, relabeler, figures)


def _print_table(results: _Results) -> None:
    """Print every figure with its interval, and the report's beside it."""
    images, detector = results.images, results.detector
    print(
        f"\nCalibrated on {len(detector.clean_scores_)} clean images; measured on "
        f"{len(images.clean)} clean and {len(images.adversarial)} adversarial others.\n"
    )
    print(f"{'':32}{'value':>8}   {'95 % interval':<18}{'note'}")
    for name, (value, low, high) in results.figures.items():
        interval = f"{low:.3f} to {high:.3f}"
        print(f"{name:32}{value:8.3f}   {interval:<18}{_NOTES.get(name, '')}")
    print()


_NOTES = {
    "mean L2 norm of the attack": "input units",
    "accuracy at the best threshold": "the report: 0.75 to 0.85",
    "relabel accuracy": "the report: 0.64",
    "clean images flagged": "target 0.05",
    "noisy images flagged": "noise of the attack's norm; target 0.05",
}


def _write_json(
    results: _Results,
    dataset: str,
    calibration: AdversarialSet,
    pipeline: Pipeline,
    seed: int,
    out: Path,
) -> None:
    images = results.images
    report = {
        "dataset": dataset,
        "attack": {
            "name": "PGD",
            "norm": "Linf",
            "eps": _EPS[dataset] / 255,
            "steps": 40,
        },
        "seed": seed,
        "step": pipeline[0].step_,
        "threshold": results.detector.threshold_,
        "calibration": {
            "clean": len(calibration.clean),
            "adversarial": len(calibration.adversarial),
        },
        "test": {"clean": len(images.clean), "adversarial": len(images.adversarial)},
        "target_fpr": _TARGET_FPR,
        "figures": {name: figure._asdict() for name, figure in results.figures.items()},
        "versions": {"curvdetect": curvdetect.__version__, "torch": torch.__version__},
    }
    (out / "results.json").write_text(json.dumps(report, indent=2) + "\n")


# Pictures -------------------------------------------------------------------


def _draw(results: _Results, dataset: str, out: Path) -> None:
    """Write each picture, and all of them in one."""
    new_figure = require("matplotlib.figure", extra="plot").Figure
    plots = {
        "roc": _draw_roc,
        "curvature-profile": _draw_profile,
        "relabel-rank": _draw_ranks,
    }
    for name, draw in plots.items():
        figure = new_figure(figsize=(5, 4), layout="constrained")
        draw(figure.subplots(), results)
        figure.savefig(out / f"{name}.png", dpi=150)

    figure = new_figure(figsize=(9, 4.6), layout="constrained")
    _draw_pairs(figure, results, dataset)
    figure.savefig(out / "images.png", dpi=150)

    figure = new_figure(figsize=(10, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    _draw_pairs(above, results, dataset)
    for ax, draw in zip(below.subplots(1, 3), plots.values(), strict=True):
        draw(ax, results)
    figure.savefig(out / "overview.png", dpi=110)


def _draw_roc(ax: Any, results: _Results) -> None:
    features = np.concatenate([results.clean, results.adversarial])
    RocCurveDisplay.from_predictions(
        np.repeat([0, 1], [len(results.clean), len(results.adversarial)]),
        results.detector.score_samples(features),
        name="curvature",
        ax=ax,
        plot_chance_level=True,
        chance_level_kw={"label": "chance"},
        curve_kwargs={"color": ADVERSARIAL},
    )
    ax.set(xlabel="false-positive rate", ylabel="detection rate")


def _draw_profile(ax: Any, results: _Results) -> None:
    AverageCurvatureDisplay.from_predictions(results.clean, results.adversarial, ax=ax)


def _draw_ranks(ax: Any, results: _Results) -> None:
    RelabelRankDisplay.from_estimator(
        results.relabeler, results.adversarial, results.images.original_label, ax=ax
    )


def _draw_pairs(figure: Any, results: _Results, dataset: str) -> None:
    """Draw images before and after the attack, with label and score."""
    images, detector = results.images, results.detector
    names = _CLASSES.get(dataset, "0 1 2 3 4 5 6 7 8 9").split()
    # One image of each of the first original labels, whatever came of it.
    _, first = np.unique(images.original_label, return_index=True)
    chosen = first[:6]
    source = images.source[chosen]
    relabelled = results.relabeler.predict(results.adversarial[chosen])
    scores = [
        detector.score_samples(results.clean[source]),
        detector.score_samples(results.adversarial[chosen]),
    ]

    def verdict(score: float) -> str:
        flagged = "flagged" if score > detector.threshold_ else "not flagged"
        return f"{score:+.2f} {flagged}"

    axes = figure.subplots(2, len(chosen), squeeze=False)
    for k, (above, below) in enumerate(axes.T):
        label = names[images.original_label[chosen[k]]]
        wrong = names[images.predicted_label[chosen[k]]]
        _show(above, images.clean[source[k]])
        above.set_title(
            f"{label}\n{verdict(scores[0][k])}",
            fontsize=9,
            color=CLEAN,
        )
        _show(below, images.adversarial[chosen[k]])
        below.set_title(
            f"{wrong}\n{verdict(scores[1][k])}\nrelabelled {names[relabelled[k]]}",
            fontsize=9,
            color=ADVERSARIAL,
        )
    figure.suptitle(
        "Predicted class and score: clean images above, adversarial below "
        f"(flagged above {detector.threshold_:+.2f})",
        fontsize=11,
    )


def _show(ax: Any, image: npt.NDArray[Any]) -> None:
    ax.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()


# Networks and images --------------------------------------------------------


def _load(
    dataset: str, data_dir: str | Path | None, device: str | None, seed: int
) -> tuple[TorchModel, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return a trained network, and images that it was not trained on."""
    if dataset == "fashion-mnist" and data_dir is None:
        X, y = datasets.load_fashion_mnist_sample()
    elif dataset == "digits":
        X, y = datasets.load_digits()
        X, y, X_train, y_train = X[:897], y[:897], X[897:], y[897:]
        module = _train_on_digits(X_train, y_train, seed)
        return TorchModel(module, input_shape=(1, 8, 8), device=device), X, y
    else:
        X, y = datasets.load_dataset(dataset, data_dir=data_dir)
    return trained_model(dataset, data_dir=data_dir, device=device), X, y


def _train_on_digits(
    X: npt.NDArray[np.float32], y: npt.NDArray[np.int64], seed: int
) -> nn.Module:
    """Train a small LeNet on 8 x 8 digits: seconds."""
    images, labels = torch.from_numpy(X), torch.from_numpy(y)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = LeNet(image_size=8)
        optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
        for _ in range(60):
            for rows in torch.randperm(len(images)).split(64):
                loss = nn.functional.cross_entropy(module(images[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return module.eval()
