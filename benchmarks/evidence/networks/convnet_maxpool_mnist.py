"""Convnet_maxpool, MNIST."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="Convnet_maxpool, MNIST",
    data="mnist",
    budgets=(50,),
    load=of_others("Convnet_maxpool"),
    other=shipped("mnist"),
)
