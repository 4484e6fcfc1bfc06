"""A guard as a function of tensors alone, and the program that torch makes of it.

The cascade itself is traced, as it decides everywhere else: there is no second
implementation that could differ.
"""

from __future__ import annotations

import textwrap
import traceback
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.utils._sympy.value_ranges import ValueRanges

from curvdetect._base.messages import one_line
from curvdetect.estimators._cascade import Cascade
from curvdetect.estimators.guard import GuardedClassifier
from curvdetect.estimators.learned import LearnedDetector
from curvdetect.network import TorchModel
from curvdetect.network._outputs import as_logits
from curvdetect.network.checks import tolerated
from curvdetect.network.modules import device_of, dtype_of, working_dtype
from curvdetect.network.sources._known_shapes import with_known_shapes

__all__ = ["OUTPUTS", "ExportableGuard", "exported"]

#: What a program returns, by these names.
OUTPUTS = ("logits", "label", "recovered_label", "score", "p_value", "flagged")
#: Whose lines of code are not those of a network: torch's, and ours.
_NOT_NETWORKS = (Path(torch.__file__).parent, Path(__file__).parents[1])
_LONGEST_REASON = 300  # characters: torch goes on for a page
#: Images that a program is traced with: torch takes one for a number that never varies.
_N_TRACED = 4


class ExportableGuard(nn.Module):
    """What a fitted guard does to images, with all it needs as parameters and buffers.

    Parameters
    ----------
    guard : GuardedClassifier
        Fitted, with a :class:`LearnedDetector`.
    early : bool
        Whether images that are in doubt no more are left out of what follows.
    """

    clean_scores: Tensor

    def __init__(self, guard: GuardedClassifier, *, early: bool) -> None:
        super().__init__()
        detector: LearnedDetector = guard.detector_
        cascade = _of_known_shapes(detector._cascade(), detector.input_shape_)
        device = device_of(guard.model_.module)
        if early and not _takes_none(cascade.evidence.model, detector.input_shape_):
            cascade = _never_empty(cascade)
        self.cascade, self.early = cascade, early
        self.threshold = float(detector.threshold_)
        self.on_flag, self.reject_label = guard.on_flag, int(guard.reject_label)
        # Held as modules and buffers, all of it moves, and is in the file once.
        evidence = cascade.evidence
        self.network = evidence.model.module
        second = evidence.companion
        self.companion = None if second is None else second.model.module
        self.forests = nn.ModuleList(
            forest for pair in cascade.forests(device) for forest in pair
        )
        scores = torch.as_tensor(detector.clean_scores_, device=device)
        self.register_buffer("clean_scores", scores)
        self.training = False  # not eval(): that would change the networks themselves

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Classify images, and say which look adversarial.

        Parameters
        ----------
        x : Tensor of shape (n, *input_shape)
            Images. What the guard refuses, values that are not finite or not within the
            bounds, is flagged here, with an infinite score: a program cannot explain.

        Returns
        -------
        dict of str to Tensor
            ``OUTPUTS``: what the guard's ``assess`` and ``p_values`` give.
        """
        model = self.cascade.evidence.model
        found = self.cascade.decide(
            x.to(working_dtype(dtype_of(model.module, x))), early=self.early
        )
        allowed = _allowed(x, model.bounds) & found.logits.isfinite().all(dim=1)
        raw = found.score.where(allowed, torch.inf)
        flagged = raw > self.threshold
        model_label = found.logits.argmax(dim=1)
        instead = {
            "relabel": found.recovered,
            "reject": torch.full_like(model_label, self.reject_label),
            "label": model_label,
        }[self.on_flag]
        n = self.clean_scores.shape[0]
        as_large = n - torch.searchsorted(self.clean_scores, raw)
        values = (
            found.logits,
            instead.where(flagged, model_label),
            found.recovered,
            raw - self.threshold,
            (1 + as_large).double() / (n + 1),
            flagged,
        )
        return dict(zip(OUTPUTS, values, strict=True))


class _NeverEmpty(nn.Module):
    """A network that refuses to take no image: some in doubt get one more, of nothing.

    Those that come, the first stage, are given as they are.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        more = 1 if free_unbacked_symbols(n) else 0
        output = self.module(torch.cat([x.new_zeros(more, *x.shape[1:]), x]))
        logits: Tensor = as_logits(output, n + more)[more:]
        return logits


def exported(
    guard: GuardedClassifier, *, early: bool = True
) -> tuple[ExportedProgram, str]:
    """Export a guard for batches of any size.

    Parameters
    ----------
    guard : GuardedClassifier
        Fitted, with a :class:`LearnedDetector`. Left as it is.
    early : bool, default=True
        Whether images that are in doubt no more are left out of what follows, if torch
        can export that for these networks.

    Returns
    -------
    tuple of ExportedProgram, str
        And why it cannot, if so; else "".

    Raises
    ------
    ValueError
        If torch refuses the networks in any case.
    """
    refused = ""
    if early:
        try:
            return _traced(guard, early=True), refused
        except Exception as error:  # whatever the code of a network makes of it
            refused = _reason(error)
    try:
        return _traced(guard, early=False), refused
    except Exception as error:
        raise ValueError(
            "guard must have networks that torch can export for batches of any size: "
            "they may not decide by the values of a tensor (if x.any()), and must ask "
            "for x.shape[0], not len(x), which is a number. torch.export says: "
            f"{_reason(error)}. Change that, or keep the guard by storage.save"
        ) from error


def _reason(error: Exception) -> str:
    """Say what torch says, and of which line of a network's code, if it is known."""
    said = textwrap.shorten(one_line(error), _LONGEST_REASON, placeholder=" ...")
    for line in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(Path(line.filename).is_relative_to(of) for of in _NOT_NETWORKS):
            return f"{said} (at {line.filename}, line {line.lineno})"
    return said


def _traced(guard: GuardedClassifier, *, early: bool) -> ExportedProgram:
    traced, model = ExportableGuard(guard, early=early), guard.model_
    one = model._placed(model._blank(guard.input_shape_))
    images = one.repeat(_N_TRACED, *[1] * (one.ndim - 1))
    with (
        traced.cascade.evidence.evaluating(),
        torch.no_grad(),
        redirect_stderr(StringIO()),  # torch prints all of a program that it refuses
    ):
        program = torch.export.export(
            traced, (images,), dynamic_shapes=({0: Dim("n")},), strict=False
        )
    for part in program.graph_module.modules():
        if isinstance(part, GraphModule):
            _clean(part)
    for size, limits in program.range_constraints.items():
        if size.name.startswith("u"):  # how many are in doubt, see `assume_some`
            program.range_constraints[size] = ValueRanges(0, limits.upper)
    _hold_constants(program)
    for name, weight in program.state_dict.items():
        if isinstance(weight, nn.Parameter):  # the network's own keep their gradients
            program.state_dict[name] = nn.Parameter(weight.detach(), False)
    return program


def _hold_constants(program: ExportedProgram) -> None:
    """Make constants buffers: ``to`` moves those of a program, and no others."""
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.CONSTANT_TENSOR:
            name = str(spec.target)
            spec.kind, spec.persistent = InputKind.BUFFER, True
            program.state_dict[name] = program.constants.pop(name)


def _clean(part: GraphModule) -> None:
    """Take out where a program was made, devices and paths, and what is not so."""
    aten, graph = torch.ops.aten, part.graph
    for node in list(graph.nodes):
        node.meta.pop("stack_trace", None)
        untrue = node.target is aten._assert_scalar.default and _is_of_doubt(node)
        if untrue or node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
        elif node.target is aten.to.device:
            tensor, _, dtype, *_ = node.args
            _cast_only(node, tensor, dtype)
        elif node.target is aten.to.dtype_layout:
            _cast_only(node, node.args[0], node.kwargs["dtype"])
    graph.eliminate_dead_code()
    part.recompile()


def _is_of_doubt(check: Node) -> bool:
    """Say whether a check is of how many images are in doubt: see `assume_some`."""
    condition: Any = check.args[0]
    of = [size.args[0] for size in condition.all_input_nodes if size.args]
    return any(each.target is torch.ops.aten.nonzero.default for each in of)


def _cast_only(node: Node, tensor: Any, dtype: Any) -> None:
    node.target = torch.ops.aten.to.dtype
    node.args, node.kwargs = (tensor, dtype), {}


def _takes_none(model: TorchModel, input_shape: tuple[int, ...]) -> bool:
    """Say whether a network can be given no image at all."""
    none = model._placed(model._blank(input_shape))[:0]
    try:
        with torch.no_grad():
            model.logits(none)
    except Exception:  # whatever its code makes of it
        return False
    return True


def _of_known_shapes(cascade: Cascade, input_shape: tuple[int, ...]) -> Cascade:
    """Return the same stages, of networks whose shapes do not hang on values."""
    evidence = cascade.evidence
    second = evidence.companion
    if second is not None:
        second = _like(second, model=_known(second.model, input_shape))
    evidence = replace(
        evidence, model=_known(evidence.model, input_shape), companion=second
    )
    return replace(cascade, evidence=evidence)


def _known(model: TorchModel, input_shape: tuple[int, ...]) -> TorchModel:
    """Return a network whose shapes do not hang on values."""
    one = model._placed(model._blank(model.input_shape or input_shape))
    return _around(model, with_known_shapes(model.module, one))


def _never_empty(cascade: Cascade) -> Cascade:
    """Return the same stages, of a network that is never given no image."""
    model = cascade.evidence.model
    model = _around(model, _NeverEmpty(model.module))
    return replace(cascade, evidence=replace(cascade.evidence, model=model))


def _around(model: TorchModel, module: nn.Module) -> TorchModel:
    """Return a model with another module in place of its own."""
    changed: TorchModel = _like(model, module=module, _known={})
    return changed


def _like(held: Any, **others: Any) -> Any:
    """Return an object with the same attributes but some."""
    found = object.__new__(type(held))  # not copy(): that is a pickle's
    vars(found).update(vars(held) | others)
    return found


def _allowed(x: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """Say which images the guard would look at."""
    values = x.flatten(1)
    allowed = values.isfinite()
    if bounds is not None:
        low, high = tolerated(bounds)
        allowed = allowed & (values >= low) & (values <= high)
    return allowed.all(dim=1)
