"""mnist-net_256x6, MNIST."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="mnist-net_256x6, MNIST",
    data="mnist",
    budgets=(50,),
    load=of_others("mnist-net_256x6"),
    other=shipped("mnist"),
    met_later=True,
)
