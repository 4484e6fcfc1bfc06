"""The sets of images that detectors learn from and are judged by, kept on disk."""

from __future__ import annotations

from pathlib import Path

import joblib
import numpy as np

from benchmarks.common.splits import Split
from benchmarks.detection.attacks import attacks
from benchmarks.detection.detectors import Training
from benchmarks.detection.protocol import ADAPTIVE, Protocol, adaptive_attacks
from curvdetect.attacks import AdversarialSet, make_adversarial_set, same_norm_noise

__all__ = ["judged_by", "learned_from", "memory_of", "noisy"]

#: Noise as long as the perturbations of these attacks: the control.
CONTROLS = ("PGD", "minimal norm x 1.02", "minimal norm x 2")


def memory_of(cache: Path | str, network: str, scale: float = 1) -> str:
    """Return the folder where sets and features of a network are kept."""
    return str(Path(cache) / f"{network}-{scale:g}")


def learned_from(protocol: Protocol, memory: str, limit: int | None = None) -> Training:
    """Attack what detectors learn from, or find that again."""
    sets = _attacked_by_all(protocol, "fit", protocol.fit, memory, limit)
    any_set = next(iter(sets.values()))
    return Training(
        protocol.reference,
        Split(any_set.clean, any_set.clean_label),
        noisy(sets, seed=0),
        sets,
    )


def judged_by(
    protocol: Protocol, memory: str, limit: int | None = None, *, adaptive: bool
) -> dict[str, AdversarialSet]:
    """Attack the test images, or find that again; `adaptive`: by those who know."""
    test = protocol.test
    if not adaptive:
        return _attacked_by_all(protocol, "test", test, memory, limit)
    evading_set = joblib.Memory(memory, verbose=0).cache(
        evading, ignore=["protocol", "X", "y"]
    )
    return {
        name: first(
            limit, evading_set(protocol.network, name, protocol, test.X, test.y)
        )
        for name in ADAPTIVE
    }


def _attacked_by_all(
    protocol: Protocol, part: str, split: Split, memory: str, limit: int | None
) -> dict[str, AdversarialSet]:
    attack_set = joblib.Memory(memory, verbose=0).cache(
        attacked, ignore=["protocol", "X", "y"]
    )
    return {
        name: first(
            limit,
            attack_set(protocol.network, part, name, protocol, split.X, split.y),
        )
        for name in attacks(protocol.model, protocol.network)
    }


def first(limit: int | None, images: AdversarialSet) -> AdversarialSet:
    """Keep the first clean images, and what was made of them."""
    rows = images.source < (limit or len(images.clean))
    return AdversarialSet(
        clean=images.clean[:limit],
        clean_label=images.clean_label[:limit],
        adversarial=images.adversarial[rows],
        original_label=images.original_label[rows],
        predicted_label=images.predicted_label[rows],
        source=images.source[rows],
    )


def attacked(
    network: str,
    part: str,
    name: str,
    protocol: Protocol,
    X: np.ndarray,
    y: np.ndarray,
) -> AdversarialSet:
    """Run one attack; `part` is there to be looked up by."""
    attack = attacks(protocol.model, network)[name]
    return make_adversarial_set(protocol.model, attack, X, y, batch_size=128)


def evading(
    network: str, name: str, protocol: Protocol, X: np.ndarray, y: np.ndarray
) -> AdversarialSet:
    """Run one attack that knows the default detector."""
    attack = adaptive_attacks(protocol)[name]
    return make_adversarial_set(protocol.model, attack, X, y, batch_size=32)


def noisy(sets: dict[str, AdversarialSet], seed: int) -> dict[str, np.ndarray]:
    """Add noise of the norms of some attacks to the clean images."""
    return {
        name: same_norm_noise(images.clean, images.control_norms, random_state=seed)
        for name, images in sets.items()
        if name.startswith(CONTROLS)
    }
