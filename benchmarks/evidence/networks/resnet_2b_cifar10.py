"""resnet_2b, CIFAR-10."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="resnet_2b, CIFAR-10",
    data="cifar10",
    budgets=(2, 8),
    load=of_others("resnet_2b"),
    other=shipped("cifar10"),
    met_later=True,
)
