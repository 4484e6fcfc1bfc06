"""Stages of evidence and what was learned of each: an image stops where doubt ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from curvdetect.estimators._evidence import Columns, Evidence
from curvdetect.estimators._forest import Forest
from curvdetect.estimators._image_detector import Examined

__all__ = [
    "Cascade",
    "Decided",
    "Nodes",
    "decided",
    "examined",
    "forests_of",
    "less_usual",
    "log_odds",
    "vetoed",
]

#: Of the image, and of each candidate.
Forests = tuple[Forest, Forest]
#: Nodes of the two forests of a stage: of the image, and of each candidate.
Nodes = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


class Decided(NamedTuple):
    """What the cascade makes of n images.

    Attributes
    ----------
    logits : Tensor of shape (n, n_classes)
        Of the network.
    score : Tensor of shape (n,), float64
        Log-odds of an attack: the larger, the more likely adversarial.
    stage : Tensor of shape (n,), int64
        The last stage that was measured, from 0.
    recovered : Tensor of shape (n,), int64
        The likeliest label before an attack, if there was one.
    probability : Tensor of shape (n,), float64
        How likely it is among the candidates.
    """

    logits: Tensor
    score: Tensor
    stage: Tensor
    recovered: Tensor
    probability: Tensor

    def replaced(self, rows: Tensor, found: Decided) -> Decided:
        """Return this, with what was found later of some images.

        Parameters
        ----------
        rows : Tensor
            Which these are, as places; or of shape (n,), bool.
        found : Decided
            Of these alone; of all n, where `rows` are bool.

        Returns
        -------
        Decided
            Another; the logits stay.
        """
        parts = [
            new.where(rows, old)
            if rows.dtype == torch.bool
            else old.index_put((rows,), new)
            for old, new in zip(self[1:], found[1:], strict=True)
        ]
        return Decided(self.logits, *parts)


@dataclass(frozen=True)
class Cascade:
    """All stages of a network, learned.

    Attributes
    ----------
    evidence : Evidence
        What is measured.
    nodes : sequence of (ndarray, ndarray)
        For each stage, of the forest of the image and of that of the candidates.
    doubt : ndarray of shape (n_stages - 1, 2)
        The interval of scores in which an image goes on to the next stage.
    veto : ndarray of shape (m, 2), optional
        Log-odds that a companion gives against the network's label, increasing, and
        the score that an image has at least there.
    usual : ndarray of shape (n_stages, n_classes), optional
        How much more suspicious clean images of a label look than all of them: taken
        off the forests' scores.
    """

    evidence: Evidence
    nodes: Sequence[Nodes]
    doubt: npt.NDArray[np.float64]
    veto: npt.NDArray[np.float64] | None = None
    usual: npt.NDArray[np.float64] | None = None

    def forests(self, device: torch.device) -> list[Forests]:
        """Return the forests, checked, on a device; once for each."""
        known: dict[torch.device, list[Forests]] = self._known
        if device not in known:
            known[device] = [
                forests_of(nodes, self.evidence.n_columns(stage), device)
                for stage, nodes in enumerate(self.nodes)
            ]
        return known[device]

    @cached_property
    def _known(self) -> dict[torch.device, list[Forests]]:
        return {}

    def up_to(self, stage: int) -> Cascade:
        """Return the cascade without the stages after this one, counted from 0."""
        usual = None if self.usual is None else self.usual[: stage + 1]
        return Cascade(
            self.evidence,
            self.nodes[: stage + 1],
            self.doubt[:stage],
            self.veto,
            usual,
        )

    def decide(self, x: Tensor, *, early: bool = True) -> Decided:
        """Look at a batch of images, as long as each is in doubt.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            On the model's device, within ``evaluating()`` and ``no_grad()``.
        early : bool, default=True
            Whether an image that is in doubt no more is left out of what follows, or
            measured with the others, for nothing.

        Returns
        -------
        Decided
            A row depends on its image alone.
        """
        logits, forests = self.evidence.model.logits(x), self.forests(x.device)
        columns = self.evidence.measured(0, x, logits, None)
        found = of_all = self._judged(0, logits, forests[0], columns)
        rows, of_rows = None, logits
        for stage, (low, high) in enumerate(self.doubt, start=1):
            in_doubt = (found.score >= low) & (found.score <= high)
            if early:
                on = in_doubt.nonzero()[:, 0]
                if torch.compiler.is_compiling():
                    assume_some(on)
                elif not len(on):
                    break
                rows = on if rows is None else rows[on]
                x, of_rows, columns = x[on], of_rows[on], columns.take(on)
            else:
                rows = in_doubt if rows is None else rows & in_doubt
            columns = self.evidence.measured(stage, x, of_rows, columns)
            found = self._judged(stage, of_rows, forests[stage], columns)
            of_all = of_all.replaced(rows, found)
        return of_all

    def _judged(
        self, stage: int, logits: Tensor, forests: Forests, columns: Columns
    ) -> Decided:
        """Return what is thought of images after a stage."""
        score, odds = log_odds(forests, columns)
        if self.usual is not None:
            label = self.evidence.labels(columns)
            score = less_usual(score, label, self.usual[stage])
        score = vetoed(score, self.evidence.against(columns), self.veto)
        share = torch.sigmoid(odds)
        best = share.argmax(dim=1, keepdim=True)
        return Decided(
            logits,
            score,
            torch.full_like(best[:, 0], stage),
            columns.classes.gather(1, best)[:, 0],
            (share.gather(1, best) / share.sum(1, True))[:, 0],
        )

    def odds_at(self, score: float) -> float:
        """Return the odds against a label from which the companion alone is enough.

        Parameters
        ----------
        score : float
            Such as a threshold.

        Returns
        -------
        float
            Log-odds; infinite without a companion.
        """
        if self.veto is None:
            return math.inf
        at, least = torch.as_tensor(self.veto).T.contiguous()
        return float(_on_line(least, at, at.new_tensor([score])).clamp(min=at[0]))


def assume_some(rows: Tensor) -> None:
    """Tell torch.export that there are rows.

    There may be none, and whoever exports takes the check out of the program; but it
    cannot ask, and does not trace batch normalisation of perhaps no image.
    """
    torch._check(rows.shape[0] > 0)


def less_usual(
    score: Tensor, label: Tensor | None, usual: npt.NDArray[np.float64]
) -> Tensor:
    """Return scores less what is usual of the network's labels.

    Parameters
    ----------
    score : Tensor of shape (n,)
        Of the forests.
    label : Tensor of shape (n,), int64, or None
        As :meth:`Evidence.labels` gives it.
    usual : ndarray of shape (n_classes,)
        Of a stage.

    Returns
    -------
    Tensor of shape (n,)
        The same without labels.
    """
    if label is None:
        return score
    return score - torch.as_tensor(usual).to(score)[label]


def vetoed(
    score: Tensor, against: Tensor | None, veto: npt.NDArray[np.float64] | None
) -> Tensor:
    """Return scores, but at least what a companion's doubt alone is worth.

    However sure the forests are: whoever knows them finds images of which they are.

    Parameters
    ----------
    score : Tensor of shape (n,)
        Of the forests.
    against : Tensor of shape (n,), or None
        Log-odds that the companion gives against the network's labels.
    veto : ndarray of shape (m, 2), or None
        As of :class:`Cascade`.

    Returns
    -------
    Tensor of shape (n,)
        The same without a companion.
    """
    if against is None or veto is None:
        return score
    at, least = torch.as_tensor(veto).to(score).T.contiguous()
    worth = _on_line(at, least, against)
    return score.maximum(worth.where(against >= at[0], -torch.inf))


def _on_line(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Return the line through increasing points, straight on beyond the last."""
    place = torch.searchsorted(x, at.contiguous()).clamp(1, len(x) - 1)
    slope = (y[place] - y[place - 1]) / (x[place] - x[place - 1])
    return y[place - 1] + slope * (at - x[place - 1])


def log_odds(forests: Forests, columns: Columns) -> tuple[Tensor, Tensor]:
    """Return the score of each image, and the log-odds of each candidate.

    Parameters
    ----------
    forests : (Forest, Forest)
        Of the image and of the candidates.
    columns : Columns
        Of n images.

    Returns
    -------
    tuple of Tensor
        Of shape (n,): the log-odds by the image's own columns, plus the logarithm of
        the summed odds of the candidates; and of shape (n, k).
    """
    of_image, of_candidates = forests
    n, k, width = columns.candidate.shape
    odds = of_candidates(columns.candidate.reshape(n * k, width)).reshape(n, k)
    return of_image(columns.image) + odds.logsumexp(dim=1), odds


def forests_of(nodes: Nodes, columns: tuple[int, int], device: torch.device) -> Forests:
    """Return the two forests of a stage, for so many columns of either kind."""
    of_image, of_candidates = map(Forest, nodes, columns, (device, device))
    return of_image, of_candidates


def decided(cascade: Cascade, images: Tensor, verbose: int) -> Decided:
    """Decide about all images, a batch at a time; on the CPU."""
    model, parts = cascade.evidence.model, []
    with (
        cascade.evidence.evaluating(),
        torch.no_grad(),
        tqdm(
            total=len(images), unit="image", desc="examine", disable=not verbose
        ) as bar,
    ):
        # An empty batch too: it gives empty parts of the right shapes.
        for batch in model.split(images) if len(images) else [images]:
            parts.append([part.cpu() for part in cascade.decide(batch)])
            bar.update(len(batch))
    return Decided(*map(torch.cat, zip(*parts, strict=True)))


def examined(
    cascade: Cascade, images: Tensor, threshold: float, verbose: int = 0
) -> Examined:
    """Decide about all images, and flag those above a threshold; as arrays."""
    found = decided(cascade, images, verbose)
    score = found.score.numpy()
    return Examined(
        logits=found.logits.numpy(),
        score=score,
        flagged=score > threshold,
        recovered_label=found.recovered.numpy(),
        recovered_probability=found.probability.numpy(),
        stage=found.stage.numpy(),
    )
