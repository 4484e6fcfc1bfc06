"""ffnnSIGMOID__Point_6x200, MNIST."""

from benchmarks.evidence.case import Network
from benchmarks.evidence.networks._sources import of_others, shipped

NETWORK = Network(
    title="ffnnSIGMOID__Point_6x200, MNIST",
    data="mnist",
    budgets=(50,),
    load=of_others("ffnnSIGMOID__Point_6x200"),
    other=shipped("mnist"),
)
