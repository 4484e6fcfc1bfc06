"""Attack a guarded network with and without knowledge of the guard.

    pip install '.[attacks]'
    python docs/examples/adaptive_attack.py

The guard is a threshold on curvature. With the same budget, PGD fools the network but
is mostly flagged, and orthogonal PGD, which follows the gradient of the guard's own
score, fools both.
"""

from curvdetect import GuardedClassifier, TorchModel
from curvdetect.attacks import make_adversarial_set, pgd
from curvdetect.evasion import EvasionAttack, SignalScore
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet

X, y = load_fashion_mnist_sample()
model = TorchModel(load_lenet("fashion-mnist"), input_shape=(1, 28, 28))
guard = GuardedClassifier(model, detector="threshold", target_fpr=0.05, random_state=0)
guard.fit(X[:300], y[:300])

eps = 16 / 255
attacks = {
    "PGD": pgd(model, eps=eps),
    "orthogonal PGD": EvasionAttack(
        model,
        SignalScore(guard.featurizer_),
        float(guard.detector_.threshold_),
        eps=eps,
        steps=20,
    ),
}
for name, attack in attacks.items():
    made = make_adversarial_set(model, attack, X[300:340], y[300:340])
    flagged = guard.assess(made.adversarial).flagged
    print(
        f"{name}: fools the network on {made.success_rate:.0%} of "
        f"{len(made.clean)} images; flagged: {flagged.mean():.0%}"
    )
