"""LeNet, MNIST, seed 2."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import shipped, trained_anew

NETWORK = Network(
    title="LeNet, MNIST, seed 2",
    data="mnist",
    budgets=(50,),
    load=trained_anew("mnist", 2),
    other=shipped("mnist"),
    trained_here=True,
)
