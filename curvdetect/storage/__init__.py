"""Files: guards that execute nothing, or run without us; shards, pictures, tables.

`save` and `load` need the extra "skops".
"""

from curvdetect.storage.exported_guards import compare_exported, export_guard
from curvdetect.storage.guards import load, save
from curvdetect.storage.pictures import Batch, read_images, read_picture
from curvdetect.storage.shards import score_in_shards, transform_in_shards

__all__ = [
    "Batch",
    "compare_exported",
    "export_guard",
    "load",
    "read_images",
    "read_picture",
    "save",
    "score_in_shards",
    "transform_in_shards",
]
