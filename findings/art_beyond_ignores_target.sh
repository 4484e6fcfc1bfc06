#!/usr/bin/env bash
# Adversarial Robustness Toolbox 1.20.1: BeyondDetectorPyTorch takes the classifier that it
# is to guard and says that it combines that one's predictions with those of a
# self-supervised network, but never asks it: it moves the classifier to its device, sets
# it to evaluation, and compares the second network with itself. Threshold, scores and
# verdicts are bit for bit the same for two classifiers that disagree on every image, and
# neither is called once. What the guarded classifier is fooled by plays no part.
#
# Seen on 2026-11-28 with Python 3.11, torch 2.13.0:
#
#   the two classifiers agree on 0 of 40 images
#   asked while fitting and scoring: 0 times and 0 times
#   their thresholds, scores and verdicts are the same: True
#   another self-supervised network gives the same scores: False

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 adversarial-robustness-toolbox==1.20.1 \
    numpy==2.4.6 packaging==26.4
export OMP_NUM_THREADS=1
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import torch
from art.defences.detector.evasion import BeyondDetectorPyTorch
from art.estimators.classification import PyTorchClassifier
from torch import nn


class Guarded(nn.Module):
    """Bright or dark; or, with a sign of -1, the opposite."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        over = self.sign * (images.flatten(1).mean(1) - 0.5)
        return torch.stack([-over, over], 1)


class SelfSupervised(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 8))
        self.classifier = nn.Linear(8, 2)
        self.projector = nn.Linear(8, 4)

    def forward(self, images):
        return self.classifier(self.backbone(images))


def wrapped(network):
    return PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (3, 2, 2), 2, clip_values=(0, 1), device_type="cpu"
    )


def noisy(images):
    return images + 0.1 * torch.randn_like(images)


def outcome(guarded, other, images):
    torch.manual_seed(0)
    detector = BeyondDetectorPyTorch(
        wrapped(guarded), wrapped(other), noisy, aug_num=30, var_K=20, percentile=20
    )
    guarded.calls = 0
    detector.fit(images[:20], y=None)
    scores, verdicts = detector.detect(images[20:])
    return detector.threshold, scores, verdicts


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


images = np.random.default_rng(0).random((40, 3, 2, 2), dtype=np.float32)
guarded = Guarded(1), Guarded(-1)
torch.manual_seed(0)
ssl, another = SelfSupervised(), SelfSupervised()
labels = [wrapped(network).predict(images).argmax(1) for network in guarded]
agree = int((labels[0] == labels[1]).sum())
print(f"the two classifiers agree on {agree} of 40 images")
outcomes = [outcome(network, ssl, images) for network in guarded]
calls = [network.calls for network in guarded]
print(f"asked while fitting and scoring: {calls[0]} times and {calls[1]} times")
alike = same(*outcomes)
print("their thresholds, scores and verdicts are the same:", alike)
control = same(outcomes[0], outcome(guarded[0], another, images))
print("another self-supervised network gives the same scores:", control)
assert agree == 0
assert calls == [0, 0]
assert alike
assert not control
PYTHON
