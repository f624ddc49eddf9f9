"""What is too long for a notebook: each script writes one small table to `chapters/results/`.

    induction    chapter 3: many seeds of the model that finds its own induction head
    positions    chapter 4: every position scheme, trained at one length and tested beyond it
    language     chapter 5: small language models on a language of known entropy
    sinks        chapter 6: a head with nothing to do, and what a window takes from it
    sharing      chapters 7 and 8: recall with fewer keys, and a trained model made to share them
    decode       chapter 7: the time of a decoded token, by context, batch and key heads

`python -m experiments.<name>` runs one; chapters import the same functions for one live run. A
table opens with the command that made it, its versions and its duration.
"""

import csv
import platform
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).resolve().parent.parent / "chapters" / "results"


def write_table(name, rows, started, script="", note=""):
    """Rows (dicts of the same keys) -> chapters/results/<name>.csv; `started` is a time.time().

    A `note` follows in the header: what was measured on, where times are the result.
    """
    with open(RESULTS / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        module = script if "." in script else f"experiments.{script or name}"
        file.write(f"# python -m {module}\n")
        versions = f"python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
        file.write(f"# {versions}, {time.time() - started:.0f} s on one core\n")
        if note:
            file.write(f"# {note}\n")
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def read_table(name):
    """chapters/results/<name>.csv -> a list of dicts; what looks like a number is one."""
    with open(RESULTS / f"{name}.csv", newline="", encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return [{key: _number(value) for key, value in row.items()} for row in rows]


def _number(text):
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:
        return text
