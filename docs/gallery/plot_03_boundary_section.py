"""
The boundary around one image
=============================

*What does a decision boundary look like near an image?*

A network with 784 inputs cannot be drawn, but a plane through a boundary point can. We
take the plane of the normal and of the tangent that leads towards the image.
"""

import matplotlib.pyplot as plt
import numpy as np

from curvdetect import CurvatureFeaturizer
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.plotting import ADVERSARIAL, CLEAN, BoundarySectionDisplay
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import trained_model

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")
attack = MinimalNormAttack(model, factor=1.5)
attacked = make_adversarial_set(model, attack, X[:100], y[:100])

# %%
# Left: an image x, and the point z that the search found on its boundary with the class
# to which the attack led. The predicted region is blue and above. The boundary bends
# away from the image: its osculating circle is below, and the curvature is negative.
# Right: the same image after the attack, which went 1.5 times as far as needed to cross
# the boundary, and the boundary back to the original class; y is the clean image. What
# is now the predicted region bulges out, and the curvature is positive. (We chose an
# image on which this is easy to see.)

k = 10
step = 0.4  # about the median distance to the boundary
image, adversarial = attacked.clean[attacked.source[k]], attacked.adversarial[k]
original, predicted = attacked.original_label[k], attacked.predicted_label[k]

figure, axes = plt.subplots(1, 2, figsize=(10, 5.2))
BoundarySectionDisplay.from_model(model, image, other=predicted, step=step, ax=axes[0])
axes[0].set_title("around a clean image")
BoundarySectionDisplay.from_model(
    model, adversarial, y=image, other=original, step=step, ax=axes[1]
)
axes[1].set_title("around what the attack made of it")
plt.show()

# %%
# One tangent of one image says little. For all attacked images, we now average over
# tangents, on the boundary between the same two classes: the average is negative before
# the attack and positive after it. :ref:`theory-at-the-boundary` says why.

featurizer = CurvatureFeaturizer(model, step=step, random_state=0).fit(X[:100])
rows = np.arange(len(attacked.source))
before = featurizer.transform(attacked.clean[attacked.source])
before = before[rows, attacked.predicted_label]
after = featurizer.transform(attacked.adversarial)[rows, attacked.original_label]
print(f"positive before: {(before > 0).mean():.0%}, after: {(after > 0).mean():.0%}")

figure, ax = plt.subplots(figsize=(5.2, 4.4))
ax.axhline(0, color="0.4", lw=0.8)
ax.plot([0, 1], [before, after], color="0.7", lw=0.6)
ax.plot(np.zeros(len(before)), before, "o", color=CLEAN, ms=4)
ax.plot(np.ones(len(after)), after, "s", color=ADVERSARIAL, ms=4)
ax.set_xticks([0, 1], ["seen from the\nclean image", "seen from the\nattacked image"])
ax.set_xlim(-0.3, 1.3)
ax.set_ylabel("average curvature (1 / input units)")
plt.show()
