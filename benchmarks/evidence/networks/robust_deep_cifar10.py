"""cifar_deep_kw, CIFAR-10."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="cifar_deep_kw, CIFAR-10",
    data="cifar10",
    budgets=(2, 8),
    load=of_others("cifar_deep_kw"),
    other=shipped("cifar10"),
    met_later=True,
)
