"""What several benchmarks share: networks, images, results, tables."""
