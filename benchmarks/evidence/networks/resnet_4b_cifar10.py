"""resnet_4b, CIFAR-10."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="resnet_4b, CIFAR-10",
    data="cifar10",
    budgets=(2, 8),
    load=of_others("resnet_4b"),
    other=shipped("cifar10"),
)
