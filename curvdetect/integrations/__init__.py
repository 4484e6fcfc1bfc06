"""Adapters for other defence toolkits, one module each, imported when wanted.

:mod:`curvdetect.integrations.art` is an evasion detector of the Adversarial Robustness
Toolbox, :mod:`curvdetect.integrations.pytorch_ood` a detector of pytorch-ood and the
other way round, :mod:`curvdetect.integrations.dask` measures on a cluster.
"""
