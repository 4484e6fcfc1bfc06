"""mnist_relu_9_200, MNIST."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="mnist_relu_9_200, MNIST",
    data="mnist",
    budgets=(50,),
    load=of_others("mnist_relu_9_200"),
    other=shipped("mnist"),
    met_later=True,
)
