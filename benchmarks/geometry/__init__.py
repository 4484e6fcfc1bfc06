"""The geometry alone: curvatures, distances and regions."""
