"""Settings of the featurizer that several benchmarks compare with its defaults."""

__all__ = ["FEW"]

#: The cheap one: one boundary by distance, two by curvature at the image.
FEW = {"n_boundaries": 3, "n_curved": 2, "n_directions": 3}
