"""A smooth network in place of a learned detector, whose trees have no gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from curvdetect._base.checks import check_count
from curvdetect.estimators._cascade import decided
from curvdetect.estimators._evidence import N_STAGES, Evidence
from curvdetect.estimators.learned import LearnedDetector, learned_detector

__all__ = ["StandIn", "answers", "neighbours_of"]

#: Largest other logits that it looks at, its width, and examples a step.
_N_RANKS, _WIDTH, _BATCH = 5, 128, 256


def neighbours_of(evidence: Evidence, x: Tensor) -> list[Tensor]:
    """Return all that a detector asks its model about besides images, with gradients.

    Parameters
    ----------
    evidence : Evidence
        What is measured.
    x : Tensor of shape (n, *input_shape)
        Images that require a gradient, or none.

    Returns
    -------
    list of Tensor
        Of the shape of x. The gradient of the two levels, which have none, goes
        straight through.
    """
    found = []
    for stage in range(1, N_STAGES):
        for inputs in evidence.neighbours(stage, x):
            for each in inputs:
                lost = x.requires_grad and not each.requires_grad
                found.append(x + (each - x).detach() if lost else each)
    return found


def answers(evidence: Evidence, inputs: list[Tensor]) -> Tensor:
    """Return what the model says of an image and its neighbours, and the companion.

    Parameters
    ----------
    evidence : Evidence
        What is measured.
    inputs : list of Tensor of shape (n, *input_shape)
        Images, then all their neighbours.

    Returns
    -------
    Tensor of shape (m, n, n_classes)
        Logits, an input after the other; with a companion, its log-probabilities of the
        images last.
    """
    logits = evidence.model.logits(torch.cat(inputs))
    logits = logits.reshape(len(inputs), len(inputs[0]), -1)
    if evidence.companion is None:
        return logits
    own = evidence.companion.log_probabilities(
        inputs[0], evidence.model.bounds, evidence.n_classes
    )
    return torch.cat([logits, own[None]])


class StandIn:
    """A smooth network that is taught the scores of a learned detector.

    It looks at the margins of the largest logits, and at how they fall from the image
    to each of its neighbours, and to the companion's. An attacker differentiates it,
    and asks the detector itself whether the result is flagged.

    Parameters
    ----------
    detector : LearnedDetector, GuardedClassifier or CurvatureGuard
        Fitted, with a learned detector.
    images : Tensor of shape (n, *input_shape)
        The attacker's own, clean and perturbed: the nearer to what an attack will try,
        the better the stand-in.
    steps : int, default=1500
        Of Adam.
    seed : int, default=0
        Of weights and batches.

    Attributes
    ----------
    threshold : float
        Of the detector.
    correlation : float
        Of its scores with the detector's, on the images that it was taught.

    Notes
    -----
    Cost: eight forward passes an image, once; then seconds.

    Examples
    --------
    >>> import torch
    >>> from curvdetect import LearnedDetector
    >>> from curvdetect.evasion import StandIn
    >>> from curvdetect.study.datasets import load_fashion_mnist_sample
    >>> from curvdetect.study.networks import load_lenet
    >>> X, y = load_fashion_mnist_sample()
    >>> detector = LearnedDetector(
    ...     load_lenet("fashion-mnist"), target_fpr=0.1, self_test=False, random_state=0
    ... ).fit(X[:90], y[:90])
    >>> stand_in = StandIn(detector, torch.from_numpy(X[90:150]), steps=200)
    >>> stand_in(torch.from_numpy(X[:3])).shape
    torch.Size([3])
    """

    def __init__(
        self,
        detector: LearnedDetector,
        images: Tensor,
        *,
        steps: int = 1500,
        seed: int = 0,
    ) -> None:
        check_count("steps", steps)
        learned = learned_detector(detector)
        self.model, self.threshold = learned.model_, float(learned.threshold_)
        self._evidence = learned._evidence()
        with self._evidence.evaluating(), torch.no_grad():
            seen = torch.cat([_seen(self._asked(b)) for b in self.model.split(images)])
        score = decided(learned._cascade(), images, 0).score.to(seen)
        self._mean, self._spread = seen.mean(0), seen.std(0).clamp_min(1e-6)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self._network = self._taught(seen, score, steps)
            with torch.no_grad():
                known = self._network((seen - self._mean) / self._spread)[:, 0]
        self.correlation = float(torch.corrcoef(torch.stack([known, score]))[0, 1])

    def __call__(self, x: Tensor) -> Tensor:
        """Return scores that can be differentiated.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images, within ``model.evaluating()``.

        Returns
        -------
        Tensor of shape (n,)
            Nearly the detector's.
        """
        return self.of_logits(self._asked(x))

    def of_logits(self, logits: Tensor) -> Tensor:
        """Return the same where the logits are known.

        Parameters
        ----------
        logits : Tensor of shape (m, n, n_classes)
            Of images, of their neighbours in the order that the detector asks in, and
            what the companion says, if there is one.

        Returns
        -------
        Tensor of shape (n,)
            Nearly the detector's.
        """
        return self._network((_seen(logits) - self._mean) / self._spread)[:, 0]

    def _asked(self, x: Tensor) -> Tensor:
        return answers(self._evidence, [x, *neighbours_of(self._evidence, x)])

    def _taught(self, seen: Tensor, score: Tensor, steps: int) -> nn.Module:
        network = nn.Sequential(
            nn.Linear(seen.shape[1], _WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.SiLU(),
            nn.Linear(_WIDTH, 1),
        ).to(seen)
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            rows = torch.randint(len(seen), (_BATCH,)).to(seen.device)
            guess = network((seen[rows] - self._mean) / self._spread)[:, 0]
            loss = nn.functional.smooth_l1_loss(guess, score[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return network.requires_grad_(False).eval()


def _seen(logits: Tensor) -> Tensor:
    """Return what a stand-in looks at, a row an image."""
    order = logits[0].detach().argsort(dim=1, descending=True)
    ranked = logits.gather(2, order.expand_as(logits))
    margins = ranked[:, :, :1] - ranked[:, :, 1 : _N_RANKS + 1]
    falls = (margins[:1] - margins[1:]).transpose(0, 1).flatten(1)
    return torch.cat([margins[0], falls, margins[1:].amin(2).T], dim=1)
