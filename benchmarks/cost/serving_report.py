"""What the guide says of a service under load."""

from __future__ import annotations

from benchmarks.common.results import read
from benchmarks.common.tables import paragraph

__all__ = ["under_load"]


def under_load() -> str:
    """Say what was asked and answered, in figures."""
    found = read("serving")
    shares = found["share_of_the_loop"]["each"]
    arrays = found["served"]["arrays, 16 clients"]
    pictures = found["served"]["pictures, 200 clients"]
    rate = sum(of["images_per_second"] for of in arrays) / len(arrays)
    answered = found["sigterm"]["images_answered_by_then"]
    wrong = found["sigterm"]["wrong_answers"] + pictures["wrong_answers"]
    wrong += sum(of["wrong_answers"] for of in arrays)
    settled, end = (found["memory_bytes"][k] / 2**20 for k in ("settled", "at_the_end"))
    return paragraph(
        f"**Under load** (`python -m benchmarks serving`; {found['cpus']} processors "
        f"that others were using, load {found['load_average']:.0f}; shipped LeNet, a "
        "learned guard, 5 % of the bodies broken): 16 clients with arrays of 32 images "
        f"got {min(shares):.2f} to {max(shares):.2f} times the images per second of "
        "the guard in a loop over batches of 32, since the service puts several "
        "requests into a batch. 200 clients with a picture each got "
        f"{pictures['images_per_second'] / rate:.2f} times as many as those: a request "
        "takes several times what this small network takes for an image, so send "
        f"several images at once. Of {answered:,} answers {wrong} were wrong; at "
        f"SIGTERM {found['sigterm']['images_assessed']:,} images had been assessed and "
        f"{answered:,} answered. Memory was {settled:.0f} MiB after 15 seconds and "
        f"{end:.0f} MiB at the end."
    )
