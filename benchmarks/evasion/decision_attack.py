r"""An attacker who sees decisions alone: HopSkipJump of foolbox on the guard's answers.

    python -m benchmarks decision-attack fashion-mnist --companions

On the first images of `learned-adaptive`, at a threshold for 5 % false alarms. The
attacker is told the label that the network gives and whether it is flagged, and no
more; he starts from the nearest image of another class that is not flagged. Beside it
the same on the network alone, with as many questions. Needs the extra foolbox.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence

import foolbox
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common.arguments import add_guards, add_out, command_parser
from benchmarks.common.results import known, write
from benchmarks.evasion.guarded import Guarded, as_list, load_guarded
from curvdetect.evasion.shortest import Succeeds, lengths, unflagged

RATE = 0.05
#: Some 5,000 questions an image.
SETTINGS = {
    "steps": 16,
    "initial_gradient_eval_steps": 100,
    "max_gradient_eval_steps": 500,
    "constraint": "l2",
}


def parser() -> argparse.ArgumentParser:
    parser = command_parser("decision-attack", __doc__)
    add_guards(parser, n_images=30)
    add_out(parser, "decision_attack.json")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # `learned` keeps what is said
    results = known(args.out, {})
    for network in args.networks:
        results[network] = found = measured(network, args)
        write(args.out, results)
        print(network, {k: np.median(v) for k, v in found["norms"].items()}, flush=True)


class Decisions(nn.Module):
    """What the attacker is told, as logits: of class 0 where he has not succeeded."""

    def __init__(self, succeeds: Succeeds, label: Tensor) -> None:
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
    guarded = load_guarded(network, args)
    threshold = guarded.thresholds[RATE]
    x, label = guarded.attackable(args.n_images, threshold)
    starts = nearest_unflagged(guarded, threshold, x, label)

    def past_the_guard(images: Tensor, labels: Tensor) -> Tensor:
        return unflagged(guarded.detector, threshold, images, labels)

    def wrong(images: Tensor, labels: Tensor) -> Tensor:
        return torch.from_numpy(guarded.network.predict(images) != labels.numpy())

    norms, asked = {}, {}
    ways = {"the network alone": wrong, "the guard": past_the_guard}
    for name, succeeds in ways.items():
        found, asked[name] = hop_skip_jump(succeeds, x, label, starts)
        norms[name] = as_list(lengths(x, found, succeeds, label))
    norms["the starts"] = as_list((starts - x).flatten(1).norm(dim=1))
    return {"n": len(x), "rate": RATE, "asked": asked, "norms": norms}


def nearest_unflagged(
    guarded: Guarded, threshold: float, x: Tensor, label: Tensor
) -> Tensor:
    """Return the nearest unflagged image of another class for each."""
    near, of = guarded.starts()
    kept = torch.from_numpy(guarded.detector.score_samples(near) <= threshold)
    near, of = near[kept], of[kept]
    distance = torch.cdist(x.flatten(1), near.flatten(1))
    return near[distance.where(of != label[:, None], torch.inf).argmin(1)]


def hop_skip_jump(
    succeeds: Succeeds, x: Tensor, label: Tensor, starts: Tensor
) -> tuple[Tensor, int]:
    """Return what the attack finds, and how often it asked about an image."""
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
    return found, decisions.asked // len(x)
