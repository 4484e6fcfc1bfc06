"""The sets of images of a case, attacked once and kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np

from benchmarks.common.networks import load_images
from benchmarks.common.splits import Split
from benchmarks.detection.learned import attacked as attacked_by
from benchmarks.evidence.attacks import Attack, attacks_on
from benchmarks.evidence.case import Case, Training
from curvdetect._base.files import written_at_once
from curvdetect.attacks import AdversarialSet

__all__ = ["attacked", "corrupted_sets", "of_other_data", "training"]

#: Clean images of another data set of the same shape.
OTHER_DATA = {"mnist": "fashion-mnist", "fashion-mnist": "mnist"}
N_OTHER = 200


def training(case: Case, folder: Path) -> Training:
    """Return what detectors learn from: clean images, attacked by the quick attacks."""
    n = case.sizes.attacked
    images = Split(case.fit.X[:n], case.fit.y[:n])
    chosen = [attack for attack in attacks_on(case) if attack.learned_from]
    sets = {a.name: _kept(case, a, images, folder / "learned-from") for a in chosen}
    right = case.model.predict(images.X) == images.y
    return Training(
        case.reference,
        Split(images.X[right], images.y[right]),
        {name: found for name, found in sets.items() if len(found.adversarial)},
        {attack.name: attack.kind for attack in chosen},
    )


def attacked(case: Case, folder: Path) -> dict[str, tuple[Attack, AdversarialSet]]:
    """Return the test images, attacked by all attacks, by the name of the attack."""
    return {
        attack.name: (attack, _kept(case, attack, case.test, folder / "test"))
        for attack in attacks_on(case)
    }


def corrupted_sets(
    case: Case, severities: tuple[int, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the first test images, corrupted, by kind and severity."""
    for name, found in case.corrupted.items():
        if found.severity in severities:
            yield name, found.X


def of_other_data(case: Case) -> np.ndarray | None:
    """Return clean images of another data set, if there is one of the same shape."""
    other = OTHER_DATA.get(case.network.data)
    if other is None:
        return None
    return load_images(other, case.files.data_dir)[0][:N_OTHER]


def _kept(case: Case, attack: Attack, images: Split, folder: Path) -> AdversarialSet:
    """Run an attack, or find what it made."""
    path = folder / f"{attack.name.replace('/', '_')}.npz"
    if path.exists():
        with np.load(path) as file:
            return AdversarialSet(**file)
    X, y = (values[: attack.n_images] for values in images)
    made = attacked_by(case.model, attack.run, X, y)
    folder.mkdir(parents=True, exist_ok=True)
    with written_at_once(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{f.name: getattr(made, f.name) for f in fields(made)})
    return made
