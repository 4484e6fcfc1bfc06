"""`TorchModel`: the one place that touches a torch module."""

from __future__ import annotations

import math
import threading
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from curvdetect.geometry import ClassLoss, PairwiseMargin
from curvdetect.network.checks import (
    check_bounds,
    check_channels,
    check_finite,
    check_input_shape,
    check_logits,
    check_repeatable,
    check_row_by_row,
    check_shape,
    check_within,
    warn_if_imprecise,
    warn_if_probabilities,
)
from curvdetect.network.portable import portable

__all__ = ["TorchModel", "as_array", "as_flat_array", "uncompiled"]

#: Activations that a batch may hold, in bytes, and how many rows. On a CPU, wider
#: batches leave the cache, and malloc gives their memory back after each and takes it
#: again (with 256 rows, the LeNet's features took a quarter longer). A GPU wants many
#: rows at once.
_ACTIVATION_BYTES = {"cpu": 128 * 2**20, "cuda": 2 * 2**30}
_BATCH_SIZE_RANGE = {"cpu": (16, 128), "cuda": (64, 8192)}


class TorchModel:
    """A trained torch image classifier, with all that is needed to call it.

    It keeps the module's state out of your way: every call runs in eval mode with
    gradients to the input only, and leaves training mode, ``requires_grad``,
    ``.grad`` and the random number generators as they were, also after an error.

    ``sklearn.clone`` shares it, pickle copies it, and ``joblib.hash`` depends on its
    weights and settings alone: it is the same in every copy and process. A copy that
    comes out of a pickle is on the CPU unless `device` was given.

    Parameters
    ----------
    module : torch.nn.Module
        The network: (n, *input_shape) -> (n, n_classes) logits. Not copied; moved to
        `device` if that is given. One that was compiled by ``torch.compile`` is used as
        it was before.
    input_shape : tuple of int or None
        Shape of one input, (channels, height, width) for images. None takes inputs
        of any shape as they come.
    bounds : (float, float) or None, default=(0.0, 1.0)
        Smallest and largest value of an input. Inputs outside are refused; None
        switches this check off.
    mean, std : float or sequence of float, optional
        The network is given (x - mean) / std, per channel. Lengths and curvatures
        refer to x, before this normalisation.
    device : str or torch.device, optional
        Where to compute; where the module is by default.
    batch_size : int, optional
        Rows given to the module at a time. By default as many as keep its
        activations in the cache, at most 128 on a CPU and 8,192 on a GPU.

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
    ) -> None:
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"module must be a torch.nn.Module; got {type(module).__name__}"
            )
        module = uncompiled(module)
        self.input_shape = check_input_shape(input_shape)
        self.bounds = check_bounds(bounds)
        self.mean = check_channels(mean, "mean", self.input_shape)
        self.std = check_channels(std, "std", self.input_shape)
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std must be positive; got {std!r}")
        if batch_size is not None and (
            not isinstance(batch_size, int) or batch_size < 1
        ):
            raise ValueError(
                f"batch_size must be a positive integer or None; got {batch_size!r}"
            )
        if module.training:
            warnings.warn(
                "module is in training mode (dropout and batch normalisation behave "
                "differently there); it will be used in eval mode. Call "
                "module.eval() to silence this.",
                UserWarning,
                stacklevel=2,
            )
        self.module = module if device is None else module.to(device)
        self.device = device
        self.batch_size = batch_size
        self._known: dict[Any, Any] = {}  # learned by calling; not pickled, not hashed

    def __repr__(self) -> str:
        return (
            f"TorchModel({type(self.module).__name__}, input_shape={self.input_shape}, "
            f"bounds={self.bounds})"
        )

    # Copies ----------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "module": portable(self.module), "_known": {}}

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
        Nested calls cost nothing. Threads that share the module take turns. Autocast
        and TF32 are off: second differences would drown in their rounding.
        """
        use = _USES.setdefault(self.module, _Use())
        with use.lock:
            if use.active:
                yield
                return
            modes = [(m, m.training) for m in self.module.modules()]
            trainable = [p for p in self.module.parameters() if p.requires_grad]
            use.active = True
            try:
                with _exact_arithmetic(self._torch_device()):
                    self.module.eval()
                    for parameter in trainable:
                        parameter.requires_grad_(False)
                    yield
            finally:
                use.active = False
                for module, training in modes:
                    module.training = training
                for parameter in trainable:
                    parameter.requires_grad_(True)

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
        """
        with self.evaluating():
            logits: Tensor = self.module(self._normalise(x))
        return logits

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

    def as_module(self) -> nn.Module:
        """Return the network with its normalisation, in eval mode, for attacks.

        Returns
        -------
        torch.nn.Module
            Maps inputs within `bounds` to logits; shares the weights.
        """
        return _Normalised(self)

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
            low, high = self.bounds or (0.0, 1.0)
            self.check(torch.full((1, *self.input_shape), (low + high) / 2))
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
        x = X.detach() if isinstance(X, Tensor) else _from_numpy(np.asarray(X))
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
        device, dtype = self._torch_device(), self._dtype(x)
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
            fitting = _ACTIVATION_BYTES[kind] // max(self._activation_bytes(x), 1)
            smallest, largest = _BATCH_SIZE_RANGE[kind]
            self._known[known] = min(max(fitting, smallest), largest)
        return self._known[known]

    def _activation_bytes(self, x: Tensor) -> int:
        """Measure what the leaves of the module put out for one input."""
        sizes: list[int] = []

        def record(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.numel() * output.element_size())

        leaves = [m for m in self.module.modules() if not any(m.children())]
        hooks = [leaf.register_forward_hook(record) for leaf in leaves]
        try:
            with torch.no_grad():
                self.logits(x.to(device=self._torch_device(), dtype=self._dtype(x)))
        finally:
            for hook in hooks:
                hook.remove()
        return sum(sizes)

    def _torch_device(self) -> torch.device:
        if self.device is not None:
            return torch.device(self.device)
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return torch.device("cpu")

    def _dtype(self, x: Tensor) -> torch.dtype:
        """Return the module's floating dtype; that of `x` if it has none."""
        for parameter in self.module.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
        return x.dtype if x.is_floating_point() else torch.get_default_dtype()

    def _normalise(self, x: Tensor) -> Tensor:
        if self.mean is not None:
            x = x - self._per_channel(self.mean, x)
        if self.std is not None:
            x = x / self._per_channel(self.std, x)
        return x

    def _per_channel(self, values: tuple[float, ...], x: Tensor) -> Tensor:
        """Return values shaped for `x`; copied once to a device, not at every call."""
        shape = (-1, *[1] * (x.ndim - 2))
        if x.device.type == "cpu" or torch.compiler.is_compiling():
            return x.new_tensor(values).reshape(shape)
        known = values, x.device, x.dtype
        if known not in self._known:
            with torch.inference_mode(False):  # or it could never be part of a graph
                constant = torch.tensor(values, dtype=x.dtype).to(x.device)
            self._known[known] = constant
        kept: Tensor = self._known[known]
        return kept.reshape(shape)

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
            or depends on the other rows.

        Warns
        -----
        UserWarning
            If the output looks like probabilities, or has half precision.
        """
        x = self.to_tensor(X).to(device=self._torch_device())
        x = x.to(dtype=self._dtype(x))
        with self.evaluating(), torch.no_grad():
            try:
                first = self.logits(x)
            except Exception as error:
                raise ValueError(
                    f"the module cannot be called on inputs of shape {tuple(x.shape)}: "
                    f"{type(error).__name__}: {error}. If that is not the shape of its "
                    "images, wrap it: TorchModel(module, input_shape=(channels, "
                    "height, width))"
                ) from error
            check_logits(first, len(x))
            check_repeatable(first, self.logits(x))
            check_row_by_row(first[:1], self.logits(x[:1]))
        warn_if_probabilities(first)
        warn_if_imprecise(first)
        self._known["n_classes"] = first.shape[1]


class _Use:
    """Who is using a module: wrappers of the same module must not interleave."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.active = False


_USES: weakref.WeakKeyDictionary[nn.Module, _Use] = weakref.WeakKeyDictionary()


@contextmanager
def _exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Switch off what rounds coarsely; keep random numbers as they are."""
    cudnn = torch.backends.cudnn
    with (
        torch.inference_mode(False),
        torch.autocast(device.type, enabled=False)
        if torch.amp.is_autocast_available(device.type)
        else nullcontext(),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        cudnn.flags(
            enabled=cudnn.enabled,
            benchmark=cudnn.benchmark,
            deterministic=cudnn.deterministic,
            allow_tf32=False,
        )
        if device.type == "cuda"
        else nullcontext(),
    ):
        yield


class _Normalised(nn.Module):
    """A TorchModel seen as a module."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.module = model.module
        self._model = model
        self.training = False  # not eval(): that would change the module itself

    def forward(self, x: Tensor) -> Tensor:
        return self._model.logits(x)

    def train(self, mode: bool = True) -> _Normalised:
        return self  # attacks switch modes; the model sees to that itself


def uncompiled(module: nn.Module) -> nn.Module:
    """Return what a module was before torch.compile, if it was compiled.

    Compiled, a ResNet-20 gave wrong curvatures (torch 2.15, on a CPU).
    """
    return getattr(module, "_orig_mod", module)


def as_array(values: Tensor) -> npt.NDArray[Any]:
    """Return a tensor as an array, in single precision where NumPy lacks its dtype."""
    return (values if values.dtype == torch.float64 else values.float()).cpu().numpy()


def as_flat_array(X: Any) -> tuple[Any, tuple[int, ...] | None]:
    """Flatten images to (n_samples, d) and return their shape too.

    What is not an array of images is left to scikit-learn, with None for the shape.
    """
    if isinstance(X, Tensor):
        X = X.detach().cpu()
        X = (X.float() if X.dtype == torch.bfloat16 else X).numpy()
    if isinstance(X, np.ndarray) and X.ndim > 2:
        return X.reshape(len(X), math.prod(X.shape[1:])), X.shape[1:]
    return X, None


def _from_numpy(X: npt.NDArray[Any]) -> Tensor:
    if X.dtype.kind not in "fiub":
        raise ValueError(f"X must hold numbers; got an array of dtype {X.dtype}")
    # torch takes neither negative strides nor foreign byte orders nor wide unsigned
    # integers, and warns about arrays that it must not write to
    dtype = np.int64 if X.dtype.kind == "u" and X.itemsize > 1 else X.dtype
    dtype = np.dtype(dtype).newbyteorder("=")
    return torch.from_numpy(np.require(X, dtype, ["C", "W"]))
