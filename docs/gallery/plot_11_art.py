"""
Inside the Adversarial Robustness Toolbox
=========================================

*Does it work where attacks and detectors are already those of ART?*

Yes: the detector is an ``EvasionDetector`` of ART. It takes bounds and normalisation
from the ART classifier.
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what ART says of itself on import
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

from curvdetect.integrations.art import CurvatureEvasionDetector
from curvdetect.plotting import ADVERSARIAL, CLEAN
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.metrics import proportion
from curvdetect.study.networks import load_lenet

X, y = load_fashion_mnist_sample()
classifier = PyTorchClassifier(
    model=load_lenet("fashion-mnist"),
    loss=torch.nn.CrossEntropyLoss(),
    input_shape=(1, 28, 28),
    nb_classes=10,
    clip_values=(0.0, 1.0),
    device_type="cpu",
)

# %%
# Fit it on clean images.

detector = CurvatureEvasionDetector(classifier, target_fpr=0.05)
detector.fit(X[:200])

# %%
# Attack other images with ART's PGD. Only those count that the network gets right
# before the attack and wrong after it.

attack = ProjectedGradientDescent(
    classifier, eps=16 / 255, eps_step=2 / 255, max_iter=20, verbose=False
)
clean, label = X[200:320], y[200:320]
attacked = attack.generate(x=clean, y=label)
right = classifier.predict(clean).argmax(axis=1) == label
fooled = right & (classifier.predict(attacked).argmax(axis=1) != label)

report_clean, flagged_clean = detector.detect(clean[right])
report_attacked, flagged_attacked = detector.detect(attacked[fooled])
for name, flagged in (("clean", flagged_clean), ("adversarial", flagged_attacked)):
    rate = proportion(flagged)
    print(
        f"{name}: {rate.value:.2f} of {len(flagged)} flagged "
        f"({rate.low:.2f} to {rate.high:.2f})"
    )

# %%
# Besides the verdict, ``detect`` returns scores, which are positive where an image is
# flagged.

figure, ax = plt.subplots(figsize=(6, 4))
scores = report_clean["scores"], report_attacked["scores"]
bins = np.linspace(*np.quantile(np.concatenate(scores), [0, 0.99]), 30)
ax.hist(scores[0], bins, color=CLEAN, alpha=0.6, label="clean")
ax.hist(scores[1], bins, histtype="step", lw=1.8, color=ADVERSARIAL, label="ART's PGD")
ax.axvline(0, color="0.3", ls=":", label="threshold")
ax.set(xlabel="score above the threshold (log-odds)", ylabel="number of images")
ax.legend(frameon=False)
plt.show()
