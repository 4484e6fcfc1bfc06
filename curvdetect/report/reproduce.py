"""``curvdetect reproduce``: the report's protocol, and the same with our defaults."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from curvdetect._base.checks import check_choice
from curvdetect._base.files import written_text
from curvdetect.attacks import AdversarialSet
from curvdetect.estimators import (
    CurvatureFeaturizer,
    CurvatureRelabeler,
    CurvatureThresholdDetector,
)
from curvdetect.network import TorchModel
from curvdetect.report._experiment import (
    attack_record,
    attacked,
    held_out_images,
    prepared_folder,
    write_results,
)
from curvdetect.report._reproduce_page import ALONE, COMPARED, THEIRS, page
from curvdetect.report._saving import save_picture
from curvdetect.report.goldman import goldman_features
from curvdetect.report.sections.base import Measured, drawn, joined
from curvdetect.report.sections.scores import N_EACH
from curvdetect.study import datasets
from curvdetect.study.networks import train_lenet, trained_model

__all__ = ["run_reproduce"]

_DATASETS = ("fashion-mnist", "mnist")
#: Draws of 25 natural and 25 perturbed pictures from all that were attacked.
_N_DRAWS = 1000
_MIN_IMAGES = 60
_N_SCALE_IMAGES = 200


def run_reproduce(
    dataset: str = "fashion-mnist",
    *,
    out: str | Path = "curvdetect-reproduce",
    seed: int = 0,
    n_images: int = 300,
    train_anew: bool = False,
    device: str | None = None,
    data_dir: str | Path | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Run the report's experiment on a LeNet; print a table, write pictures and a page.

    PGD perturbs test images. From those that it fooled the network on, 25 natural and
    25 perturbed ones (of other images) are drawn, the threshold that is best on these
    50 gives the detection accuracy, and the 25 are relabelled. The report did this
    once; here it is repeated over 1,000 draws. Two measures are compared on the same
    draws: the report's (Goldman's formula at the image, along all pixel axes, step 0.1,
    summed over the nine boundaries) and the package's default (at the boundary, seven
    random tangents, the largest).

    Parameters
    ----------
    dataset : {"fashion-mnist", "mnist"}
        "fashion-mnist" is embedded.
    out : path
        Folder for the page, the pictures and results.json; made if it is missing.
    seed : int
        Of the attack, the draws and the directions.
    n_images : int
        Test images to attack; at least 60.
    train_anew : bool
        Train a LeNet instead of loading the one that is shipped.
    device : str, optional
        torch device.
    data_dir : path, optional
        Folder of data sets.

    Returns
    -------
    dict
        For each method and figure, the mean over the draws and the 2.5 and 97.5
        percentiles.

    Raises
    ------
    ValueError
        If there are too few images, or the attack fooled the network on too few.
    FileNotFoundError
        If the data set is missing; the message says where it should be.
    ImportError
        If an extra is missing.
    """
    check_choice("dataset", dataset, _DATASETS)
    out = prepared_folder(out, n_images=n_images, least=_MIN_IMAGES)
    started = time.perf_counter()

    model, X, y = _load(dataset, data_dir, device, seed, train_anew)
    n_images = min(n_images, len(X) - _N_SCALE_IMAGES)
    images = attacked(model, dataset, X[:n_images], y[:n_images], seed=seed)
    if len(images.adversarial) < 2 * N_EACH:
        raise ValueError(
            f"the attack fooled the network on {len(images.adversarial)} images; "
            f"{2 * N_EACH} are needed"
        )
    methods = _measure(model, images, X[n_images : n_images + _N_SCALE_IMAGES], seed)
    figures = {
        method.title: {name: _summary(of) for name, of in _draws(method, seed).items()}
        for method in methods
    }
    _draw(methods, out)
    results = {
        "dataset": dataset,
        "network": "LeNet, trained anew" if train_anew else "LeNet, as shipped",
        "attack": attack_record(dataset),
        "seed": seed,
        "n_clean": len(images.clean),
        "n_adversarial": len(images.adversarial),
        "success": images.success_rate,
        "n_draws": _N_DRAWS,
        "figures": figures,
        "seconds": round(time.perf_counter() - started, 1),
    }
    written = page(write_results(results, out))
    written_text(out / "README.md", written)
    print(written.split("## Figures")[0])
    print(f"The page, its pictures and results.json are in {out}/")
    return figures


def _load(
    dataset: str,
    data_dir: str | Path | None,
    device: str | None,
    seed: int,
    train_anew: bool,
) -> tuple[TorchModel, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return a LeNet, and images that it was not trained on."""
    X, y = held_out_images(dataset, data_dir)
    if not train_anew:
        return trained_model(dataset, device=device), X, y
    learn = datasets.load_dataset(dataset, data_dir=data_dir, train=True)
    module = train_lenet(*learn, seed=seed, device=device)
    return TorchModel(module, input_shape=(1, 28, 28), device=device), X, y


def _measure(
    model: TorchModel, images: AdversarialSet, scale: npt.NDArray[Any], seed: int
) -> list[Measured]:
    """Measure all images both ways."""
    featurizer = CurvatureFeaturizer(model, random_state=seed, verbose=1).fit(scale)

    def measured(
        title: str,
        statistic: Literal["sum", "max"],
        clean: npt.NDArray[Any],
        adversarial: npt.NDArray[Any],
    ) -> Measured:
        detector = CurvatureThresholdDetector(statistic=statistic, criterion="accuracy")
        return Measured(
            title,
            model,
            images,
            clean=clean,
            adversarial=adversarial,
            detector=detector.fit(*joined(clean, adversarial)),
            relabeler=CurvatureRelabeler().fit(clean),  # the number of classes alone
        )

    return [
        measured(
            "the report's method",
            "sum",
            goldman_features(model, images.clean),
            goldman_features(model, images.adversarial),
        ),
        measured(
            "curvdetect's default",
            "max",
            featurizer.transform(images.clean),
            featurizer.transform(images.adversarial),
        ),
    ]


def _draws(measured: Measured, seed: int) -> dict[str, npt.NDArray[np.float64]]:
    """Repeat the report's experiment; the draws are the same for every method."""
    rng = np.random.default_rng(seed)
    original = measured.images.original_label
    relabelled = measured.relabeler.predict(measured.adversarial) == original
    rows = []
    for _ in range(_N_DRAWS):
        chosen = rng.permutation(len(original))[: 2 * N_EACH]
        natural, perturbed = np.split(chosen, 2)
        X, truth = joined(*measured.pictures(natural, perturbed))
        detector = clone(measured.detector).fit(X, truth)
        rows.append(
            (
                detector.score(X, truth),
                roc_auc_score(truth, detector.score_samples(X)),
                relabelled[perturbed].mean(),
            )
        )
    return dict(zip(THEIRS, np.asarray(rows, dtype=np.float64).T, strict=True))


def _summary(values: npt.NDArray[np.float64]) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [round(float(v), 4) for v in (values.mean(), low, high)]


def _draw(methods: list[Measured], out: Path) -> None:
    """Draw Figures 2 to 6; those of a method once for each."""
    for number, section in ALONE.items():
        save_picture(drawn(section, methods[0]), out / f"figure{number}.png", dpi=130)
    for number, section in COMPARED.items():
        save_picture(drawn(section, *methods), out / f"figure{number}.png", dpi=130)
