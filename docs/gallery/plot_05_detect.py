"""
Detect
======

*Can adversarial images be told from clean ones without learning from attacks?*

A featurizer measures the boundaries around each image, and a detector sets one
threshold on clean images alone.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.metrics import RocCurveDisplay
from sklearn.pipeline import make_pipeline

from curvdetect import CurvatureFeaturizer, CurvatureThresholdDetector
from curvdetect.attacks import make_adversarial_set, same_norm_noise
from curvdetect.plotting import ADVERSARIAL, CLEAN, AverageCurvatureDisplay
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.metrics import auroc
from curvdetect.study.networks import trained_model

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")

# %%
# An attack is any function of images and labels that returns images; this one is PGD.


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


attacked = make_adversarial_set(model, pgd, X[400:600], y[400:600])
print(
    f"PGD fools the network on {attacked.success_rate:.0%} of the images it gets right"
)

# %%
# Calibrate on images that the network was not trained on and gets right; no attack is
# needed. Then score other clean images, adversarial images, and images with noise of
# the same norm as the attack, which should not be flagged.

calibration = X[:400][model.predict(X[:400]) == y[:400]]
pipeline = make_pipeline(
    CurvatureFeaturizer(model, random_state=0),
    CurvatureThresholdDetector(target_fpr=0.05),
).fit(calibration)
featurizer, detector = pipeline

noisy = same_norm_noise(attacked.clean, attacked.control_norms, random_state=0)
sets = {"clean": attacked.clean, "adversarial": attacked.adversarial, "noisy": noisy}
features = {name: featurizer.transform(images) for name, images in sets.items()}
scores = {name: detector.score_samples(values) for name, values in features.items()}
for name, values in scores.items():
    print(
        f"{name}: {np.mean(values > detector.threshold_):.0%} of {len(values)} flagged"
    )
area = auroc(scores["clean"], scores["adversarial"])
print(f"AUROC {area.value:.2f} ({area.low:.2f} to {area.high:.2f})")

# %%
# The boundaries of each image, ordered by curvature: clean and adversarial images
# differ in the first, that with the largest curvature.

figure, (first, second, third) = plt.subplots(1, 3, figsize=(12, 4))
AverageCurvatureDisplay.from_predictions(
    features["clean"], features["adversarial"], ax=first
)
bins = np.linspace(*np.quantile(np.concatenate(list(scores.values())), [0, 0.99]), 30)
for name, colour, style in (
    ("clean", CLEAN, "-"),
    ("noisy", "#009E73", "--"),
    ("adversarial", ADVERSARIAL, "-"),
):
    second.hist(
        scores[name],
        bins,
        density=True,
        histtype="step",
        lw=1.5,
        ls=style,
        color=colour,
        label=name,
    )
second.axvline(detector.threshold_, color="0.3", ls=":", label="threshold")
second.set_xlabel("score: largest curvature (1 / input units)")
second.set_ylabel("density")
second.legend(frameon=False)
RocCurveDisplay.from_predictions(
    np.repeat([0, 1], [len(scores["clean"]), len(scores["adversarial"])]),
    np.concatenate([scores["clean"], scores["adversarial"]]),
    name="curvature",
    ax=third,
    curve_kwargs={"color": ADVERSARIAL},
    plot_chance_level=True,
    chance_level_kw={"label": "chance"},
)
third.set(xlabel="false-positive rate", ylabel="true-positive rate")
plt.show()

# %%
# These are few images; :doc:`/detection` compares this detector with others, for nine
# attacks and three networks.
