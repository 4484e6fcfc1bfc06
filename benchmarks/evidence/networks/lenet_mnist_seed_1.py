"""LeNet, MNIST, seed 1."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import shipped, trained_anew

NETWORK = Network(
    title="LeNet, MNIST, seed 1",
    data="mnist",
    budgets=(50,),
    load=trained_anew("mnist", 1),
    other=shipped("mnist"),
    trained_here=True,
)
