"""An attacker who sees decisions alone: HopSkipJump of foolbox on the guard's answers.

    python benchmarks/decision_attack.py fashion-mnist mnist --companions DIR --out FILE

On the first images of `learned_adaptive.py`, at a threshold for 5 % false alarms. The
attacker is told the label that the network gives and whether it is flagged, and no
more; he starts from the nearest image of another class that is not flagged. Beside it
the same on the network alone, with as many questions.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import foolbox
import numpy as np
import torch
from learned import companion_of, loaded
from learned_adaptive import in_lines, lengths, unflagged
from torch import Tensor, nn

from curvdetect import LearnedDetector
from curvdetect.estimators.detector import conformal_threshold

RATE = 0.05
#: Some 5,000 questions an image.
SETTINGS = {
    "steps": 16,
    "initial_gradient_eval_steps": 100,
    "max_gradient_eval_steps": 500,
    "constraint": "l2",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--strangers", help="folder of the strangers' networks")
    parser.add_argument("--data-dir")
    parser.add_argument("--companions", type=Path, help="folder of `companions.py`")
    parser.add_argument("--n-images", type=int, default=30)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.weights = None
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # `learned.py` keeps what is said
    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    for network in args.networks:
        known[network] = found = measured(network, args)
        args.out.write_text(in_lines(known))
        print(network, {k: np.median(v) for k, v in found["norms"].items()}, flush=True)


class Decisions(nn.Module):
    """What the attacker is told, as logits: of class 0 where he has not succeeded."""

    def __init__(self, succeeds, label: Tensor) -> None:
        super().__init__()
        self.succeeds, self.label, self.asked = succeeds, label, 0

    def forward(self, x: Tensor) -> Tensor:
        # foolbox asks about copies of all images at once, in the same order.
        self.asked += len(x)
        label = self.label.repeat(len(x) // len(self.label))
        done = self.succeeds(x.clamp(0, 1), label)
        return nn.functional.one_hot(done.long(), 2).to(x)


def measured(network: str, args: argparse.Namespace) -> dict:
    """Return the smallest norms, with the guard and without."""
    model, data, fit, (X, y), (X_more, y_more) = loaded(network, args)
    companion = companion_of(data, args)
    detector = LearnedDetector(
        model, companion=companion, target_fpr=0.01, self_test=False, random_state=0
    ).fit(*fit)
    threshold = conformal_threshold(detector.clean_scores_, RATE)
    seen = detector.examine(X)
    kept = (seen.logits.argmax(1) == y) & (seen.score <= threshold)
    x = torch.from_numpy(X[kept][: args.n_images])
    label = torch.from_numpy(y[kept][: args.n_images])
    right = detector.model_.predict(X_more) == y_more
    right &= detector.score_samples(X_more) <= threshold
    near, of = torch.from_numpy(X_more[right]), torch.from_numpy(y_more[right])
    distance = torch.cdist(x.flatten(1), near.flatten(1))
    starts = near[distance.where(of != label[:, None], torch.inf).argmin(1)]

    def guarded(images: Tensor, labels: Tensor) -> Tensor:
        return unflagged(detector, threshold, images, labels)

    def alone(images: Tensor, labels: Tensor) -> Tensor:
        return torch.from_numpy(detector.model_.predict(images) != labels.numpy())

    norms, asked = {}, {}
    for name, succeeds in (("the network alone", alone), ("the guard", guarded)):
        decisions = Decisions(succeeds, label).eval()
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002, foolbox draws from it
        found, _, _ = foolbox.attacks.HopSkipJumpAttack(**SETTINGS)(
            foolbox.PyTorchModel(decisions, bounds=(0, 1), device="cpu"),
            x,
            torch.zeros(len(x), dtype=torch.long),
            starting_points=starts,
            epsilons=None,
        )
        norms[name] = lengths(x, found, succeeds, label)
        asked[name] = decisions.asked // len(x)
    norms["the starts"] = [
        round(float(n), 4) for n in (starts - x).flatten(1).norm(dim=1)
    ]
    return {"n": len(x), "rate": RATE, "asked": asked, "norms": norms}


if __name__ == "__main__":
    main()
