"""
Choose a false-positive rate
============================

*How many clean images are flagged, and how sure is that?*

The threshold is a conformal quantile of the scores of clean images. Its guarantee holds
for every number of them, on average over which ones they are.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from curvdetect import CurvatureFeaturizer, CurvatureThresholdDetector
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.plotting import ADVERSARIAL, CLEAN
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import trained_model

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")
right = X[model.predict(X) == y]

# %%
# Features are measured once; everything after that takes milliseconds.

featurizer = CurvatureFeaturizer(model, random_state=0).fit(right)
features = featurizer.transform(right)
attacked = make_adversarial_set(
    model, MinimalNormAttack(model, factor=2), X[:100], y[:100]
)
adversarial = featurizer.transform(attacked.adversarial)

# %%
# Set the threshold on n random clean images and apply it to the others, 300 times.

rng = np.random.default_rng(0)
target = 0.05
sizes = [19, 50, 100, 200, 400]
flagged, detected = [], []
for n in sizes:
    draws = [rng.permutation(len(features)) for _ in range(300)]
    detectors = [
        CurvatureThresholdDetector(target_fpr=target).fit(features[draw[:n]])
        for draw in draws
    ]
    flagged.append(
        [
            detector.predict(features[draw[n:]]).mean()
            for detector, draw in zip(detectors, draws, strict=True)
        ]
    )
    detected.append([detector.predict(adversarial).mean() for detector in detectors])
for n, rates in zip(sizes, flagged, strict=True):
    print(f"n = {n}: {np.mean(rates):.3f} flagged on average, at most {max(rates):.3f}")

# %%
# The average stays at or below the target for every n; how far single draws are from it
# depends on n. In theory the rate of one draw follows a beta distribution, whose middle
# 90 % are marked beside the boxes. The whiskers of the boxes span 5 to 95 % of the
# draws; they are a little longer where few other images are left.

figure, (left, right_ax) = plt.subplots(1, 2, figsize=(10, 4))
position = np.arange(len(sizes))
boxes = {"showfliers": False, "whis": (5, 95), "medianprops": {"color": "k"}}
for ax, rates, colour in ((left, flagged, CLEAN), (right_ax, detected, ADVERSARIAL)):
    ax.boxplot(
        rates,
        positions=position,
        patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.4},
        **boxes,
    )
    ax.set_xticks(position, sizes)
    ax.set_xlabel("clean images to calibrate on")
allowed = [int(target * (n + 1)) for n in sizes]
low, high = (
    [stats.beta.ppf(q, k, n + 1 - k) for n, k in zip(sizes, allowed, strict=True)]
    for q in (0.05, 0.95)
)
ends = np.concatenate([low, high])
left.plot(np.tile(position + 0.38, 2), ends, "k_", ms=9, label="middle 90 %, in theory")
left.axhline(target, color="0.4", ls="--", lw=0.8, label="target")
left.set_ylabel("share of other clean images flagged")
left.legend(frameon=False)
right_ax.set_ylabel("share of adversarial images flagged")
right_ax.set_ylim(0, 1)
plt.show()

# %%
# p-values
# --------
# If you want to choose the rate later, store the p-value of each image: for every a, a
# clean image has a p-value of at most a with probability at most a.

half = len(features) // 2
detector = CurvatureThresholdDetector(target_fpr=target).fit(features[:half])
figure, ax = plt.subplots(figsize=(5.5, 4))
for values, colour, label in (
    (features[half:], CLEAN, "other clean images"),
    (adversarial, ADVERSARIAL, "adversarial images"),
):
    ax.ecdf(detector.p_values(values), color=colour, label=label)
ax.plot([0, 1], [0, 1], color="0.4", ls="--", lw=0.8, label="uniform")
ax.set(xlabel="p-value", ylabel="share of images at or below it")
ax.legend(frameon=False)
plt.show()

# %%
# A rate of 1 % needs at least 99 images, 0.1 % needs 999. With fewer, the detector
# refuses.

try:
    CurvatureThresholdDetector(target_fpr=0.001).fit(features)
except ValueError as error:
    print(error)
