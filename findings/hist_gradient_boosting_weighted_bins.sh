#!/usr/bin/env bash
# scikit-learn 1.9.1: with sample_weight, HistGradientBoostingClassifier spends most of a
# short fit on finding its bins: a weighted percentile for each of 254 cuts of each
# column, one after the other in Python. Without weights one call of NumPy does it for a
# column. Columns with no more than max_bins different values take another way, and cost
# nothing: so positions among cuts of one's own are as good, and quick.
#
# Seen on 2026-11-27 with Python 3.11, 30,000 rows, 20 columns, 20 trees, one thread:
#
#   without weights 0.23 s, with weights 5.56 s
#   with weights, few different values 0.22 s

set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scikit-learn==1.9.1 numpy==2.4.6
export OMP_NUM_THREADS=1
"$work/venv/bin/python" - <<'PYTHON'
import time

import numpy as np
import sklearn
from sklearn.ensemble import HistGradientBoostingClassifier

rng = np.random.default_rng(0)
X = rng.normal(size=(30_000, 20))
y = X[:, 0] * X[:, 1] > 0
weight = rng.uniform(0.5, 2, len(X))
cuts = np.quantile(X, np.linspace(0, 1, 65)[1:-1], axis=0)
codes = np.stack([np.searchsorted(c, x) for c, x in zip(cuts.T, X.T)], axis=1)


def seconds(X, **fit):
    learner = HistGradientBoostingClassifier(max_iter=20, early_stopping=False)
    start = time.perf_counter()
    learner.fit(X, y, **fit)
    return time.perf_counter() - start


seconds(X)  # the first is slower
plain, weighted = seconds(X), seconds(X, sample_weight=weight)
coded = seconds(codes, sample_weight=weight)
print(f"scikit-learn {sklearn.__version__}")
print(f"without weights {plain:.2f} s, with weights {weighted:.2f} s")
print(f"with weights, few different values {coded:.2f} s")
assert weighted > 4 * plain, "weights no longer cost much"
assert coded < weighted / 4
PYTHON
echo "as described"
