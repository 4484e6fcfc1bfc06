"""A detector of pytorch-ood (extra "ood")."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from curvdetect._extras import require
from curvdetect.featurizer import CurvatureFeaturizer
from curvdetect.model import TorchModel

__all__ = ["CurvatureDetector"]

require("pytorch_ood", extra="ood")
from pytorch_ood.api import Detector, RequiresFittingException  # noqa: E402

#: Score of an image without any boundary: large, but fit for their metrics.
_NO_BOUNDARY = 1e6


class CurvatureDetector(Detector):
    """Score images by the largest average curvature of the boundaries around them.

    Parameters
    ----------
    model : TorchModel or torch.nn.Module
        The network.
    **parameters
        Of :class:`CurvatureFeaturizer`: ``at``, ``step``, ``random_state`` and others.
        The features are curvatures, one for each class.

    Examples
    --------
    See ``docs/examples/pytorch_ood_detector.py``.
    """

    requires_fit = True

    def __init__(self, model: TorchModel | torch.nn.Module, **parameters: Any) -> None:
        self.model = model
        self.featurizer = CurvatureFeaturizer(
            model, **{"random_state": 0, **parameters}
        )
        features = self.featurizer.features
        if isinstance(features, str) or tuple(features) != ("curvature",):
            raise ValueError(
                "features must be curvature alone, which is the score; got "
                f"{features!r}"
            )

    def fit(self, data_loader: Any) -> CurvatureDetector:
        """Learn the finite step from clean images.

        Parameters
        ----------
        data_loader : DataLoader
            Batches (x, y) or x of clean images; those with y < 0, which are out of
            distribution, are left out.

        Returns
        -------
        CurvatureDetector
            Itself.
        """
        batches = [
            batch[0][batch[1] >= 0] if isinstance(batch, list | tuple) else batch
            for batch in data_loader
        ]
        if not batches:
            raise ValueError("data_loader must hold at least one batch; got none")
        self.featurizer.fit(torch.cat(batches).cpu().numpy())
        return self

    def predict(self, x: Tensor) -> Tensor:
        """Score images.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images.

        Returns
        -------
        Tensor of shape (n,)
            The largest average curvature, in 1 / input units; larger means more
            anomalous. An image without any boundary gets a score above all others.

        Raises
        ------
        RequiresFittingException
            If :meth:`fit` was not called.
        """
        if not hasattr(self.featurizer, "step_"):
            raise RequiresFittingException()
        curvature = self.featurizer.transform(x.detach().cpu().numpy())
        nothing = np.isnan(curvature).all(axis=1)
        largest = np.where(np.isnan(curvature), -np.inf, curvature).max(axis=1)
        largest[nothing] = _NO_BOUNDARY
        return torch.from_numpy(largest).to(dtype=torch.float32, device=x.device)

    def to(self, device: str | torch.device) -> CurvatureDetector:
        """Move the network.

        Parameters
        ----------
        device : str or torch.device
            Where to.

        Returns
        -------
        CurvatureDetector
            Itself.
        """
        module = self.model.module if isinstance(self.model, TorchModel) else self.model
        module.to(device)
        if isinstance(self.model, TorchModel) and self.model.device is not None:
            self.model.device = device
        self._device = torch.device(device)
        return self
