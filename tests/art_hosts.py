"""Classifiers of ART for tests; ART must be installed."""

import torch
from art.estimators.classification import PyTorchClassifier


def art_classifier(module, **settings):
    return PyTorchClassifier(
        model=module,
        loss=torch.nn.CrossEntropyLoss(),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
        **{"input_shape": (1, 28, 28), **settings},
    )


def small_network():
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(16, 8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 3),
    )


def small(kind, module, **settings):
    return kind(
        model=module,
        loss=torch.nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        nb_classes=3,
        input_shape=(1, 4, 4),
        clip_values=(0.0, 1.0),
        device_type="cpu",
        **settings,
    )


class ManyChannels(torch.nn.Module):
    """A network of one channel, given their mean; they may come last."""

    def __init__(self, module, last):
        super().__init__()
        self.module, self.axis = module, -1 if last else 1

    def forward(self, x):
        return self.module(x.mean(dim=self.axis).unsqueeze(1))
