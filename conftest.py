"""For every pytest run here: no test touches a reader's progress, and nbval compares text only."""

import os

import torch

torch.set_num_threads(1)  # tests may share two cores; small tensors gain nothing from more

os.environ["BYTES_TO_LATENTS_PROGRESS"] = ""

# Made at build time and not stored, so there is nothing to compare them with.
NOT_STORED = ("text/html", "image/svg+xml", "image/png", "application/vnd.jupyter.widget-view+json")


def pytest_collection_modifyitems(items):
    for item in items:
        if hasattr(item.parent, "skip_compare"):
            item.parent.skip_compare = tuple({*item.parent.skip_compare, *NOT_STORED})
