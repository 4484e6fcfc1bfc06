"""Why the defaults are what they are: boundaries, precision, bounds."""
