"""A path through the region of a class, in a plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from curvdetect._base.extras import require
from curvdetect.geometry import find_path_in_region, margin_value
from curvdetect.network import TorchModel
from curvdetect.network.arrays import as_array
from curvdetect.plotting._axes import axes_or_new, class_label

__all__ = ["RegionPathDisplay"]


class RegionPathDisplay:
    """A path between two images, and the classes in the plane where it bends most.

    The plane contains both ends of the path and the vertex farthest from the straight
    line between them. The other vertices are drawn where they project, so that a path
    which stays in its region may seem to leave it.

    Parameters
    ----------
    classes : array of shape (m, m), int
        Predicted class on the grid.
    axes : (array of shape (m,), array of shape (m,))
        Coordinates of the columns and of the rows, in input units: along the straight
        line, and across.
    path : array of shape (n_vertices, 2)
        Coordinates of the vertices.
    found : bool, default=True
        Whether all of the path is in the region; dashed where it is not.
    class_names : sequence of str, optional
        Of all classes, for the legend; numbers by default.

    Attributes
    ----------
    classes_, path_ : ndarray
    found_ : bool
    class_names_ : sequence of str or None
    axes_ : pair of ndarray
        As given.
    ax_, figure_ : matplotlib Axes and Figure
        Set by :meth:`plot`.

    Examples
    --------
    >>> import numpy as np
    >>> from curvdetect.plotting import RegionPathDisplay
    >>> display = RegionPathDisplay.from_predictions(
    ...     np.zeros((3, 3), int), (range(3), range(3)), [[0, 1], [2, 1]]
    ... )
    >>> display.ax_.get_xlabel()
    'along the straight line (input units)'
    """

    def __init__(
        self,
        *,
        classes: npt.ArrayLike,
        axes: tuple[npt.ArrayLike, npt.ArrayLike],
        path: npt.ArrayLike,
        found: bool = True,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.classes_ = np.asarray(classes)
        self.axes_ = np.asarray(axes[0]), np.asarray(axes[1])
        self.path_ = np.asarray(path)
        self.found_ = found
        self.class_names_ = class_names

    @classmethod
    def from_model(
        cls,
        model: TorchModel,
        a: npt.ArrayLike,
        b: npt.ArrayLike,
        *,
        n_levels: int = 5,
        n_points: int = 101,
        ax: Any = None,
    ) -> RegionPathDisplay:
        """Look for a path and draw it.

        Parameters
        ----------
        model : TorchModel
            The network.
        a, b : array of shape (*input_shape)
            Two images of one predicted class.
        n_levels : int, default=5
            As in :func:`curvdetect.geometry.find_path_in_region`.
        n_points : int, default=101
            Grid points along each side: as many squared forward passes.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RegionPathDisplay
            Drawn.

        Raises
        ------
        ValueError
            If the images are of two predicted classes, or equal.
        """
        ends = next(model.split(model.to_tensor(np.stack([a, b])), size=2))
        if torch.equal(ends[0], ends[1]):
            raise ValueError("a and b must be two different images; got one twice")
        size = model.rows_per_batch(ends[:1])
        with model.evaluating():
            path = find_path_in_region(
                model.logits, ends[:1], ends[1:], n_levels=n_levels, batch_size=size
            )
            vertices = path.points[0].flatten(1)
            origin = vertices[0]
            along = vertices[-1] - origin
            distance = float(along.norm())
            along = along / along.norm()
            beside = vertices - origin
            beside = beside - (beside @ along)[:, None] * along
            across = beside[beside.norm(dim=1).argmax()]
            if not float(across.norm()) > 1e-6 * distance:  # a straight path: any plane
                across = torch.randn(
                    across.shape, generator=torch.Generator().manual_seed(0)
                ).to(across)
                across = across - (across @ along) * along
            across = across / across.norm()
            places = torch.stack(
                [(vertices - origin) @ along, (vertices - origin) @ across], dim=1
            )
            s = torch.linspace(-0.1 * distance, 1.1 * distance, n_points).to(along)
            reach = max(0.3 * distance, 1.3 * float(places[:, 1].abs().max()))
            t = torch.linspace(-reach, reach, n_points).to(along)
            rows = []
            for height in t:
                line = origin + s[:, None] * along + height * across
                line = line.reshape(-1, *ends.shape[1:])
                f = margin_value(model.logits, line, batch_size=size)
                rows.append(f.argmax(1))
        return cls.from_predictions(
            torch.stack(rows).cpu().numpy(),
            (as_array(s), as_array(t)),
            as_array(places),
            found=bool(path.found),
            class_names=model.class_names,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        classes: npt.ArrayLike,
        axes: tuple[npt.ArrayLike, npt.ArrayLike],
        path: npt.ArrayLike,
        *,
        found: bool = True,
        class_names: Sequence[str] | None = None,
        ax: Any = None,
    ) -> RegionPathDisplay:
        """Draw a path and classes that are known already.

        Parameters
        ----------
        classes : array of shape (m, m), int
            Predicted class on the grid.
        axes : (array of shape (m,), array of shape (m,))
            Coordinates of the columns and of the rows.
        path : array of shape (n_vertices, 2)
            Coordinates of the vertices.
        found : bool, default=True
            Whether all of the path is in the region.
        class_names : sequence of str, optional
            Of all classes, for the legend; numbers by default.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RegionPathDisplay
            Drawn.
        """
        display = cls(
            classes=classes, axes=axes, path=path, found=found, class_names=class_names
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> RegionPathDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        RegionPathDisplay
            Itself.
        """
        self.ax_, self.figure_ = axes_or_new(ax)
        present, index = np.unique(self.classes_, return_inverse=True)
        mpl = require("matplotlib", extra="plot")
        require("matplotlib.patches", extra="plot")
        palette = mpl.colormaps["tab20"].colors[1::2] + mpl.colormaps["tab20b"].colors
        colours = [palette[k % len(palette)] for k in present]
        self.ax_.pcolormesh(
            *self.axes_,
            index.reshape(self.classes_.shape),
            cmap=mpl.colors.ListedColormap(colours),
            vmin=-0.5,
            vmax=len(present) - 0.5,
        )
        style, name = ("k.-", "path") if self.found_ else ("k.:", "no path found")
        (line,) = self.ax_.plot(*self.path_.T, style, lw=1.2, ms=4, label=name)
        for name, place in (("a", self.path_[0]), ("b", self.path_[-1])):
            self.ax_.annotate(name, place, xytext=(4, 5), textcoords="offset points")
        patches = [
            mpl.patches.Patch(color=colour, label=class_label(k, self.class_names_))
            for k, colour in zip(present, colours, strict=True)
        ]
        self.ax_.legend(
            handles=[line, *patches],
            fontsize="small",
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
        )
        self.ax_.set_aspect("equal")
        self.ax_.set_xlabel("along the straight line (input units)")
        self.ax_.set_ylabel("across (input units)")
        return self
