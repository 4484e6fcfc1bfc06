"""`TorchModel`: the one place that touches a torch module."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from curvdetect._base.checks import check_bounds
from curvdetect._base.warn import warn
from curvdetect.geometry import ClassLoss, PairwiseMargin
from curvdetect.network._batch_size import activation_bytes, fitting_rows
from curvdetect.network._evaluating import evaluating
from curvdetect.network._outputs import as_logits
from curvdetect.network._preparing import clamped, lies_outside, normalised
from curvdetect.network._trial import (
    cannot_be_called,
    check_answers,
    warn_of_answers,
)
from curvdetect.network.arrays import as_array, dense, from_numpy
from curvdetect.network.checks import (
    check_batch_size,
    check_channels,
    check_clamp,
    check_class_names,
    check_finite,
    check_input_shape,
    check_n_class_names,
    check_shape,
    check_std,
    check_weights,
    check_within,
    outside_bounds,
    warn_of_units,
)
from curvdetect.network.exported import as_exported_module
from curvdetect.network.fingerprint import (
    changed_by,
    weights_digest,
    weights_token,
)
from curvdetect.network.modules import (
    NormalisedModule,
    TrainableModule,
    device_of,
    dtype_of,
    moved,
    uncompiled,
    working_dtype,
)
from curvdetect.network.portable import portable
from curvdetect.network.preparation import Preparation, check_preparation
from curvdetect.network.sources.onnx import of_onnx
from curvdetect.network.sources.timm import of_timm
from curvdetect.network.sources.torchvision import of_torchvision
from curvdetect.network.sources.transformers import of_transformers

__all__ = ["TorchModel"]

Clamp: TypeAlias = Literal[False, True, "inside"]


class TorchModel:
    """Wrap a trained torch image classifier: its inputs, normalisation and device.

    Calls do not change the module: each runs in eval mode, computes gradients of the
    input only, and leaves the training mode, ``requires_grad``, ``.grad`` and the
    random number generators as they were, even after an error.

    ``sklearn.clone`` shares the wrapper and pickle copies it. ``joblib.hash`` depends
    only on weights and settings, so it is the same for every copy and in every process.
    A copy from a pickle is on the CPU unless `device` was given.

    Parameters
    ----------
    module : torch.nn.Module
        The network: (n, *input_shape) -> (n, n_classes) logits. It is not copied, and
        moved to `device` if that is given. If ``torch.compile`` compiled it, the
        original module is used.
    input_shape : tuple of int or None
        Shape of one input, (channels, height, width) for images. None accepts inputs
        of any shape.
    bounds : (float, float) or None, default=(0.0, 1.0)
        Smallest and largest value of an input. Inputs outside are refused; None
        switches this check off.
    mean, std : float or sequence of float, optional
        Normalisation: the network gets (x - mean) / std, per channel. Lengths and
        curvatures refer to x, before this normalisation.
    device : str or torch.device, optional
        Where to compute; by default where the module is.
    batch_size : int, optional
        Rows given to the module at a time. By default as many as keep its
        activations in the cache, at most 128 on a CPU and 8,192 on a GPU.
    clamp : bool or "inside", default=False
        Whether values outside `bounds` are moved onto them before the module gets
        them. Measuring around an image steps outside the bounds; a module that must not
        be called there (it takes a root or a logarithm, or checks its input) needs
        this. The clamped network x -> f(clamp(x)) is then measured, which is flat
        outside the bounds; the gradient of the clamp is 1 on the bounds themselves.
        "inside" moves values a millionth of the range further in, for a module that
        clamps its input itself and has no gradient at black and white.
    class_names : sequence of str, optional
        Names of the classes in the order of the logits, for tables and pictures.
    preparation : Preparation, optional
        How a picture of any size becomes an input; see
        :class:`curvdetect.network.Preparation`. It applies to files of pictures only;
        arrays are taken as inputs.

    See Also
    --------
    TorchModel.from_timm, TorchModel.from_torchvision, TorchModel.from_transformers :
        Networks from libraries, with the libraries' settings.
    TorchModel.from_onnx : Networks in ONNX files.

    Raises
    ------
    TypeError
        If `module` is not a torch module.
    ValueError
        If another parameter is not allowed.

    Examples
    --------
    >>> import numpy as np
    >>> from curvdetect import TorchModel
    >>> from curvdetect.study.networks import LeNet
    >>> model = TorchModel(LeNet().eval(), input_shape=(1, 28, 28))
    >>> model.predict_logits(np.zeros((2, 1, 28, 28))).shape
    (2, 10)
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        input_shape: Sequence[int] | None,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        device: str | torch.device | None = None,
        batch_size: int | None = None,
        clamp: Clamp = False,
        class_names: Sequence[str] | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        module = as_exported_module(module)
        if not isinstance(module, nn.Module):
            held = isinstance(getattr(module, "module_", None), nn.Module)  # skorch's
            raise TypeError(
                f"module must be a torch.nn.Module; got {type(module).__name__}"
                + (". Give its module_" * held)
            )
        module = uncompiled(module)
        self.input_shape = check_input_shape(input_shape)
        self.bounds = check_bounds(bounds)
        self.mean = check_channels(mean, "mean", self.input_shape)
        self.std = check_channels(std, "std", self.input_shape)
        check_std(self.std)
        check_batch_size(batch_size)
        check_clamp(clamp, self.bounds)
        self.class_names = check_class_names(class_names)
        self.preparation = check_preparation(preparation, self.input_shape)
        check_weights(module)
        for name in ("mean", "std"):
            warn_of_units(name, getattr(self, name), self.bounds)
        if getattr(module, "training", False):  # a frozen script has no mode
            warn(
                "module is in training mode (dropout and batch normalisation behave "
                "differently there); it will be used in eval mode. Call "
                "module.eval() to silence this."
            )
        self.module = module if device is None else moved(module, device)
        self.device = device
        self.batch_size = batch_size
        self.clamp = clamp
        self._known: dict[Any, Any] = {}  # learned by calling; not pickled, not hashed

    def __repr__(self) -> str:
        clamp = f", clamp={self.clamp!r}" if self.clamp else ""
        return (
            f"TorchModel({type(self.module).__name__}, input_shape={self.input_shape}, "
            f"bounds={self.bounds}{clamp})"
        )

    # Networks from libraries ----------------------------------------------------

    @classmethod
    def from_timm(
        cls, name: str | nn.Module, *, pretrained: bool = True, **settings: Any
    ) -> TorchModel:
        """Wrap a network from timm, with timm's settings.

        Parameters
        ----------
        name : str or torch.nn.Module
            A name from ``timm.list_models()``, or what ``timm.create_model`` returned.
        pretrained : bool, default=True
            Whether to download the weights (or take them from timm's cache); otherwise
            they are random. No effect if `name` is a module.
        **settings
            Parameters of :class:`TorchModel`, such as `device` or `clamp`;
            `input_shape`, `mean`, `std`, `class_names` and `preparation` replace those
            of timm.

        Returns
        -------
        TorchModel
            With the shape, normalisation and preparation of its ``pretrained_cfg``, and
            with class names if timm knows them.

        Raises
        ------
        ValueError
            If timm has no network of this name, or no weights for it, or the network
            returns features instead of logits.
        ImportError
            If timm is not installed (extra "timm").
        """
        shape = check_input_shape(settings.get("input_shape"))
        found = of_timm(name, pretrained=pretrained, input_shape=shape)
        return cls._from(found, settings)

    @classmethod
    def from_torchvision(
        cls, name: Any, *, weights: Any = "DEFAULT", **settings: Any
    ) -> TorchModel:
        """Wrap a network from torchvision, with the settings of its weights.

        Parameters
        ----------
        name : str, WeightsEnum or torch.nn.Module
            A name from ``torchvision.models.list_models()``; or weights, such as
            ``ResNet50_Weights.IMAGENET1K_V2`` or this as a string; or a network that
            was made with `weights`.
        weights : str, WeightsEnum or None, default="DEFAULT"
            Which weights to download or take from torch's cache, such as
            "IMAGENET1K_V1". None gives random weights, with the preparation and class
            names of the default weights or of those in `name`. If `name` is a module,
            these are the weights that it has, which are not loaded again.
        **settings
            As in :meth:`from_timm`.

        Returns
        -------
        TorchModel
            With the shape, normalisation, preparation and class names of the weights.

        Raises
        ------
        ValueError
            If torchvision has no classifier of this name, or no such weights, or they
            belong to another network.
        ImportError
            If torchvision is not installed (extra "vision").
        """
        return cls._from(of_torchvision(name, weights), settings)

    @classmethod
    def from_transformers(
        cls,
        name: Any,
        processor: Any = None,
        *,
        pretrained: bool = True,
        **settings: Any,
    ) -> TorchModel:
        """Wrap an image classifier from transformers, with its image processor.

        Parameters
        ----------
        name : str, Path or torch.nn.Module
            A name on Hugging Face's hub, or a folder that ``save_pretrained`` wrote;
            code in it is not executed. Or the network itself, such as a
            ``ViTForImageClassification``.
        processor : image processor, str or Path, optional
            An image processor of transformers, or the place to load it from; by default
            that of the network. Needed for a module that does not record where it came
            from.
        pretrained : bool, default=True
            Whether to load the weights, in single precision; otherwise they are random.
            No effect if `name` is a module.
        **settings
            As in :meth:`from_timm`.

        Returns
        -------
        TorchModel
            With the shape, normalisation and preparation of the processor, and the
            names of ``config.id2label``.

        Raises
        ------
        ValueError
            If there is no such network, its weights lack the last layer, it does not
            put each image into one class (``config.problem_type``), or the processor
            does what a :class:`~curvdetect.network.Preparation` and a normalisation
            cannot express.
        ImportError
            If transformers is not installed (extra "transformers").
        """
        return cls._from(
            of_transformers(name, processor, pretrained=pretrained), settings
        )

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        *,
        input_shape: Sequence[int] | None = None,
        **settings: Any,
    ) -> TorchModel:
        """Wrap a network from an ONNX file, which onnx2torch reads.

        Parameters
        ----------
        path : str or Path
            The file. It holds operations and numbers; only operations that onnx2torch
            knows are executed. Of others, the same in older or newer ones, as
            ``onnx.version_converter`` writes them, or in what ONNX says they are made
            of, such as Gelu.
        input_shape : tuple of int, optional
            Shape of one input; by default that in the file.
        **settings
            As in :meth:`from_timm`. The file does not give `mean`, `std`, `class_names`
            or `preparation`.

        Returns
        -------
        TorchModel
            A model for batches of any size.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it cannot be read, takes anything but one batch of images in
            floating-point numbers, does not take batches of any size, or does not give
            the shape of its input.
        ImportError
            If onnx2torch is not installed (extra "onnx").
        """
        return cls._from(of_onnx(path, input_shape), settings)

    @classmethod
    def _from(
        cls, found: tuple[nn.Module, dict[str, Any]], settings: dict[str, Any]
    ) -> TorchModel:
        """Wrap a network as its library says, but for what the user says."""
        module, of_library = found
        shape = check_input_shape(settings.get("input_shape"))
        preparation = of_library.get("preparation")
        if shape is not None and len(shape) == 3 and preparation is not None:
            of_library = {**of_library, "preparation": preparation.for_size(*shape[1:])}
        return cls(module, **{**of_library, **settings})

    # Copies ----------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        stands_for = portable(self.module)
        stands_for.left_behind = self._left_behind()
        return {**vars(self), "module": stands_for, "_known": {}}

    def _left_behind(self) -> dict[str, set[str]]:
        """Return what a call leaves in the module, found by a call; once."""
        if "left behind" not in self._known and self.input_shape is not None:
            one = self._placed(self._blank(self.input_shape))
            try:
                with self.evaluating(), torch.no_grad():
                    left = changed_by(self.module, lambda: self.logits(one))
            except Exception:  # it cannot be called: then nothing is left
                left = {}
            self._known["left behind"] = left
        known: dict[str, set[str]] = self._known.get("left behind", {})
        return known

    def weights_digest(self) -> str:
        """Return a digest of weights and buffers.

        Returns
        -------
        str
            The same in every copy and process, on every device; another for other
            values. Taken anew only where something moved.
        """
        token = weights_token(self.module)
        if "digest" not in self._known or self._known["digest"][0] != token:
            digest = weights_digest(self.module, without=self._left_behind())
            self._known["digest"] = weights_token(self.module), digest
        known: str = self._known["digest"][1]
        return known

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.device is not None and torch.device(self.device).type != "cpu":
            if not torch.cuda.is_available():
                self.device = None  # saved on a GPU, loaded where there is none
            self.module.to(self.device)

    def __sklearn_clone__(self) -> TorchModel:
        return self  # a network is shared, not copied

    # Calling the network ---------------------------------------------------

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Hold the module in eval mode, with gradients to its input only.

        Yields
        ------
        None
            On leaving, also by an exception, training mode, ``requires_grad`` and
            the random number generators are what they were.

        Notes
        -----
        Nested calls cost nothing. Threads that share the module, or a part of it, take
        turns. Autocast and TF32 are off: second differences would drown in their
        rounding. What is compiled is run as it was before. Buffers and attributes that
        a forward pass changes are put back.
        """
        with evaluating(self.module, self.device):
            yield

    def logits(self, x: Tensor) -> Tensor:
        """Call the network on one batch, differentiably with respect to the input.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            On the model's device and in its dtype. Not checked.

        Returns
        -------
        Tensor of shape (n, n_classes)
            Logits.

        Raises
        ------
        ValueError
            If the module raises for inputs outside `bounds`, and would not with
            ``clamp=True``. What it raises itself is raised as it is.
        """
        with self.evaluating():
            try:
                output = self._call(x, clamp=self.clamp)
            except Exception as error:
                if self.bounds is not None and self._bounds_are_why(x):
                    raise outside_bounds(self.bounds, error) from error
                raise
        return as_logits(output, x.shape[0]).to(x.dtype)

    def _call(self, x: Tensor, *, clamp: Clamp) -> Any:
        given = x
        if clamp and self.bounds is not None:
            x = clamped(x, self.bounds, inside=self.clamp == "inside")
        x = normalised(x, self.mean, self.std, self._known)
        x = x.to(dtype_of(self.module, x))
        if x is given:  # a module may write to what it gets: not to what is the user's
            x = x.clone()
        return self.module(x)

    def _bounds_are_why(self, x: Tensor) -> bool:
        """Say whether a module that raised would not, asked within the bounds."""
        if self.bounds is None or self.clamp:
            return False
        try:
            if not lies_outside(x, self.bounds):
                return False
            with torch.no_grad():
                self._call(x, clamp=True)
        except Exception:  # there is another reason, and it is known already
            return False
        return True

    def margin(self, predicted: Tensor, other: Tensor) -> PairwiseMargin:
        """Return the margin f_i - f_j of a pair of classes for every row.

        Parameters
        ----------
        predicted, other : Tensor of shape (n,), int64
            Classes i and j of each row.

        Returns
        -------
        PairwiseMargin
            For all functions of :mod:`curvdetect.geometry`, called within
            :meth:`evaluating`: on a GPU, gradients are exact only there.
        """
        return PairwiseMargin(self.logits, predicted, other)

    def loss(self, label: Tensor) -> ClassLoss:
        """Return the cross-entropy as a function of the input, for every row.

        Parameters
        ----------
        label : Tensor of shape (n,), int64
            The label of each row. For another loss, see
            :class:`curvdetect.geometry.ClassLoss`.

        Returns
        -------
        ClassLoss
            For all functions of :mod:`curvdetect.geometry`, called within
            :meth:`evaluating`.
        """
        return ClassLoss(self.logits, label)

    def clamped(self) -> TorchModel:
        """Return the same network, clamped to its bounds.

        Returns
        -------
        TorchModel
            x -> f(clamp(x)), sharing the module; this one where it is clamped already
            or has no bounds.
        """
        if self.clamp or self.bounds is None:
            return self
        twin = object.__new__(TorchModel)
        vars(twin).update(vars(self), clamp=True, _known={})
        return twin

    def as_module(self, *, trainable: bool = False) -> nn.Module:
        """Return the network with its normalisation, in eval mode, for attacks.

        Parameters
        ----------
        trainable : bool, default=False
            True for training: its mode is the module's, and weights have gradients.

        Returns
        -------
        torch.nn.Module
            Maps inputs within `bounds` to logits; shares the weights.
        """
        return TrainableModule(self) if trainable else NormalisedModule(self)

    def predict_logits(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[Any]:
        """Compute logits.

        Parameters
        ----------
        X : array or Tensor of shape (n_samples, *input_shape) or (n_samples, d)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Logits. Cost: one forward pass an image.

        Raises
        ------
        ValueError
            If the inputs or the logits are not what they must be.
        """
        x = self.to_tensor(X)
        with self.evaluating(), torch.no_grad():
            logits = [self.logits(rows) for rows in self.split(x)]
        if not logits:
            return np.empty((0, self.n_classes), dtype=np.float32)
        result = torch.cat(logits)
        check_finite(result)
        return as_array(result)

    def predict(self, X: npt.ArrayLike | Tensor) -> npt.NDArray[np.int64]:
        """Predict the class of each input, as a number 0 .. n_classes - 1.

        Parameters
        ----------
        X : array or Tensor of shape (n_samples, *input_shape) or (n_samples, d)
            Inputs.

        Returns
        -------
        ndarray of shape (n_samples,), int64
            Index of the largest logit.
        """
        return self.predict_logits(X).argmax(axis=1)

    @property
    def n_classes(self) -> int:
        """Number of logits; learned from the first batch, or from a blank input."""
        if "n_classes" not in self._known:
            if self.input_shape is None:
                raise ValueError(
                    "n_classes is known once the model was checked on an input, "
                    "because input_shape is None; call check(x) first"
                )
            self.check(self._blank(self.input_shape))
        return self._known["n_classes"]

    # Inputs ----------------------------------------------------------------

    def to_tensor(self, X: npt.ArrayLike | Tensor) -> Tensor:
        """Check inputs and give them their shape; they stay where they are.

        Parameters
        ----------
        X : array or Tensor of shape (n_samples, *input_shape) or (n_samples, d)
            Inputs.

        Returns
        -------
        Tensor of shape (n_samples, *input_shape)
            Sharing memory with `X` where that is possible.

        Raises
        ------
        ValueError
            If the shape is wrong, or a value is not finite or outside `bounds`.
        """
        x = dense(X).detach() if isinstance(X, Tensor) else from_numpy(X)
        x = self._shaped(x)
        if not x.numel():
            return x
        low, high = float(x.min()), float(x.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("X must be finite; got NaN or infinity")
        if self.bounds is not None:
            check_within(low, high, self.bounds)
        return x

    def _shaped(self, x: Tensor) -> Tensor:
        if self.input_shape is None:
            return x
        check_shape(tuple(x.shape), self.input_shape)
        return x.reshape(-1, *self.input_shape)

    def split(self, x: Tensor, size: int | None = None) -> Iterator[Tensor]:
        """Cut checked inputs into batches, on the device and in the module's dtype.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            As :meth:`to_tensor` returns it.
        size : int, optional
            Rows a batch; the model's batch size by default.

        Yields
        ------
        Tensor of shape (m, *input_shape)
            One batch.
        """
        if not len(x):
            return
        device, dtype = self._torch_device(), self._working_dtype(x)
        for batch in x.split(size or self.rows_per_batch(x[:1])):
            yield batch.to(device=device, dtype=dtype)

    def rows_per_batch(self, x: Tensor) -> int:
        """Return how many rows the module is given at a time.

        Parameters
        ----------
        x : Tensor of shape (1, *input_shape)
            Any input: its activations are measured once, by one forward pass.

        Returns
        -------
        int
            `batch_size`, or what fits the cache.
        """
        if self.batch_size is not None:
            return self.batch_size
        kind = "cpu" if self._torch_device().type == "cpu" else "cuda"
        known = f"batch_size on {kind}"  # the module may be moved
        if known not in self._known:
            one = self._placed(x)
            needed = activation_bytes(self.module, lambda: self.logits(one))
            self._known[known] = fitting_rows(kind, needed)
        return self._known[known]

    def _blank(self, input_shape: tuple[int, ...]) -> Tensor:
        """Return one input, grey."""
        low, high = self.bounds or (0.0, 1.0)
        return torch.full((1, *input_shape), (low + high) / 2)

    def _placed(self, x: Tensor) -> Tensor:
        """Return checked inputs where and in what the module computes."""
        return x.to(device=self._torch_device(), dtype=self._working_dtype(x))

    def _torch_device(self) -> torch.device:
        return torch.device(self.device or device_of(self.module))

    def _working_dtype(self, x: Tensor) -> torch.dtype:
        return working_dtype(dtype_of(self.module, x))

    # Checks ----------------------------------------------------------------

    def check(self, X: npt.ArrayLike | Tensor) -> None:
        """Try the module on a few inputs and explain what is wrong with it.

        Parameters
        ----------
        X : array or Tensor of shape (n_samples, *input_shape) or (n_samples, d)
            A few inputs; three calls are made.

        Raises
        ------
        ValueError
            If the module cannot be called on such inputs, or its output is not one
            finite row of at least two logits per input, differs between two calls,
            or depends on the other rows; or there are more or fewer class names than
            logits.

        Warns
        -----
        UserWarning
            If the output looks like probabilities, or has half precision.
        """
        x = self._placed(self.to_tensor(X))
        with self.evaluating():
            with torch.no_grad():
                try:
                    output = self._call(x, clamp=self.clamp)
                except Exception as error:
                    raise cannot_be_called(error, x) from error
                first = as_logits(output, len(x)).to(x.dtype)
                check_n_class_names(self.class_names, first.shape[1])
                check_answers(self.module, self.logits, x, first)
            if not self._known.get("checked"):
                self._known["checked"] = True
                warn_of_answers(self.logits, x, first, self.bounds)
        self._known["n_classes"] = first.shape[1]
