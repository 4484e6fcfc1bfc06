"""Convnet_avgpool, MNIST."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="Convnet_avgpool, MNIST",
    data="mnist",
    budgets=(50,),
    load=of_others("Convnet_avgpool"),
    other=shipped("mnist"),
    met_later=True,
)
