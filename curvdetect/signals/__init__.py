"""What can be measured around an image, one class and one file a signal.

=========== ======================================= ================= =============
name        what it is                              in                columns
=========== ======================================= ================= =============
logits      logits less the largest                 logits            by class
first_order distance to the nearest boundaries, by  input units       nearest first
            the gradient at the image
laplacian   mean decrease of each margin around the logits            by boundary
            image: *minus* a Laplacian
distance    to the point found on each boundary     input units       by boundary
curvature   average curvature of each boundary      1 / input units   by boundary
companion   what a second classifier thinks of the  nats              by class
            label; an instance, `Companion(model)`
votes       what it says of noisy copies; an        shares            by class
            instance, `Votes(companion, sigma=...)`
=========== ======================================= ================= =============

A new signal is a class of its own file; `Signal` says what it must have. What signals
share around an image - logits, gradients, boundary points, directions - is in `Around`.
"""

from collections.abc import Iterable

from curvdetect.signals._around import Around
from curvdetect.signals.base import BoundarySignal, Signal, joint_cost
from curvdetect.signals.companion import Companion, matched_classes
from curvdetect.signals.curvature import Curvature
from curvdetect.signals.distance import Distance
from curvdetect.signals.first_order import FirstOrder
from curvdetect.signals.laplacian import Laplacian
from curvdetect.signals.logits import Logits
from curvdetect.signals.measured import (
    Measured,
    arranged_by_class,
    arranged_by_distance,
    measure_signals,
)
from curvdetect.signals.setup import Setup, Where
from curvdetect.signals.votes import Votes

__all__ = [
    "SIGNALS",
    "Around",
    "BoundarySignal",
    "Companion",
    "Curvature",
    "Distance",
    "FirstOrder",
    "Laplacian",
    "Logits",
    "Measured",
    "Setup",
    "Signal",
    "Votes",
    "Where",
    "arranged_by_class",
    "arranged_by_distance",
    "joint_cost",
    "matched_classes",
    "measure_signals",
    "named_signals",
]

#: The signals that have a name.
SIGNALS: tuple[type[Signal], ...] = (
    Curvature,
    Distance,
    Laplacian,
    Logits,
    FirstOrder,
)


def named_signals(features: Iterable[str | Signal]) -> tuple[Signal, ...]:
    """Return signals for their names; instances stay as they are.

    Parameters
    ----------
    features : iterable of str or Signal
        Names out of `SIGNALS`, or instances.

    Returns
    -------
    tuple of Signal
        With the defaults where a name was given.

    Raises
    ------
    ValueError
        If a name is not known, or something is no signal.

    Examples
    --------
    >>> from curvdetect.signals import FirstOrder, named_signals
    >>> [signal.name for signal in named_signals(["logits", FirstOrder(3)])]
    ['logits', 'first_order']
    """
    known = {signal.name: signal for signal in SIGNALS}
    found = []
    for feature in features:
        if isinstance(feature, Signal):
            found.append(feature)
        elif isinstance(feature, str) and feature in known:
            found.append(known[feature]())
        else:
            raise ValueError(
                f"features must be one of {tuple(known)}, or an instance of "
                f"curvdetect.signals.Signal; got {feature!r}"
            )
    return tuple(found)
