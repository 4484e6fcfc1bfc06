"""
Relabel
=======

*Which label did an image have before the attack?*

The class whose boundary bulges out the most. Nothing has to be learned for this.
"""

import matplotlib.pyplot as plt
import numpy as np

from curvdetect import CurvatureFeaturizer, CurvatureRelabeler
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.plotting import ADVERSARIAL, RelabelRankDisplay
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.metrics import proportion
from curvdetect.study.networks import trained_model

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")
names = ["T-shirt", "trouser", "pullover", "dress", "coat"]
names += ["sandal", "shirt", "sneaker", "bag", "boot"]

# %%
# The attack goes 1.5 times as far as it needs to. The class of the second largest logit
# is the obvious alternative: near the boundary that was crossed it is the original
# class too, but farther away not always.

attacked = make_adversarial_set(
    model, MinimalNormAttack(model, factor=1.5), X[400:600], y[400:600]
)
featurizer = CurvatureFeaturizer(model, random_state=0).fit(X[:200])
features = featurizer.transform(attacked.adversarial)
relabeler = CurvatureRelabeler().fit(features)  # learns the number of classes alone
recovered = relabeler.predict(features)

runner_up = model.predict_logits(attacked.adversarial).argsort(axis=1)[:, -2]
for name, labels in (("curvature", recovered), ("second logit", runner_up)):
    right = proportion(labels == attacked.original_label)
    print(f"{name}: {right.value:.2f} right ({right.low:.2f} to {right.high:.2f})")

# %%
# The rank of the original label among the nine other classes:

figure, ax = plt.subplots(figsize=(5, 3.5))
RelabelRankDisplay.from_estimator(relabeler, features, attacked.original_label, ax=ax)
plt.show()

# %%
# The curvatures of some images, class by class. The predicted class has none.

figure, axes = plt.subplots(2, 4, figsize=(11, 5.5), height_ratios=[1, 1.3])
_, chosen = np.unique(attacked.original_label, return_index=True)
for (above, below), k in zip(axes.T, chosen[:4], strict=True):
    original, predicted = attacked.original_label[k], attacked.predicted_label[k]
    above.imshow(attacked.adversarial[k, 0], cmap="gray", vmin=0, vmax=1)
    above.set_axis_off()
    above.set_title(
        f"was {names[original]}, predicted {names[predicted]},\n"
        f"relabelled {names[recovered[k]]}",
        fontsize=9.5,
    )
    colours = [ADVERSARIAL if j == original else "0.6" for j in range(len(names))]
    below.barh(range(len(names)), np.nan_to_num(features[k]), color=colours)
    below.axvline(0, color="0.4", lw=0.8)
    below.invert_yaxis()
    below.set_yticks(range(len(names)), names if below is axes[1, 0] else [])
    below.set_xlabel("curvature\n(1 / input units)")
plt.show()

# %%
# ``GuardedClassifier`` replaces the network's label of a flagged image by the recovered
# one; see :doc:`/guide/decide`.
