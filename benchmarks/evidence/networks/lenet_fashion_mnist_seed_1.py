"""LeNet, Fashion-MNIST, seed 1."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import shipped, trained_anew

NETWORK = Network(
    title="LeNet, Fashion-MNIST, seed 1",
    data="fashion-mnist",
    budgets=(16,),
    load=trained_anew("fashion-mnist", 1),
    other=shipped("fashion-mnist"),
    trained_here=True,
)
