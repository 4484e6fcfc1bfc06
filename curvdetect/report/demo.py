"""``curvdetect demo``: the main job on real images, from attack to table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.pipeline import Pipeline, make_pipeline

from curvdetect import __version__
from curvdetect._base.extras import require
from curvdetect.attacks import AdversarialSet, same_norm_noise
from curvdetect.estimators import (
    CurvatureFeaturizer,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
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
from curvdetect.report.sections import (
    average_curvature,
    before_and_after,
    figures_table,
    relabel_rank,
    roc_curve,
)
from curvdetect.report.sections.base import Measured, Section, drawn
from curvdetect.study import datasets, metrics
from curvdetect.study.networks import train_on_digits, trained_model

__all__ = ["run_demo"]

_TARGET_FPR = 0.05
_MIN_IMAGES = 100
#: By the names of their files.
_PICTURES: dict[str, Section] = {
    "roc": roc_curve,
    "curvature-profile": average_curvature,
    "relabel-rank": relabel_rank,
}
_CLASSES = {
    "fashion-mnist": "T-shirt trouser pullover dress coat sandal shirt sneaker bag "
    "boot",
    "cifar10": "airplane car bird cat deer dog frog horse ship truck",
}
_NOTES = {
    "mean L2 norm of the attack": "input units",
    "accuracy at the best threshold": f"the report: {figures_table.REPORT_ACCURACY}",
    "relabel accuracy": f"the report: {figures_table.REPORT_RELABELLING}",
    "clean images flagged": f"target {_TARGET_FPR}",
    "noisy images flagged": f"noise of the attack's norm; target {_TARGET_FPR}",
}


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
    out = prepared_folder(out, n_images=n_images, least=_MIN_IMAGES)
    model, X, y = _load(dataset, data_dir, device, seed)
    chosen = np.random.default_rng(seed).permutation(len(X))[:n_images]
    print(
        f"curvdetect {__version__}: {dataset}, {len(chosen)} images, "
        f"PGD with L-infinity budget {EPS[dataset]}/255"
    )
    calibration, test = (
        attacked(model, dataset, X[part], y[part], seed=seed)
        for part in np.array_split(chosen, 2)
    )
    if min(len(calibration.adversarial), len(test.adversarial)) < 2:
        raise ValueError("the attack fooled the network on too few images to go on")
    pipeline = make_pipeline(
        CurvatureFeaturizer(model, random_state=seed, verbose=1),
        CurvatureThresholdDetector(),
    )
    known = calibration.labelled()
    pipeline.fit(known.X, known.y)
    measured = _measure(pipeline, model, test)
    figures = _evaluate(measured, pipeline, seed)

    print(
        f"\nCalibrated on {len(calibration.clean)} clean images; measured on "
        f"{len(test.clean)} clean and {len(test.adversarial)} adversarial others.\n\n"
        f"{figures_table.as_text(figures, _NOTES)}\n"
    )
    _draw(measured, _CLASSES.get(dataset, "0 1 2 3 4 5 6 7 8 9").split(), out)
    results = {
        "dataset": dataset,
        "attack": attack_record(dataset),
        "seed": seed,
        "step": pipeline[0].step_,
        "threshold": measured.detector.threshold_,
        "calibration": _sizes(calibration),
        "test": _sizes(test),
        "target_fpr": _TARGET_FPR,
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


def _measure(pipeline: Pipeline, model: TorchModel, images: AdversarialSet) -> Measured:
    """Measure the test half."""
    clean = pipeline[0].transform(images.clean)
    return Measured(
        "curvature",
        model,
        images,
        clean=clean,
        adversarial=pipeline[0].transform(images.adversarial),
        detector=pipeline[-1],
        relabeler=CurvatureRelabeler().fit(clean),  # learns the number of classes alone
    )


def _evaluate(
    measured: Measured, pipeline: Pipeline, seed: int
) -> dict[str, metrics.Figure]:
    """Return the figures of the test half, and how often noise is flagged."""
    images, detector = measured.images, measured.detector
    clean, adversarial = measured.clean, measured.adversarial
    noisy = pipeline[0].transform(
        same_norm_noise(
            images.clean,
            images.control_norms,
            bounds=measured.model.bounds,
            random_state=seed,
        )
    )
    scores = detector.score_samples(clean), detector.score_samples(adversarial)
    right = np.concatenate(
        [detector.predict(clean) == 0, detector.predict(adversarial) == 1]
    )
    recovered = measured.relabeler.predict(adversarial) == images.original_label
    return {
        "attack success": metrics.share(images.fooled),
        "mean L2 norm of the attack": metrics.mean_norm(images.norms),
        "AUROC": metrics.auroc(*scores, seed=seed),
        "TPR at 1 % FPR": metrics.tpr_at_fpr(*scores, 0.01, seed=seed),
        "TPR at 5 % FPR": metrics.tpr_at_fpr(*scores, 0.05, seed=seed),
        "accuracy at the best threshold": metrics.share(right),
        "relabel accuracy": metrics.share(recovered),
        "clean images flagged": metrics.share(detector.p_values(clean) <= _TARGET_FPR),
        "noisy images flagged": metrics.share(detector.p_values(noisy) <= _TARGET_FPR),
    }


def _sizes(images: AdversarialSet) -> dict[str, int]:
    return {"clean": len(images.clean), "adversarial": len(images.adversarial)}


def _draw(measured: Measured, class_names: list[str], out: Path) -> None:
    """Write each picture, and all of them in one."""
    new_figure = require("matplotlib.figure", extra="plot").Figure
    for name, section in _PICTURES.items():
        drawn(section, measured).savefig(out / f"{name}.png", dpi=150)

    figure = new_figure(figsize=before_and_after.SIZE, layout="constrained")
    before_and_after.draw(figure, measured, class_names)
    figure.savefig(out / "images.png", dpi=150)

    figure = new_figure(figsize=(10, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[1.25, 1])
    before_and_after.draw(above, measured, class_names)
    axes: Any = below.subplots(1, len(_PICTURES))
    for ax, section in zip(axes, _PICTURES.values(), strict=True):
        section.draw(ax, measured)
    figure.savefig(out / "overview.png", dpi=110)
