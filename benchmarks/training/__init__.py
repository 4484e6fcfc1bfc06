"""Networks that are trained: the shipped ones, companions, flatter ones."""
