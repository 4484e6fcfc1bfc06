"""
The boundary around one image
=============================

*What does a decision boundary look like near an image?*

A network of 784 inputs cannot be drawn, a plane through a boundary point can: that of
the normal and of the tangent which leads towards the image.
"""

import matplotlib.pyplot as plt

from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.datasets import load_fashion_mnist_sample
from curvdetect.networks import trained_model
from curvdetect.plotting import BoundarySectionDisplay

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")
attacked = make_adversarial_set(
    model, MinimalNormAttack(model, factor=1.5), X[:20], y[:20]
)

# %%
# On the left an image x, and the point z of the boundary that the search found. The
# predicted region is blue and above; the boundary bends away from the image, so its
# osculating circle is below and the curvature negative. On the right the same image
# after the attack, which went across the boundary and 1.5 times as far as it had to; y
# is the clean image. What is now the predicted region bulges out: the curvature is
# positive.

step = 0.4  # about the median distance to the boundary
image, adversarial = attacked.clean[attacked.source[2]], attacked.adversarial[2]
original = int(attacked.original_label[2])

figure, axes = plt.subplots(1, 2, figsize=(10, 5.2))
BoundarySectionDisplay.from_estimator(model, image, step=step, ax=axes[0])
axes[0].set_title("around a clean image")
BoundarySectionDisplay.from_estimator(
    model, adversarial, y=image, other=original, step=step, ax=axes[1]
)
axes[1].set_title("around what the attack made of it")
plt.show()

# %%
# One tangent is not all of them: the score of a detector is the average over tangents,
# and the largest of these averages over all boundaries. :ref:`theory-at-the-boundary`
# says why the sign changes.
