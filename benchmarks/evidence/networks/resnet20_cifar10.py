"""ResNet-20, CIFAR-10."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="ResNet-20, CIFAR-10",
    data="cifar10",
    budgets=(2, 8),
    load=shipped("cifar10"),
    other=of_others("resnet_4b"),
)
