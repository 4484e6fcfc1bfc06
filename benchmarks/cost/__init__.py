"""What a measurement costs: beside other ways, a second, and for many images."""
