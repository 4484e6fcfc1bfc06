"""LeNet, Fashion-MNIST."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import shipped

NETWORK = Network(
    title="LeNet, Fashion-MNIST",
    data="fashion-mnist",
    budgets=(16,),
    load=shipped("fashion-mnist"),
    other=shipped("fashion-mnist-convnet"),
    trained_here=True,
)
