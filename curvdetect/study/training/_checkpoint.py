"""The file from which training goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import joblib
import torch
from torch import Tensor

from curvdetect._base.files import written_at_once

__all__ = ["Checkpoint", "fingerprint", "name_of"]


class Checkpoint:
    """What is saved after each epoch, and to which settings it belongs.

    Parameters
    ----------
    path : str or Path or None
        The file; None saves nothing.
    parts : mapping of str to object
        What has a ``state_dict``: the network, the optimizer, the schedule.
    settings : mapping of str to object
        What the file must agree with, as JSON takes it.
    """

    def __init__(
        self,
        path: str | Path | None,
        *,
        parts: Mapping[str, Any],
        settings: Mapping[str, object],
    ) -> None:
        self.path = None if path is None else Path(path)
        self.parts = parts
        self.settings = json.dumps(settings)

    def resume(self) -> int:
        """Load what the file holds, and return how many epochs are done.

        Raises
        ------
        ValueError
            If the file is of other settings, or its folder is missing.
        """
        if self.path is None:
            return 0
        if not self.path.exists():
            if not self.path.resolve().parent.is_dir():
                raise ValueError(
                    f"checkpoint must be in a folder that exists; got {self.path}"
                )
            return 0
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        if saved["settings"] != self.settings:
            raise ValueError(
                f"checkpoint {self.path} must be of the same settings, "
                f"{self.settings}; got {saved['settings']}. Remove the file, or name "
                "another"
            )
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        return int(saved["n_epochs_done"])

    def save(self, n_epochs_done: int) -> None:
        """Save an epoch, so that the file is whole at any time."""
        if self.path is None:
            return
        saved = {name: part.state_dict() for name, part in self.parts.items()}
        whole = {**saved, "settings": self.settings, "n_epochs_done": n_epochs_done}
        # By a file of Python's: torch's own does not say why it could not be written.
        with written_at_once(self.path) as partial, partial.open("wb") as file:
            torch.save(whole, file)


def fingerprint(images: Tensor, labels: Tensor) -> str:
    """Return what tells one set of images from another."""
    return str(joblib.hash((images.numpy(), labels.numpy())))


def name_of(loss: Callable[..., Tensor]) -> str:
    """Return a name of the loss that is the same in another process."""
    if isinstance(loss, FunctionType):
        return f"{loss.__module__}.{loss.__qualname__}"
    if " object at 0x" in repr(loss):  # Python's default, with an address
        return f"{type(loss).__module__}.{type(loss).__qualname__}"
    return repr(loss)
