"""Ask an exported guard, in a process that cannot import curvdetect.

    python exported_alone.py guard.pt2 images.npy answers.npz SIZE ...

`exported.py` starts this file, and compares what each size of batches gives.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import torch

__all__ = ["main"]


class Refuses:
    """Finds no curvdetect, wherever it may be."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "curvdetect":
            raise ImportError(f"{name} is not for this process")


def main(argv: Sequence[str]) -> None:
    path, given, out, *sizes = argv
    sys.meta_path.insert(0, Refuses())
    torch.set_num_threads(1)
    program = torch.export.load(path).module()
    images, answers = torch.from_numpy(np.load(given)), {}
    for size in sizes:
        parts = [program(batch) for batch in images.split(int(size))]
        for name in parts[0]:
            joined = torch.cat([part[name] for part in parts])
            answers[f"{name} {size}"] = joined.numpy()
    np.savez(out, **answers)


if __name__ == "__main__":
    main(sys.argv[1:])
