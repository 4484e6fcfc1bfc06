"""Use the learned guard as a detector of pytorch-ood.

    pip install '.[attacks,ood]'
    python docs/examples/pytorch_ood_detector.py

It takes three lines, with a network and loaders as for pytorch-ood's own detectors:

    detector = CurvatureDetector(network)
    detector.fit(loader)
    scores = detector(images)

Adversarial images take the place of out-of-distribution ones. pytorch-ood's metrics
compare its energy score with two scores of ours: the learned guard's, and the largest
curvature.
"""

import torch
from pytorch_ood.detector import EnergyBased
from pytorch_ood.metrics import OODMetrics
from torch.utils.data import DataLoader, TensorDataset

from curvdetect import TorchModel
from curvdetect.attacks import make_adversarial_set, pgd
from curvdetect.integrations.pytorch_ood import CurvatureDetector
from curvdetect.study.datasets import load_fashion_mnist_sample
from curvdetect.study.networks import load_lenet

X, y = load_fashion_mnist_sample()
network = load_lenet("fashion-mnist").eval()
model = TorchModel(network, input_shape=(1, 28, 28))  # for the attack
calibration = TensorDataset(torch.from_numpy(X[:200]), torch.from_numpy(y[:200]))
attacked = make_adversarial_set(model, pgd(model, eps=16 / 255), X[200:300], y[200:300])

detectors = {
    "energy": EnergyBased(network),
    "learned": CurvatureDetector(network),
    "curvature": CurvatureDetector(network, detector="threshold"),
}
for name, detector in detectors.items():
    detector.fit(DataLoader(calibration, batch_size=64))
    metrics = OODMetrics()
    clean, adversarial = map(torch.from_numpy, (attacked.clean, attacked.adversarial))
    metrics.update(detector(clean), torch.zeros(len(clean)))  # in distribution
    metrics.update(detector(adversarial), -torch.ones(len(adversarial)))  # out of it
    print(f"{name:10} AUROC {metrics.compute()['AUROC']:.3f}")
