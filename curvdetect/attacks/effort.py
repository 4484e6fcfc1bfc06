"""How much a guard attacks to learn from: a pass over a large image is dear."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Effort", "effort_for"]


class Effort(NamedTuple):
    """How many images are attacked, how hard, and with how many budgets.

    Attributes
    ----------
    n_learned : int
        Clean images learned from, at most.
    n_attacked : int
        Images attacked to learn from, of all attacks together.
    n_tested : int
        Images of the calibration that the self-test attacks.
    rung : float
        From one budget of an attack to the next, about this factor.
    n_boundaries, n_projections : int
        Of the search for minimal perturbations, see
        :func:`curvdetect.geometry.find_adversarial_perturbation`.
    """

    n_learned: int
    n_attacked: int
    n_tested: int
    rung: float
    n_boundaries: int
    n_projections: int


SMALL = Effort(1000, 8000, 200, 2.0, 5, 20)
#: Perturbations are 1.03 times as long as the others (median of 16 photographs,
#: EfficientNet-Lite0), for a quarter of the cost.
LARGE = Effort(200, 600, 30, 8.0, 2, 5)
#: Values of an image: 224 x 224 x 3 are 150,528, 64 x 64 x 3 are 12,288.
_LARGE_IMAGE = 50_000


def effort_for(n_values: int) -> Effort:
    """Return what is worth while for images of so many values.

    Parameters
    ----------
    n_values : int
        Of an image, all channels together.

    Returns
    -------
    Effort
        One for small images, with which a fit takes a minute or a few on a CPU, and
        one for photographs, with which it takes tens of them and not a day.

    Examples
    --------
    >>> from curvdetect.attacks.effort import effort_for
    >>> effort_for(28 * 28).n_attacked, effort_for(3 * 224 * 224).n_attacked
    (8000, 600)
    """
    return LARGE if n_values > _LARGE_IMAGE else SMALL
