#!/usr/bin/env bash
# pytorch-ood 0.4.0: the score of an image by OpenMax depends on what else is in the batch. It
# measures distances only to the centres of those classes that some image of the batch is
# predicted as. To all other centres the distance is left at zero, as if the image lay on
# each of them, and so counts as known there. Images scored one by one get other scores than
# in a batch: a threshold found on batches does not hold for them, and the size and order
# of batches can change what an evaluation finds.
# MaxLogit, as any score of one image should, gives the same in any company.
#
# Seen on 2026-11-28 with Python 3.11, torch 2.13.0, the same logits in four batches:
#
#   OpenMax, alone: 0.0577
#   OpenMax, beside its like: 0.0577
#   OpenMax, beside one of class 1: 0.0801
#   OpenMax, beside one of class 1 and one of class 2: 0.2705
#   MaxLogit: -4.0000 in all four

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 torchvision==0.28.0 pytorch-ood==0.4.0 \
    scipy==1.17.1 numpy==2.4.6
export OMP_NUM_THREADS=1
"$work/venv/bin/python" - <<'PYTHON'
import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # Its compiled operators do not load beside a torch for the CPU alone, and it then fails
    # for want of two names. Nothing here uses them.
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from pytorch_ood.detector import MaxLogit, OpenMax
from torch.nn import functional

torch.manual_seed(0)
labels = torch.arange(300) % 3
logits = 4.0 * functional.one_hot(labels, 3) + torch.randn(300, 3)
detectors = OpenMax(None).fit_logits(logits, labels), MaxLogit(None)
image, second, third = torch.tensor([[4.0, 1.0, 2.0], [1.0, 4.0, 2.0], [1.0, 2.0, 4.0]])
batches = {
    "alone": [image],
    "beside its like": [image, image],
    "beside one of class 1": [image, second],
    "beside one of class 1 and one of class 2": [image, second, third],
}
by_openmax, by_maxlogit = (
    [detector.predict_logits(torch.stack(batch))[0].item() for batch in batches.values()]
    for detector in detectors
)
for name, score in zip(batches, by_openmax, strict=True):
    print(f"OpenMax, {name}: {score:.4f}")
assert len(set(by_maxlogit)) == 1
print(f"MaxLogit: {by_maxlogit[0]:.4f} in all four")
alone, like, one, two = by_openmax
assert alone == like
assert min(abs(alone - one), abs(one - two), abs(alone - two)) > 0.01
PYTHON
