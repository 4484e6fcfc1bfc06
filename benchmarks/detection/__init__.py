"""How well attacks are detected that know nothing of the detector."""
