"""
At the boundary, or at the image?
=================================

*Where should curvature be measured?*

Measuring on the level set of the margin through the image itself needs no search for a
boundary, so it is cheaper. With a long step it detects large perturbations, and misses
those that stopped just across the boundary. At the boundary it is the other way round.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from curvdetect import CurvatureFeaturizer
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.metrics import auroc, count_passes
from curvdetect.study.networks import trained_model

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")

# %%
# Attacks of growing norm: the smallest perturbation, times 1.02 and times 2, and PGD
# with growing budgets.


def pgd(eps, steps=20):
    """Return an attack that maximises the loss within `eps` of every pixel."""

    def attack(images, labels):
        x = (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
        for _ in range(steps):
            x.requires_grad_()
            loss = torch.nn.functional.cross_entropy(model.logits(x), labels)
            (gradient,) = torch.autograd.grad(loss, x)
            x = (x + eps / 8 * gradient.sign()).detach()
            x = (images + (x - images).clamp(-eps, eps)).clamp(0, 1)
        return x

    return attack


attacks = {
    f"minimal\nnorm x {factor}": MinimalNormAttack(model, factor=factor)
    for factor in (1.02, 2)
} | {f"PGD\n{eps}/255": pgd(eps / 255) for eps in (8, 16, 32, 64)}
made = {
    name: make_adversarial_set(model, attack, X[:90], y[:90])
    for name, attack in attacks.items()
}

# %%
# The score is the largest curvature, as in the threshold detector. At the boundary we
# take about the default step; at the image the same step, and one of 2 input units.

settings = {
    "at the boundary, h = 0.35": {"at": "boundary", "step": 0.35},
    "at the image, h = 0.35": {"at": "input", "step": 0.35},
    "at the image, h = 2": {"at": "input", "step": 2.0},
}
figure, ax = plt.subplots(figsize=(8, 4.4))
position = np.arange(len(made))
for k, (name, setting) in enumerate(settings.items()):
    featurizer = CurvatureFeaturizer(model, random_state=0, **setting).fit(X[400:500])
    with count_passes(model.module) as passes:
        clean = np.nanmax(featurizer.transform(X[90:180]), axis=1)
    print(f"{name}: {passes.forward_equivalents / 90:.0f} forward passes an image")
    scores = [
        np.nanmax(featurizer.transform(a.adversarial), axis=1) for a in made.values()
    ]
    value, low, high = np.array([auroc(clean, score) for score in scores]).T
    ax.errorbar(
        position + 0.06 * (k - 1),
        value,
        [value - low, high - value],
        fmt="osD"[k] + ["-", "--", ":"][k],
        capsize=3,
        label=name,
    )
ax.axhline(0.5, color="0.4", lw=0.8)
ax.text(5.1, 0.51, "chance", ha="right", va="bottom", fontsize=9)
lengths = [images.norms.mean() for images in made.values()]
ax.set_xticks(
    position,
    [f"{name}\n(L2 {length:.1f})" for name, length in zip(made, lengths, strict=True)],
    fontsize=9.5,
)
ax.set_xlabel("attack, and mean norm of its perturbations (input units)")
ax.set_ylabel("AUROC, with 95 % interval")
ax.legend(frameon=False, loc="lower center")
plt.show()

# %%
# The default is the boundary: most perturbations are small, and the original label can
# be recovered there. :ref:`theory-at-the-boundary` explains the difference. To detect
# both kinds, let a classifier learn from curvatures at the boundary and the "laplacian"
# feature, which is measured at the image: :doc:`/guide/learned`.
