"""
An honest failure: the attacker who knows the detector
======================================================

*Does the threshold on curvature stop an attacker who knows it?*

No. The score has a gradient, and an attacker who follows it gets through. Use the
detector against attacks that were made for the network alone, and never as the only
defence.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from curvdetect import GuardedClassifier
from curvdetect.attacks import make_adversarial_set
from curvdetect.evasion import EvasionAttack, SignalScore
from curvdetect.plotting import ADVERSARIAL, CLEAN
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import trained_model

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")
guard = GuardedClassifier(model, detector="threshold", target_fpr=0.05, random_state=0)
guard.fit(X[:300], y[:300])

# %%
# PGD knows only the network. Orthogonal PGD also lowers the guard's own score, in
# directions that keep the image misclassified. Both have the same budget.


def pgd(images, labels, eps=16 / 255, steps=20):
    """Maximise the loss within `eps` of every pixel, from a random start."""
    x = (images + eps * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(steps):
        x.requires_grad_()
        loss = torch.nn.functional.cross_entropy(model.logits(x), labels)
        (gradient,) = torch.autograd.grad(loss, x)
        x = (x + eps / 8 * gradient.sign()).detach()
        x = (images + (x - images).clamp(-eps, eps)).clamp(0, 1)
    return x


attacks = {
    "PGD": pgd,
    "orthogonal PGD": EvasionAttack(
        model,
        SignalScore(guard.featurizer_),
        float(guard.detector_.threshold_),
        eps=16 / 255,
        steps=20,
    ),
}
made = {
    name: make_adversarial_set(model, attack, X[300:340], y[300:340])
    for name, attack in attacks.items()
}
scores = {"clean": guard.assess(made["PGD"].clean).score}
for name, images in made.items():
    found = guard.assess(images.adversarial)
    scores[name] = found.score
    print(
        f"{name}: fools the network on {images.success_rate:.0%} of "
        f"{len(images.clean)} images; {found.flagged.mean():.0%} of these are flagged"
    )

# %%
# Scores of all images, and one image that is flagged after PGD: to the eye the two
# attacks look alike.

figure, axes = plt.subplot_mosaic(
    [["scores", "clean", "PGD", "orthogonal PGD"]],
    figsize=(11, 3.6),
    width_ratios=[2.2, 1, 1, 1],
)
colours = {"clean": CLEAN, "PGD": ADVERSARIAL, "orthogonal PGD": "#CC79A7"}
ax = axes["scores"]
for k, (name, values) in enumerate(scores.items()):
    spread = np.random.default_rng(k).uniform(-0.2, 0.2, len(values))
    ax.plot(values, k + spread, "o", ms=4, alpha=0.7, color=colours[name])
ax.axvline(0, color="0.3", ls=":")
ax.text(0.02, -0.45, "flagged", ha="left", va="center", fontsize=9)
ax.set_yticks(range(3), list(scores))
ax.set_ylim(2.5, -0.65)
ax.set_xlabel("score above the threshold (1 / input units)")

flagged = guard.assess(made["PGD"].adversarial).flagged
caught = made["PGD"].source[flagged]
both = np.intersect1d(caught, made["orthogonal PGD"].source)[0]
pictures = {"clean": made["PGD"].clean[both]} | {
    name: images.adversarial[images.source == both][0] for name, images in made.items()
}
for name, picture in pictures.items():
    axes[name].imshow(picture[0], cmap="gray", vmin=0, vmax=1)
    axes[name].set_axis_off()
    label = model.predict(picture[None])[0]
    verdict = "flagged" if guard.assess(picture[None]).flagged[0] else "not flagged"
    axes[name].set_title(f"{name}\nclass {label}, {verdict}", fontsize=10)
plt.show()

# %%
# :doc:`/adaptive` measures how much larger the perturbation has to be, for other
# detectors and other attacks: hardly at all. :doc:`/companion` does so for the learned
# guard.
