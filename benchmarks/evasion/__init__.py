"""What it takes to evade, for attackers who know the detector."""
