"""ViT, Fashion-MNIST."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import shipped

NETWORK = Network(
    title="ViT, Fashion-MNIST",
    data="fashion-mnist",
    budgets=(16,),
    load=shipped("fashion-mnist-vit"),
    other=shipped("fashion-mnist"),
    trained_here=True,
)
