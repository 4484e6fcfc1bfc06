"""
Guard a network of your own
===========================

*What does it take for a network that is not in the package, and how do I know that it
works?*

Wrap it with its normalisation, calibrate, and test the detector on attacks before you
rely on it. On the small network below the threshold on curvature does badly in this
test; a classifier that learns from attacks does better.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from torch import nn

from curvdetect import CurvatureFeaturizer, CurvatureThresholdDetector, TorchModel
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set, same_norm_noise
from curvdetect.plotting import ADVERSARIAL, CLEAN
from curvdetect.storage import load, save
from curvdetect.study.metrics import auroc
from curvdetect.study.networks import LeNet

# %%
# Your network: here a LeNet, trained in seconds on handwritten digits of 8 x 8 pixels.

images, y = load_digits(return_X_y=True)
X = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
n_train = 800
mean, std = float(X[:n_train].mean()), float(X[:n_train].std())

torch.manual_seed(0)
network = LeNet(image_size=8)
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
inputs, labels = (torch.from_numpy(a[:n_train]) for a in ((X - mean) / std, y))
for _epoch in range(60):
    for rows in torch.randperm(n_train).split(64):
        loss = nn.functional.cross_entropy(network(inputs[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
network.eval()

# %%
# It expects normalised images. Give the normalisation to ``TorchModel``, and images in
# [0, 1] to everything else, so that lengths and curvatures mean the same for all
# networks.

model = TorchModel(network, input_shape=(1, 8, 8), mean=mean, std=std)
print(f"test accuracy {(model.predict(X[n_train:]) == y[n_train:]).mean():.3f}")

# %%
# A test of the threshold
# -----------------------
# Calibrate on some images that the network was not trained on, attack others, and do
# not forget noise of the same norm. The two attacks need no other package.

known, test = slice(n_train, 1300), slice(1300, None)


def made_by(factor, rows):
    return make_adversarial_set(
        model, MinimalNormAttack(model, factor=factor), X[rows], y[rows]
    )


threshold = make_pipeline(
    CurvatureFeaturizer(model, random_state=0),
    CurvatureThresholdDetector(target_fpr=0.05),
).fit(made_by(1.02, known).clean)


def trial(score):
    """Return the scores of clean, noisy and attacked test images, and print AUROCs."""
    sets = {f"attacked x {factor}": made_by(factor, test) for factor in (1.02, 2)}
    longest = sets["attacked x 2"]
    scores = {
        "clean": score(longest.clean),
        "noisy": score(
            same_norm_noise(longest.clean, longest.control_norms, random_state=0)
        ),
    }
    for name, attacked in sets.items():
        scores[name] = score(attacked.adversarial)
        print(f"{name}: AUROC {auroc(scores['clean'], scores[name]).value:.2f}")
    return scores


by_threshold = trial(threshold.decision_function)

# %%
# That is poor: with 64 inputs, the boundaries hardly differ in curvature. The threshold
# was made for larger images, see :doc:`/start`. Without the test nobody would have
# known, because the false-positive rate is right all the same.
#
# A classifier that learns from attacks
# -------------------------------------
# The distance to each boundary comes with its curvature, and a classifier weighs the
# two. It learns from attacks on the known images; clean and noisy images are the
# negatives. (``GuardedClassifier`` does all of this by itself: :doc:`/guide/learned`.)

pieces, answers = [], []
for factor in (1.02, 1.5, 2):
    attacked = made_by(factor, known)
    noisy = same_norm_noise(attacked.clean, attacked.control_norms, random_state=1)
    pieces += [attacked.clean, noisy, attacked.adversarial]
    answers += [0] * len(attacked.clean) + [0] * len(noisy)
    answers += [1] * len(attacked.adversarial)

learned = make_pipeline(
    CurvatureFeaturizer(
        model, features=("curvature", "distance"), layout="nearest", random_state=0
    ),
    HistGradientBoostingClassifier(class_weight="balanced", random_state=0),
).fit(np.concatenate(pieces), answers)
by_learned = trial(lambda images: learned.predict_proba(images)[:, 1])

# %%
# Both detectors on the same test images. The classifier learned from this kind of
# attack; :doc:`/detection` has figures for others.

figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
styles = {
    "clean": (CLEAN, "-"),
    "noisy": ("#009E73", "--"),
    "attacked x 1.02": (ADVERSARIAL, "-"),
    "attacked x 2": ("#CC79A7", "-."),
}
for ax, scores in zip(axes, (by_threshold, by_learned), strict=True):
    for name, values in scores.items():
        colour, style = styles[name]
        ax.ecdf(values, complementary=True, color=colour, ls=style, label=name)
axes[0].set_xlabel("largest curvature above the threshold (1 / input units)")
axes[0].set_ylabel("share of images with a larger score")
axes[0].set_title("threshold")
axes[1].set_xlabel("probability of an attack")
axes[1].set_title("learned")
axes[0].legend(frameon=False, loc="upper right")
plt.show()

# %%
# Keep it
# -------
# The file holds arrays, settings and the weights, but no code, and nothing in it is
# executed. To load it, give a network of the same architecture, and name the types that
# are neither the package's own nor trusted by skops. ``curvdetect fit`` and
# ``curvdetect score`` save and load a ``GuardedClassifier`` from the command line.

trees = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "guard.skops"
    save(learned, path)
    again = load(path, LeNet(image_size=8), trusted=[trees])
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
print("the same:", np.array_equal(again.predict(X[test]), learned.predict(X[test])))
