#!/usr/bin/env bash
# foolbox 3.3.4: where EADAttack and L2CarliniWagnerAttack find nothing, they return an
# image of zeros, which they never tried and never asked for, and foolbox then asks the
# classifier about that. Where black is of another class than the image, the failure is
# reported as a success, at the distance of the image from black. Other attacks (here
# DeepFool) return the image they were given, and report a failure.
# The classifier here rounds its input, as a defence by fewer levels of grey does: its
# gradient is zero, so that none of the three attacks can take a step. Where black is of
# the same class, the same failure is reported as one.
#
# Seen on 2026-11-28 with Python 3.11, torch 2.13.0:
#
#   black is of another class:
#     EADAttack: 8 of 8 successes, 8 black, 0 as they were
#     L2CarliniWagnerAttack: 8 of 8 successes, 8 black, 0 as they were
#     L2DeepFoolAttack: 0 of 8 successes, 0 black, 8 as they were
#   black is of the same class:
#     EADAttack: 0 of 8 successes, 8 black, 0 as they were
#     L2CarliniWagnerAttack: 0 of 8 successes, 8 black, 0 as they were
#     L2DeepFoolAttack: 0 of 8 successes, 0 black, 8 as they were

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 foolbox==3.3.4 eagerpy==0.30.0 numpy==2.4.6
export OMP_NUM_THREADS=1
"$work/venv/bin/python" - <<'PYTHON'
import torch
from foolbox import PyTorchModel
from foolbox.attacks import EADAttack, L2CarliniWagnerAttack, L2DeepFoolAttack
from torch import nn


class Coarse(nn.Module):
    """A linear classifier of the mean of five levels of grey: bright, or not."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, images):
        over = (torch.round(4 * images) / 4).flatten(1).mean(1) - self.limit
        return torch.stack([-over, over], 1)


def of_all(images, others):
    return int((images == others).flatten(1).all(1).sum())


torch.manual_seed(0)
images = 0.5 + 0.5 * torch.rand(8, 3, 4, 4)
expected = {
    "EADAttack": (8, 8, 0),
    "L2CarliniWagnerAttack": (8, 8, 0),
    "L2DeepFoolAttack": (0, 0, 8),
}
for word, limit in (("another", 0.3), ("the same", -0.3)):
    print(f"black is of {word} class:")
    network = Coarse(limit).eval()
    labels = network(images).argmax(1)
    black = torch.zeros_like(images)
    assert ((network(black).argmax(1) != labels) == (word == "another")).all()
    for attack in (EADAttack(steps=50), L2CarliniWagnerAttack(steps=50), L2DeepFoolAttack()):
        name = type(attack).__name__
        model = PyTorchModel(network, bounds=(0, 1), device="cpu")
        found, _, fooled = attack(model, images, labels, epsilons=None)
        seen = int(fooled.sum()), of_all(found, black), of_all(found, images)
        print(f"  {name}: {seen[0]} of 8 successes, {seen[1]} black, {seen[2]} as they were")
        successes = expected[name][0] if word == "another" else 0
        assert seen == (successes, *expected[name][1:])
PYTHON
