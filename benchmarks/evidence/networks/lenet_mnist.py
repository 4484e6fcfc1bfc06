"""LeNet, MNIST."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import shipped, trained_anew

NETWORK = Network(
    title="LeNet, MNIST",
    data="mnist",
    budgets=(50,),
    load=shipped("mnist"),
    other=trained_anew("mnist", 1),
    trained_here=True,
)
