#!/usr/bin/env bash
# torchattacks 3.5.1: where the logits of a network do not depend on the image (all ReLUs
# of a layer are off, as on a plateau of an ordinary fully connected network), DeepFool
# divides zero by zero and returns an image that is NaN all over, without a warning.
# Images of the same batch that are not on a plateau come back as they should. Whoever
# measures success by "the label has changed" counts it as one: argmax of NaN is 0.
#
# Seen on 2026-11-27 with Python 3.11, torch 2.13.0:
#
#   on the plateau: 16 of 16 values are NaN
#   beside it: 0 of 16 values are NaN

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 torchvision==0.28.0 torchattacks==3.5.1
export OMP_NUM_THREADS=1
"$work/venv/bin/python" - <<'PYTHON'
import torch
import torchattacks
from torch import nn

torch.manual_seed(0)
network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
with torch.no_grad():
    network[1].weight.abs_()
    network[1].bias.fill_(-1.5)  # all off for dark images
    network[3].bias.copy_(torch.tensor([0.0, 0.1, 0.3]))
network.eval()
images = torch.cat([torch.full((1, 1, 4, 4), 0.1), torch.full((1, 1, 4, 4), 0.9)])
labels = network(images).argmax(1)
found = torchattacks.DeepFool(network)(images, labels)
flat, other = found.isnan().flatten(1).sum(1).tolist()
print(f"on the plateau: {flat} of 16 values are NaN")
print(f"beside it: {other} of 16 values are NaN")
assert (flat, other) == (16, 0)
PYTHON
