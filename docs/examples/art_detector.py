"""Guard a classifier of the Adversarial Robustness Toolbox.

    pip install '.[art]'
    python docs/examples/art_detector.py

The detector is an ART `EvasionDetector`. It is built from an ART classifier, fitted on
clean images only, and tested on an attack of ART. If you already have adversarial
images, give them too, with labels 0 for clean and 1 for adversarial, to learn from
them:

    detector.fit(np.concatenate([clean, adversarial]), y)
"""

import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier

from curvdetect.integrations.art import CurvatureEvasionDetector
from curvdetect.study.datasets import load_fashion_mnist_sample
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

detector = CurvatureEvasionDetector(classifier, target_fpr=0.05)
detector.fit(X[:200])

attack = ProjectedGradientDescent(
    classifier, eps=16 / 255, eps_step=2 / 255, max_iter=20, verbose=False
)
clean = X[200:300]
attacked = attack.generate(x=clean, y=y[200:300])
fooled = classifier.predict(attacked).argmax(axis=1) != y[200:300]
fooled &= classifier.predict(clean).argmax(axis=1) == y[200:300]

_, flagged_clean = detector.detect(clean)
report, flagged_attacked = detector.detect(attacked[fooled])
print(f"clean images flagged:       {flagged_clean.mean():.0%}")
print(f"adversarial images flagged: {flagged_attacked.mean():.0%}")
