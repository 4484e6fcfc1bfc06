"""Every detector against every attack, on every network: what `detection` measures."""
