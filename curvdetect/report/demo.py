"""``curvdetect demo``: the main job on real images, from attack to table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import make_pipeline

from curvdetect import __version__
from curvdetect._base.checks import check_choice
from curvdetect._base.extras import require
from curvdetect.attacks import AdversarialSet, same_norm_noise
from curvdetect.estimators import (
    CurvatureFeaturizer,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
    LearnedDetector,
)
from curvdetect.network import TorchModel
from curvdetect.report._experiment import (
    EPS,
    attack_record,
    attacked,
    held_out_images,
    prepared_folder,
    write_results,
)
from curvdetect.report._saving import save_picture
from curvdetect.report.sections import (
    average_curvature,
    before_and_after,
    figures_table,
    relabel_rank,
    roc_curve,
    self_test,
)
from curvdetect.report.sections.base import Measured, Section, drawn
from curvdetect.report.sections.figures_table import REPORT_ACCURACY, REPORT_RELABELLING
from curvdetect.study import datasets, metrics
from curvdetect.study.networks import train_on_digits, trained_model

__all__ = ["DETECTORS", "run_demo"]

DETECTORS = ("learned", "threshold")
_TARGET_FPR = 0.05
_MIN_IMAGES = 100
#: With fewer, a learned detector keeps the rate that they allow.
_ENOUGH_IMAGES = 300
#: Of each detector, by the names of their files.
_PICTURES: dict[str, dict[str, Section]] = {
    "learned": {"roc": roc_curve, "self-test": self_test},
    "threshold": {
        "roc": roc_curve,
        "curvature-profile": average_curvature,
        "relabel-rank": relabel_rank,
    },
}
#: From images to what a detector takes.
Look = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
_CLASSES = {
    "fashion-mnist": "T-shirt trouser pullover dress coat sandal shirt sneaker bag "
    "boot",
    "cifar10": "airplane car bird cat deer dog frog horse ship truck",
}


def run_demo(
    dataset: str = "fashion-mnist",
    *,
    detector: Literal["learned", "threshold"] = "learned",
    out: str | Path = "curvdetect-demo",
    seed: int = 0,
    n_images: int = 800,
    device: str | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, metrics.Estimate]:
    """Attack a trained network, detect and relabel; print a table, write pictures.

    The detector is fitted on half of the images; all figures are those of the other
    half.

    Parameters
    ----------
    dataset : {"fashion-mnist", "mnist", "digits", "cifar10"}
        "fashion-mnist" is embedded, "digits" comes with scikit-learn.
    detector : {"learned", "threshold"}
        What detects: see :class:`~curvdetect.GuardedClassifier`. "threshold" is shown
        attacked images of the first half too, and gives the accuracy at its best
        threshold beside the report's.
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
    dict of str to Estimate
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
    check_choice("detector", detector, DETECTORS)
    out = prepared_folder(out, n_images=n_images, least=_MIN_IMAGES)
    model, X, y = _load(dataset, data_dir, device, seed)
    chosen = np.random.default_rng(seed).permutation(len(X))[:n_images]
    print(
        f"curvdetect {__version__}: {dataset}, {len(chosen)} images, "
        f"PGD with L-infinity budget {EPS[dataset]}/255"
    )
    first, second = (X[part] for part in np.array_split(chosen, 2))
    labels, others = (y[part] for part in np.array_split(chosen, 2))
    test = _attacked(model, dataset, second, others, seed)
    if detector == "learned":
        measured, look = _learned(model, first, labels, test, seed)
        rate = measured.detector.target_fpr_
    else:
        known = _attacked(model, dataset, first, labels, seed)
        measured, look = _by_threshold(model, known, test, seed)
        rate = _TARGET_FPR
    figures = _evaluate(measured, look, rate, seed)
    if detector == "threshold":
        figures |= _best_threshold(measured)
    n_fit = int((model.predict(first) == labels).sum())

    print(
        f"\nFitted on {n_fit} clean images; measured on {len(test.clean)} clean and "
        f"{len(test.adversarial)} adversarial others.\n\n"
        f"{figures_table.as_text(figures, _notes(rate))}\n"
    )
    names = _CLASSES.get(dataset, "0 1 2 3 4 5 6 7 8 9").split()
    _draw(measured, _PICTURES[detector], names, out)
    results = {
        "dataset": dataset,
        "detector": detector,
        "attack": attack_record(dataset),
        "seed": seed,
        "threshold": measured.detector.threshold_,
        "n_fit": n_fit,
        "test": {"clean": len(test.clean), "adversarial": len(test.adversarial)},
        "target_fpr": rate,
        "figures": {name: figure._asdict() for name, figure in figures.items()},
    }
    write_results(results, out)
    print(f"Pictures and results.json are in {out}/")
    return figures


def _load(
    dataset: str, data_dir: str | Path | None, device: str | None, seed: int
) -> tuple[TorchModel, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return a trained network, and images that it was not trained on."""
    if dataset == "digits":
        X, y = datasets.load_digits()
        module = train_on_digits(X[897:], y[897:], seed=seed)
        model = TorchModel(module, input_shape=(1, 8, 8), device=device)
        return model, X[:897], y[:897]
    X, y = held_out_images(dataset, data_dir)
    return trained_model(dataset, data_dir=data_dir, device=device), X, y


def _attacked(
    model: TorchModel,
    dataset: str,
    X: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    seed: int,
) -> AdversarialSet:
    """Attack images; refuse to go on with hardly any."""
    found = attacked(model, dataset, X, y, seed=seed)
    if len(found.adversarial) < 2:
        raise ValueError("the attack fooled the network on too few images to go on")
    return found


def _learned(
    model: TorchModel,
    X: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    test: AdversarialSet,
    seed: int,
) -> tuple[Measured, Look]:
    """Let a detector learn from the first half."""
    rate = _TARGET_FPR if 2 * len(X) >= _ENOUGH_IMAGES else None
    detector = LearnedDetector(model, target_fpr=rate, random_state=seed, verbose=1)
    detector.fit(X, y).set_params(verbose=0)  # deciding takes moments
    print(f"\nWhat it says of itself:\n{detector.self_test_}\n")
    relabeler = SimpleNamespace(predict=lambda x: detector.examine(x).recovered_label)
    measured = Measured(
        "learned", model, test, test.clean, test.adversarial, detector, relabeler
    )
    return measured, lambda images: images  # it looks at them itself


def _by_threshold(
    model: TorchModel, known: AdversarialSet, test: AdversarialSet, seed: int
) -> tuple[Measured, Look]:
    """Calibrate the threshold on the first half, and measure the second."""
    featurizer = CurvatureFeaturizer(model, random_state=seed, verbose=1)
    pipeline = make_pipeline(featurizer, CurvatureThresholdDetector())
    shown = known.labelled()
    pipeline.fit(shown.X, shown.y)
    clean, adversarial = map(featurizer.transform, (test.clean, test.adversarial))
    relabeler = CurvatureRelabeler().fit(clean)  # learns the number of classes alone
    measured = Measured(
        "curvature", model, test, clean, adversarial, pipeline[-1], relabeler
    )
    return measured, featurizer.transform


def _evaluate(
    measured: Measured, look: Look, rate: float, seed: int
) -> dict[str, metrics.Estimate]:
    """Return the figures of the test half, and how often noise is flagged."""
    images, detector = measured.images, measured.detector
    clean = detector.score_samples(measured.clean)
    scores = clean, detector.score_samples(measured.adversarial)
    recovered = measured.relabeler.predict(measured.adversarial)
    noise = same_norm_noise(
        images.clean,
        images.control_norms,
        bounds=measured.model.bounds,
        random_state=seed,
    )
    return {
        "attack success": metrics.proportion(images.fooled),
        "mean L2 norm of the attack": metrics.mean_norm(images.norms),
        "AUROC": metrics.auroc(*scores, seed=seed),
        "TPR at 1 % FPR": metrics.tpr_at_fpr(*scores, 0.01, seed=seed),
        "TPR at 5 % FPR": metrics.tpr_at_fpr(*scores, 0.05, seed=seed),
        "relabel accuracy": metrics.proportion(recovered == images.original_label),
        "clean images flagged": metrics.proportion(
            detector.p_values(measured.clean) <= rate
        ),
        "noisy images flagged": metrics.proportion(
            detector.p_values(look(noise)) <= rate
        ),
    }


def _best_threshold(measured: Measured) -> dict[str, metrics.Estimate]:
    """Return the accuracy at the threshold that was the best in the first half."""
    right = [
        measured.detector.predict(features) == label
        for label, features in enumerate((measured.clean, measured.adversarial))
    ]
    return {"accuracy at the best threshold": metrics.proportion(np.concatenate(right))}


def _notes(rate: float) -> dict[str, str]:
    return {
        "mean L2 norm of the attack": "input units",
        "accuracy at the best threshold": f"the report: {REPORT_ACCURACY}",
        "relabel accuracy": f"the report: {REPORT_RELABELLING}",
        "clean images flagged": f"target {rate:.2g}",
        "noisy images flagged": f"noise of the attack's norm; target {rate:.2g}",
    }


def _draw(
    measured: Measured, pictures: dict[str, Section], class_names: list[str], out: Path
) -> None:
    """Write each picture, and all of them in one."""
    new_figure = require("matplotlib.figure", extra="plot").Figure
    for name, section in pictures.items():
        save_picture(drawn(section, measured), out / f"{name}.png", dpi=150)

    figure = new_figure(figsize=before_and_after.SIZE, layout="constrained")
    before_and_after.draw(figure, measured, class_names)
    save_picture(figure, out / "images.png", dpi=150)

    figure = new_figure(figsize=(10, 9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.1, 1])
    before_and_after.draw(above, measured, class_names)
    axes: Any = below.subplots(1, len(pictures))
    for ax, section in zip(axes, pictures.values(), strict=True):
        section.draw(ax, measured)
    save_picture(figure, out / "overview.png", dpi=110)
