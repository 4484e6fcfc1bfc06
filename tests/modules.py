"""Networks that tests pickle, send to other processes, or break on purpose."""

import torch
from torch import nn

from curvdetect.study.networks import load_lenet


class AnyWidth(nn.Module):
    """Three smooth logits of an input with any number of values."""

    def forward(self, x):
        x = x.flatten(1)
        weights = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype, device=x.device)
        slope, energy = x @ weights, x.square().mean(1)
        return torch.stack([slope, energy - 1, torch.sin(slope) + 0.5], dim=1)


class SmoothNet(nn.Module):
    """A small network without kinks, in double precision."""

    def __init__(self, d=6, n_classes=3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(d, 16), nn.Softplus(), nn.Linear(16, n_classes)
        )
        self.double().eval()

    def forward(self, x):
        return self.layers(x)


def smooth_lenet():
    """The shipped LeNet in double precision, its kinks replaced by smooth layers."""
    module = load_lenet("fashion-mnist")
    for layers in (module.features, module.classifier):
        for position, layer in enumerate(layers):
            if isinstance(layer, nn.ReLU):
                layers[position] = nn.Softplus(beta=10)
            elif isinstance(layer, nn.MaxPool2d):
                layers[position] = nn.AvgPool2d(2)
    return module.double().eval()


class Returns(nn.Module):
    """Returns whatever a function makes of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, x):
        return self.function(x)


def second_lenet():
    """Another network of the same kind: nearly as good, and not the same."""
    module = load_lenet("fashion-mnist")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in module.parameters():
            weight *= 1 + 0.2 * torch.randn(weight.shape, generator=generator)
    return module
