"""The trace of one symmetric matrix per row, or the mean of its eigenvalues."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from curvdetect.geometry._operators import Operator, check_precision
from curvdetect.geometry._sampling import Sampling, mean_and_error
from curvdetect.geometry._xtrace import xtrace

__all__ = ["trace_and_error"]


def trace_and_error(operator: Operator, sampling: Sampling, *, mean: bool) -> Tensor:
    """Estimate traces and their standard errors, (2, n).

    With `mean`, both are divided by the dimension: the mean of v^T A v over all unit
    vectors v of the space.
    """
    if sampling.estimator == "xtrace":
        check_precision(operator.points)
        traces = xtrace(
            operator,
            n_products=int(sampling.n_directions),
            generator=sampling.generator,
        )
        operator.warn_if_wrongly_zero(traces)
        estimate = mean_and_error(traces)
        return estimate / operator.dimension if mean else estimate
    unit: Callable[[Tensor], Tensor]
    space, x = operator.space, operator.differences.x
    if sampling.exact:
        m = space.dimension
        unit = lambda pairs: space.columns(pairs // m, pairs % m)
    else:
        shared = sampling.shared(x)
        m = len(shared)
        unit = lambda pairs: space.projected(pairs // m, shared[pairs % m])
    along = operator.along(m, unit)
    operator.differences.warn_if_wrongly_zero(along, lambda rows: unit(rows * m))
    return mean_and_error(along if mean else space.dimension * along, sampling.exact)
