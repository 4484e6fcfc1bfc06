"""The boundary around one image, in a plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from curvdetect._base.extras import require
from curvdetect._base.rows import per_row
from curvdetect.geometry import (
    CurvatureMethod,
    PairwiseMargin,
    margin_value,
    margin_value_and_gradient,
    normal_curvature,
)
from curvdetect.network import TorchModel, find_nearest_boundaries
from curvdetect.network.arrays import as_array
from curvdetect.plotting._axes import ADVERSARIAL, CLEAN, axes_or_new, class_label

__all__ = ["BoundarySectionDisplay"]

#: A tangential part shorter than this share of z - x is rounding.
_NO_TANGENT = 1e-4
#: A circle that is larger by this factor than the picture is a straight line in it.
_FLAT = 50.0


class BoundarySectionDisplay:
    """The boundary in a plane through a boundary point z, with its osculating circle.

    The plane is spanned by the unit normal at z, which points to the predicted side,
    and a unit tangent. Coordinates are (along the tangent, along the normal), in input
    units, with z at the origin.

    Parameters
    ----------
    margin : array of shape (m, m)
        Values of F on a square grid; rows go up along the normal.
    extent : float
        The grid reaches from -extent to extent both ways.
    curvature : float
        Normal curvature at z along the tangent, in 1 / input units.
    x : (float, float)
        Coordinates of the image.
    y : (float, float), optional
        Coordinates of another point, such as the attacked image.
    sides : (str, str), optional
        What the class where F is positive is called, and the other, for the legend.

    Attributes
    ----------
    margin_ : ndarray of shape (m, m)
    extent_, curvature_ : float
    x_, y_ : pair of floats, or None
    sides_ : pair of str, or None
        As given.
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    A disc of radius 2, seen from its centre.

    >>> import numpy as np
    >>> from curvdetect.plotting import BoundarySectionDisplay
    >>> a, b = np.meshgrid(np.linspace(-3, 3, 61), np.linspace(-3, 3, 61))
    >>> display = BoundarySectionDisplay.from_predictions(
    ...     2 - np.hypot(a, b - 2), extent=3, curvature=0.5, x=(0, 2)
    ... )
    >>> display.ax_.get_xlabel()
    'along the tangent (input units)'
    """

    def __init__(
        self,
        *,
        margin: npt.ArrayLike,
        extent: float,
        curvature: float,
        x: tuple[float, float],
        y: tuple[float, float] | None = None,
        sides: tuple[str, str] | None = None,
    ) -> None:
        self.margin_ = np.asarray(margin)
        self.extent_ = extent
        self.curvature_ = curvature
        self.x_ = x
        self.y_ = y
        self.sides_ = sides

    @classmethod
    def from_model(
        cls,
        model: TorchModel,
        x: npt.ArrayLike,
        *,
        y: npt.ArrayLike | None = None,
        other: int | None = None,
        tangent: npt.ArrayLike | None = None,
        method: CurvatureMethod = "forward",
        step: float = 0.1,
        extent: float | None = None,
        n_points: int = 81,
        ax: Any = None,
    ) -> BoundarySectionDisplay:
        """Find the boundary near an image and draw it.

        Parameters
        ----------
        model : TorchModel
            The network.
        x : array of shape (*input_shape)
            One image.
        y : array of shape (*input_shape), optional
            Another image, whose projection on the plane is drawn too.
        other : int, optional
            To which class; the one with the nearest boundary by default.
        tangent : array of shape (*input_shape), optional
            The tangent is this direction without its normal part; by default that of
            x - z.
        method, step
            Of the curvature, as in :func:`curvdetect.geometry.normal_curvature`.
        extent : float, optional
            How far to draw, in input units; by default 1.3 times the distance from z
            to the farthest point drawn.
        n_points : int, default=81
            Grid points along each side: as many squared forward passes.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        BoundarySectionDisplay
            Drawn.

        Raises
        ------
        ValueError
            If there is no boundary to that class, or no tangent in the direction.
        """
        image = model.to_tensor(np.asarray(x)[None])
        nearest = find_nearest_boundaries(
            model, image, n_boundaries=1 if other is None else None
        )
        row = _row_of(nearest.margin.other, other)
        if not bool(nearest.found[row]):
            raise ValueError(
                "no boundary was found near x"
                + ("" if other is None else f" to class other={other!r}")
            )
        margin = nearest.margin.take(torch.tensor([row], device=nearest.points.device))
        z = nearest.points[row : row + 1]
        points = [nearest.images[row]]
        if y is not None:
            points += list(next(model.split(model.to_tensor(np.asarray(y)[None]))))
        with model.evaluating():
            evaluated = margin_value_and_gradient(margin, z)
            normal = evaluated[1] / evaluated[1].norm()
            away = points[0] - z[0] if tangent is None else torch.as_tensor(tangent)
            t = _tangent(away.to(z).reshape(z.shape[1:]), normal[0])
            kappa = normal_curvature(
                margin, z, t[None, None], method=method, step=step, evaluated=evaluated
            )
            coordinates = [
                (float(((p - z[0]) * t).sum()), float(((p - z[0]) * normal[0]).sum()))
                for p in points
            ]
            reach = 1.3 * max(np.hypot(*c) for c in coordinates)
            extent = reach if extent is None else extent
            values = _on_plane(model, margin, z, t, normal[0], extent, n_points)
        return cls.from_predictions(
            as_array(values),
            extent=extent,
            curvature=float(kappa),
            x=coordinates[0],
            y=coordinates[1] if y is not None else None,
            sides=_names(model, margin),
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        margin: npt.ArrayLike,
        *,
        extent: float,
        curvature: float,
        x: tuple[float, float],
        y: tuple[float, float] | None = None,
        sides: tuple[str, str] | None = None,
        ax: Any = None,
    ) -> BoundarySectionDisplay:
        """Draw values that were computed already.

        Parameters
        ----------
        margin : array of shape (m, m)
            Values of F on a square grid; rows go up along the normal.
        extent : float
            The grid reaches from -extent to extent both ways.
        curvature : float
            Normal curvature at z along the tangent, in 1 / input units.
        x : (float, float)
            Coordinates of the image.
        y : (float, float), optional
            Coordinates of another point.
        sides : (str, str), optional
            Names of the class where F is positive, and of the other.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        BoundarySectionDisplay
            Drawn.
        """
        display = cls(
            margin=margin, extent=extent, curvature=curvature, x=x, y=y, sides=sides
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> BoundarySectionDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        BoundarySectionDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        e = self.extent_
        axis = np.linspace(-e, e, len(self.margin_))
        ends = [-np.inf, 0, np.inf]
        self.ax_.contourf(
            axis, axis, self.margin_, ends, colors=[ADVERSARIAL, CLEAN], alpha=0.15
        )
        self.ax_.contour(axis, axis, self.margin_, [0], colors="k", linewidths=1.5)
        self.ax_.axhline(0, color="0.4", lw=0.9, ls="--", label="tangent")
        if abs(self.curvature_) * e * _FLAT > 1:
            radius = 1 / abs(self.curvature_)
            circle = require("matplotlib.patches", extra="plot").Circle(
                (0, np.copysign(radius, self.curvature_)),
                radius,
                fill=False,
                color="0.4",
                lw=0.9,
                ls=":",
            )
            self.ax_.add_patch(circle)
            label = f"osculating circle, curvature {self.curvature_:.2g}"
            self.ax_.plot([], [], color="0.4", lw=0.9, ls=":", label=label)
        points = {"z": (0.0, 0.0), "x": self.x_, "y": self.y_}
        colours = {"z": "k", "x": CLEAN, "y": ADVERSARIAL}
        for name, point in points.items():
            if point is not None:
                self.ax_.plot(*point, "o", color=colours[name], ms=5)
                self.ax_.annotate(
                    name, point, xytext=(5, 5), textcoords="offset points"
                )
        for name, colour in zip(self.sides_ or (), (CLEAN, ADVERSARIAL), strict=False):
            self.ax_.fill([], [], color=colour, alpha=0.15, label=name)
        self.ax_.set_aspect("equal")
        self.ax_.set_xlim(-e, e)
        self.ax_.set_ylim(-e, e)
        self.ax_.set_xlabel("along the tangent (input units)")
        self.ax_.set_ylabel("along the normal (input units)")
        self.ax_.legend(frameon=False, loc="lower left", fontsize="small")
        return self


def _names(model: TorchModel, margin: PairwiseMargin) -> tuple[str, str] | None:
    """Return what the two classes of a boundary are called, if they are."""
    if model.class_names is None:
        return None
    predicted, other = int(margin.predicted[0]), int(margin.other[0])
    return (
        class_label(predicted, model.class_names),
        class_label(other, model.class_names),
    )


def _row_of(others: Tensor, other: int | None) -> int:
    """Return the row of the boundary to a class, the first by default."""
    if other is None:
        return 0
    rows = (others == other).nonzero().flatten()
    if not len(rows):
        raise ValueError(
            "other must be one of the classes that x is not predicted as, "
            f"{sorted(others.tolist())}; got {other!r}"
        )
    return int(rows[0])


def _tangent(direction: Tensor, normal: Tensor) -> Tensor:
    """Return the unit vector along the tangential part of a direction."""
    tangent = direction - (direction * normal).sum() * normal
    if not float(tangent.norm()) > _NO_TANGENT * float(direction.norm()):
        raise ValueError(
            "tangent must not be normal to the boundary; by default it is that of "
            "x - z, and here z is the point nearest to x: give a direction"
        )
    return tangent / tangent.norm()


def _on_plane(
    model: TorchModel,
    margin: PairwiseMargin,
    z: Tensor,
    t: Tensor,
    normal: Tensor,
    extent: float,
    n_points: int,
) -> Tensor:
    """Return F on a grid of the plane through z, a line at a time, (n_points,) * 2."""
    axis = torch.linspace(-extent, extent, n_points).to(z)
    rows = torch.zeros(n_points, dtype=torch.int64, device=z.device)
    lines = [
        margin_value(
            margin.take(rows),
            z + per_row(axis, z) * t + b * normal,
            batch_size=model.rows_per_batch(z),
        )
        for b in axis
    ]
    return torch.stack(lines)
