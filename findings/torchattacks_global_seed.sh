#!/usr/bin/env bash
# torchattacks 3.5.1: APGD, APGDT, FAB and Square seed torch's global generator, with 0 by
# default, and leave it so. Their parameter is documented as the seed of their starting
# point; it is the seed of all that follows too: what a script draws after an attack (the
# order of the next batch, dropout, noise) no longer depends on the script's own seed, so
# that runs with different seeds are not independent, and after each attack the same
# numbers come again. AutoAttack without a seed takes the clock for one: after it, a script
# that has set its seed does not draw the same again. FGSM and PGD leave the seed alone.
#
# Seen on 2026-11-28 with Python 3.11, torch 2.13.0, the next number after an attack:
#
#   FGSM: seeds 1 and 2 differ, seed 1 again draws the same
#   PGD: seeds 1 and 2 differ, seed 1 again draws the same
#   APGD: seeds 1 and 2 draw the same, seed 1 again draws the same
#   APGDT: seeds 1 and 2 draw the same, seed 1 again draws the same
#   FAB: seeds 1 and 2 draw the same, seed 1 again draws the same
#   Square: seeds 1 and 2 draw the same, seed 1 again draws the same
#   AutoAttack: seeds 1 and 2 differ, seed 1 again differs

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 torchvision==0.28.0 torchattacks==3.5.1
export OMP_NUM_THREADS=1
"$work/venv/bin/python" - <<'PYTHON'
import time

import torch
import torchattacks
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(12, 10)).eval()
images = torch.rand(4, 3, 2, 2)
labels = network(images).argmax(1)
options = {
    "FGSM": {},
    "PGD": {},
    "APGD": {},
    "APGDT": {"n_classes": 10},
    "FAB": {"n_classes": 10},
    "Square": {"n_queries": 20},
    "AutoAttack": {"n_classes": 10, "eps": 1.0},
}


def next_number(name, seed):
    torch.manual_seed(seed)
    getattr(torchattacks, name)(network, **options[name])(images, labels)
    number = torch.rand((), dtype=torch.float64).item()
    if name == "AutoAttack":
        time.sleep(1.1)  # the clock's seed is of whole seconds
    return number


def word(same):
    return "draw the same" if same else "differ"


seen = {}
for name in options:
    first, second, again = (next_number(name, seed) for seed in (1, 2, 1))
    seen[name] = first == second, first == again
    repeated = "draws the same" if first == again else "differs"
    print(f"{name}: seeds 1 and 2 {word(first == second)}, seed 1 again {repeated}")
assert seen == {
    "FGSM": (False, True),
    "PGD": (False, True),
    "APGD": (True, True),
    "APGDT": (True, True),
    "FAB": (True, True),
    "Square": (True, True),
    "AutoAttack": (False, False),
}
PYTHON
