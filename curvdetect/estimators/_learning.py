"""What `LearnedDetector.fit` does: attack, learn, calibrate, try."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_memory
from torch import Tensor
from tqdm.auto import tqdm

from curvdetect.attacks import KINDS, Lesson, shortest_budgets
from curvdetect.attacks.effort import effort_for
from curvdetect.estimators._cascade import Cascade, decided, examined, less_usual
from curvdetect.estimators._companions import companion_for
from curvdetect.estimators._evidence import N_STAGES, Evidence
from curvdetect.estimators._given import Given
from curvdetect.estimators._lessons import (
    CLEAN,
    UNKNOWN,
    Material,
    corrupted_material,
    cross_fitted,
    doubt,
    grown,
    kept_material,
    lesson_material,
    measured_material,
    usual_scores,
    veto,
)
from curvdetect.estimators.detector import conformal_threshold
from curvdetect.estimators.self_test import (
    Attempt,
    SelfTest,
    Tried,
    attempts,
    minimal_points,
    tried,
    warn_of_misses,
)
from curvdetect.geometry import random_directions
from curvdetect.network import TorchModel
from curvdetect.study.metrics import auroc

if TYPE_CHECKING:
    from curvdetect.estimators.learned import LearnedDetector

__all__ = ["Learning"]


class Learning:
    """One `fit`: what it learns, step by step, and hands over when all is done."""

    def __init__(
        self, detector: LearnedDetector, model: TorchModel, fpr: float, seed: int
    ) -> None:
        self.detector, self.model, self.fpr, self.seed = detector, model, fpr, seed

    def run(
        self,
        images: Tensor,
        labels: Tensor,
        learn: npt.NDArray[np.int64],
        rest: npt.NDArray[np.int64],
        given: Given | None = None,
    ) -> dict[str, Any]:
        """Return the fitted attributes.

        Of adversarial images that are `given`, those near to what is learned are
        learned from; those near to the others try the detector out.
        """
        detector, n_classes = self.detector, self.model.n_classes
        effort = effort_for(images[0].numel())
        place = np.argsort(np.concatenate([learn, rest]))
        taught = given and given.of(learn)
        learn = learn[: effort.n_learned]
        x, y = images[learn], labels[learn]
        companion, passes = companion_for(detector.companion, self.model, x, y)
        points, norms = minimal_points(self.model, x, y, detector.verbose)
        found = norms.isfinite() & (norms > 0)
        if not found.any():
            raise ValueError(
                "no boundary was found near the images (their gradients vanish, or the "
                "network gives one class only): there is nothing to learn from"
            )
        shortest = shortest_budgets(points[found] - x[found])
        generator = torch.Generator().manual_seed(self.seed)
        direction = random_directions(
            1, x.shape[1:], generator=generator, dtype=torch.float64
        )[0].numpy()
        evidence = Evidence(
            self.model, n_classes, shortest["l2"], direction, companion, passes
        )
        lessons = detector._lessons(self.model, shortest)
        material = self.material(evidence, lessons, x, y, points)
        if taught and len(taught.images):
            number = len(lessons)  # that of the lesson of those that are tried
            of_given = given_material(evidence, taught, place[taught.near], number)
            material = Material.joined([material, of_given])
        cascade = self.learn(evidence, material)
        clean = decided(cascade, images[rest], 0)
        scores = np.sort(clean.score.numpy())
        threshold = conformal_threshold(scores, self.fpr)
        fitted: dict[str, Any] = {
            "n_classes_": n_classes,
            "n_learned_": len(learn),
            "n_adversarial_": int((material.before != CLEAN).sum()),
            "shortest_": (shortest["linf"], shortest["l2"]),
            "direction_": direction,
            "forests_": tuple(nodes for pair in cascade.nodes for nodes in pair),
            "doubt_": cascade.doubt,
            "veto_": cascade.veto,
            "usual_": cascade.usual,
            "passes_": passes,
            "companion_": companion,
            "clean_scores_": scores,
            "clean_stages_": clean.stage.numpy(),
            "threshold_": threshold,
            "target_fpr_": self.fpr,
            "weights_": self.model.weights_digest(),
            "companion_weights_": companion and companion.model.weights_digest(),
            "tried_": (),
        }
        if detector.self_test:
            tested = rest[: effort.n_tested]
            if given:
                lessons = [*lessons, given.of(tested).lesson(images)]
            x, y = images[tested], labels[tested]
            without = self.without_kinds(evidence, material, lessons, cascade)
            rows = self.tried(cascade, lessons, x, y, scores, threshold, without)
            fitted["tried_"] = tuple(tuple(row) for row in rows)
            warn_of_misses(SelfTest(rows, self.fpr))
        return fitted

    def tried(
        self,
        cascade: Cascade,
        lessons: list[Lesson],
        x: Tensor,
        y: Tensor,
        clean: npt.NDArray[np.float64],
        threshold: float,
        without: dict[str, Cascade],
    ) -> list[Tried]:
        """Return figures of attacks on images that nothing was learned from."""
        points, _ = minimal_points(self.model, x, y)
        clean_without = {
            kind: decided(other, x, 0).score.numpy() for kind, other in without.items()
        }

        def alone(attempt: Attempt) -> float:
            kind = attempt.lesson.kind
            if kind not in without:
                return math.nan
            score = decided(without[kind], attempt.adversarial, 0).score.numpy()
            return auroc(clean_without[kind], score).value

        made = attempts(self.model, lessons, x, y, points, self.seed)
        look = partial(examined, cascade, threshold=threshold)
        return [row for *_, row in tried(look, made, clean, threshold, alone)]

    def material(
        self,
        evidence: Evidence,
        lessons: list[Lesson],
        x: Tensor,
        y: Tensor,
        points: Tensor,
    ) -> Material:
        """Return what is learned from: clean images, and what each attack made."""
        n = len(x)
        none = np.full(n, CLEAN)
        parts = [
            measured_material(evidence, x, none, none, np.arange(n)),
            corrupted_material(evidence, x, y, self.seed),
        ]
        n_each = min(n, max(effort_for(x[0].numel()).n_attacked // len(lessons), 1))
        random = np.random.default_rng(self.seed)
        memory = check_memory(self.detector.memory)
        kept = memory.cache(kept_material, ignore=["lesson"])
        arrays = x.numpy(), y.numpy(), points.numpy()
        for number, lesson in enumerate(
            tqdm(
                lessons, desc="learn", unit="attack", disable=not self.detector.verbose
            )
        ):
            rows = np.sort(random.choice(n, n_each, replace=False))
            settings = number, rows, self.seed
            if lesson.kind in KINDS:
                named = lesson.name, lesson.budget
                found = kept(evidence, *arrays, lesson, named, *settings)
            else:  # nothing tells whether it is the same as last time
                found = lesson_material(evidence, x, y, points, lesson, *settings)
            parts.append(found)
        return Material.joined(parts)

    def learn(self, evidence: Evidence, material: Material) -> Cascade:
        """Return the cascade that the material teaches."""
        if not (material.before >= 0).any():
            raise ValueError(
                "no attack fools the network on these images: there is nothing to "
                "learn from"
            )
        every = np.ones(len(material.before), dtype=bool)
        nodes = [grown(material, stage, every, self.seed) for stage in range(N_STAGES)]
        scores = [
            cross_fitted(material, evidence, stage, self.seed)
            for stage in range(N_STAGES)
        ]
        usual = usual_scores(material, evidence, scores)
        label = evidence.labels(material.columns[0])
        scores = [
            less_usual(torch.from_numpy(of), label, usual[stage]).numpy()
            for stage, of in enumerate(scores)
        ]
        vetoes = veto(material, evidence, scores[-1])
        between = doubt(material, evidence, vetoes, self.detector.budget, scores)
        return Cascade(evidence, nodes, between, vetoes, usual)

    def without_kinds(
        self,
        evidence: Evidence,
        material: Material,
        lessons: list[Lesson],
        cascade: Cascade,
    ) -> dict[str, Cascade]:
        """Return, for each kind of attack, what was learned without any of it."""
        kinds = np.array([lesson.kind for lesson in lessons])
        found = {}
        for kind in dict.fromkeys(kinds):
            harmless = material.lesson < 0
            others = harmless | (kinds[material.lesson] != kind)
            if not (material.before[others] >= 0).any():
                continue
            nodes = [
                grown(material, stage, others, self.seed) for stage in range(N_STAGES)
            ]
            found[str(kind)] = Cascade(
                evidence, nodes, cascade.doubt, cascade.veto, cascade.usual
            )
        return found


def given_material(
    evidence: Evidence, given: Given, source: npt.NDArray[np.int64], number: int
) -> Material:
    """Measure adversarial images that were given: nobody says what they were before."""
    n = len(given.images)
    return measured_material(
        evidence, given.images, np.full(n, UNKNOWN), np.full(n, number), source
    )
