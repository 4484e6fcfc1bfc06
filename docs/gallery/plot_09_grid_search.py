"""
Grid search without measuring twice
===================================

*Which settings are best, and what does it cost to find out?*

Features cost hundreds of forward passes per image, a classifier on them almost nothing.
So let the featurizer store what it has measured.
"""

import tempfile

import matplotlib.pyplot as plt
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import RobustScaler

from curvdetect import CurvatureFeaturizer
from curvdetect.attacks import MinimalNormAttack, make_adversarial_set
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.metrics import count_passes
from curvdetect.study.networks import trained_model

X, y = load_fashion_mnist_sample()
model = trained_model("fashion-mnist")

# %%
# A clean image and its adversarial copy look alike, so both must be in the same fold:
# the groups ensure that.

attacked = make_adversarial_set(
    model, MinimalNormAttack(model, factor=2), X[:100], y[:100]
)
known = attacked.labelled()

# %%
# We search over the step, the features and two classifiers. ``layout="nearest"`` gives
# columns without NaN, ordered by distance. The featurizer's own memory also keeps the
# features of the test folds; that of a pipeline keeps only those of the training folds.

boosting = HistGradientBoostingClassifier(max_iter=50, random_state=0)
linear = make_pipeline(RobustScaler(), LogisticRegression(max_iter=1000))
folder = tempfile.TemporaryDirectory()
search = GridSearchCV(
    Pipeline(
        [
            (
                "features",
                CurvatureFeaturizer(
                    model,
                    layout="nearest",
                    n_boundaries=3,
                    random_state=0,
                    memory=folder.name,
                ),
            ),
            ("classifier", linear),
        ]
    ),
    {
        "features__step": [0.1, 0.4, 1.6],
        "features__features": [("curvature",), ("curvature", "distance")],
        "classifier": [linear, boosting],
    },
    scoring="roc_auc",
    cv=GroupKFold(3),
)
with count_passes(model.module) as first:
    search.fit(known.X, known.y, groups=known.groups)
with count_passes(model.module) as again:
    search.fit(known.X, known.y, groups=known.groups)

# %%
# Each setting of the features is measured once per fold, however many classifiers are
# tried on it. A second search measures nothing; the passes that remain are those with
# which each ``fit`` checks the network.

n_fits = len(search.cv_results_["params"]) * 3
print(f"{n_fits} fits on {len(known.X)} images")
print(f"forward passes, first search:  {first.forward_equivalents:,}")
print(f"forward passes, second search: {again.forward_equivalents:,}")

results = search.cv_results_
labels, means, errors = [], [], []
for k, setting in enumerate(results["params"]):
    kind = "boosting" if setting["classifier"] is boosting else "linear"
    what = " + ".join(setting["features__features"])
    labels.append(f"{what}, h = {setting['features__step']}, {kind}")
    means.append(results["mean_test_score"][k])
    errors.append(results["std_test_score"][k])
order = np.argsort(means)
figure, ax = plt.subplots(figsize=(8, 4.5))
ax.errorbar(
    np.array(means)[order],
    range(len(order)),
    xerr=np.array(errors)[order],
    fmt="o",
    capsize=3,
)
ax.set_yticks(range(len(order)), np.array(labels)[order])
ax.set_xlabel("AUROC: mean over three folds, and their standard deviation")
plt.show()
folder.cleanup()
