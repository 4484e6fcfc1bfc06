"""pgd_2_3_16, CIFAR-10."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="pgd_2_3_16, CIFAR-10",
    data="cifar10",
    budgets=(2, 8),
    load=of_others("pgd_2_3_16"),
    other=shipped("cifar10"),
    met_later=True,
)
