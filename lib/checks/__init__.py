"""The exercises: `checks.<chapter>.<exercise>(answer)` tells what is right and what went wrong.

    framework     how a check works; `Verdict` and `Exercise`
    compare       comparing values, and saying where they part
    record        what a reader has done, from one day to the next
    warm_up       chapter 0
    tokenization  chapter 1
    attention     chapter 2
    multi_head    chapter 3
    positions     chapter 4
    transformer   chapter 5
    kv_cache      chapter 6
    mqa_gqa       chapter 7
    mla           chapter 8

`EXERCISES` holds every exercise under "chapter.exercise".
"""

from lib.checks import (
    attention,
    kv_cache,
    mla,
    mqa_gqa,
    multi_head,
    positions,
    tokenization,
    transformer,
    warm_up,
)
from lib.checks.framework import Exercise, Verdict
from lib.checks.record import Progress, load

__all__ = [
    "EXERCISES",
    "Exercise",
    "Verdict",
    "attention",
    "kv_cache",
    "mla",
    "mqa_gqa",
    "multi_head",
    "positions",
    "progress",
    "tokenization",
    "transformer",
    "warm_up",
]

CHAPTERS = (
    warm_up,
    tokenization,
    attention,
    multi_head,
    positions,
    transformer,
    kv_cache,
    mqa_gqa,
    mla,
)
EXERCISES: dict[str, Exercise] = {
    thing.key: thing
    for chapter in CHAPTERS
    for thing in vars(chapter).values()
    if isinstance(thing, Exercise)
}


def progress(chapter: str | None = None) -> Progress:
    """What has been done, of one chapter (by its name here, "warm_up") or of all.

    Raises:
        ValueError: no chapter of that name.
    """
    chosen = [e for e in EXERCISES.values() if chapter in (None, e.chapter)]
    if not chosen:
        names = ", ".join(dict.fromkeys(e.chapter for e in EXERCISES.values()))
        raise ValueError(f"no chapter named {chapter!r}: there are {names}")
    return Progress(chosen, load())
