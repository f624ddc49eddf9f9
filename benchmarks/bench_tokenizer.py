"""Our BPE beside Hugging Face `tokenizers` and `tiktoken`: one process, one thread, CPU seconds.

    python -m benchmarks tokenizer                  everything, several minutes
    python -m benchmarks.bench_tokenizer --quick    small sizes, to see that it runs

Every row is the best of a few repetitions. Where ids or merges should agree, they are compared.
"""

import os

os.environ["RAYON_NUM_THREADS"] = "1"  # before `tokenizers` is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sys
import time
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import regex
import tiktoken
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from lib import data
from lib.tokenizer import GPT2_PATTERN, BPETokenizer

MB = 1_000_000


def cpu_seconds(function, *args, repeat=3, before=None):
    """Return the least CPU time of `repeat` calls, and what the last one returned."""
    best = float("inf")
    for _ in range(repeat):
        if before:
            before()
        start = time.process_time()
        result = function(*args)
        best = min(best, time.process_time() - start)
    return best, result


def naive_train(text, n_merges, seconds=float("inf")):
    """A naive loop over lists of ids: count all pairs, merge the best everywhere, count again.

    Stops early when `seconds` are over; returns the merges, as pairs of ids.
    """
    start = time.process_time()
    words = [list(word.encode()) for word in regex.findall(GPT2_PATTERN, text)]
    merges = []
    while len(merges) < n_merges and time.process_time() - start < seconds:
        counts = Counter()
        for word in words:
            counts.update(pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        words = [_merge(word, best, 256 + len(merges)) for word in words]
        merges.append(best)
    return merges


def _merge(word, pair, new):
    merged, at = [], 0
    while at < len(word):
        hit = at + 1 < len(word) and word[at] == pair[0] and word[at + 1] == pair[1]
        merged.append(new if hit else word[at])
        at += 2 if hit else 1
    return merged


def hugging_face_train(texts, vocab_size):
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator(texts, trainer)
    return theirs


def bench_naive(text, vocab_size=512, seconds=100.0):
    """Training against the naive loop, which is stopped after `seconds` and then extrapolated."""
    ours, _ = cpu_seconds(BPETokenizer.train, text, vocab_size)
    theirs, merges = cpu_seconds(naive_train, text, vocab_size - 256, seconds, repeat=1)
    share = len(merges) / (vocab_size - 256)
    note = "" if share == 1 else f", naive from {len(merges)} merges"
    work = f"train {len(text.encode()) / MB:g} MB to {vocab_size}, against naive{note}"
    return [(work, ours, theirs / share, "100")]


def bench_training(text, vocab_size):
    """Training against Hugging Face, both fed by lines; merges compared on the whole text."""
    lines = text.splitlines(keepends=True)
    ours, _ = cpu_seconds(BPETokenizer.train, lines, vocab_size)
    theirs, _ = cpu_seconds(hugging_face_train, lines, vocab_size)
    vocab = hugging_face_train([text], vocab_size).get_vocab()
    tokenizer = BPETokenizer.train(text, vocab_size)
    with TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "t.json")
        same = Tokenizer.from_file(str(Path(folder) / "t.json")).get_vocab() == vocab
    work = f"train {len(text.encode()) / MB:g} MB to {vocab_size}, against Hugging Face by lines"
    return [(work + ("" if same else "; MERGES DIFFER"), ours, theirs, "1.0")]


def bench_encoding(text, vocab_size=8192):
    """Encoding with an empty cache against Hugging Face and tiktoken; all three must agree."""
    tokenizer = BPETokenizer.train(text[: len(text) // 4], vocab_size)
    ours, ids = cpu_seconds(tokenizer.encode, text, before=tokenizer._ids.clear)
    with TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "t.json")
        theirs = Tokenizer.from_file(str(Path(folder) / "t.json"))
    tik = tiktoken.Encoding(
        "ours", pat_str=GPT2_PATTERN, mergeable_ranks=tokenizer.ranks, special_tokens={}
    )
    hf_time, hf_ids = cpu_seconds(lambda: theirs.encode(text).ids, repeat=1)
    tik_time, tik_ids = cpu_seconds(tik.encode_ordinary, text)
    work = f"encode {len(text.encode()) / MB:g} MB with {tokenizer.vocab_size} ids, cold, against "
    wrong = "" if ids == hf_ids == tik_ids else "; IDS DIFFER"
    return [
        (work + "Hugging Face" + wrong, ours, hf_time, "4"),
        (work + "tiktoken" + wrong, ours, tik_time, "0.3"),
    ]


def bench_one_letter(tokenizer, n=100_000):
    """One letter, 2n times against n times. The goal is a ceiling: at most 2.5 times the time."""
    once, _ = cpu_seconds(tokenizer.encode, "a" * n, repeat=7)
    twice, _ = cpu_seconds(tokenizer.encode, "a" * (2 * n), repeat=7)
    return [(f"{2 * n} times one letter, against {n} times", once, twice, "<=2.5")]


def table(rows):
    """Return rows of (work, our seconds, their seconds, goal) as a table."""
    lines = ["work | ours | theirs | ratio | goal | met?", "--- | --- | --- | --- | --- | ---"]
    for work, ours, theirs, goal in rows:
        ratio = theirs / ours
        met = ratio <= float(goal[2:]) if goal.startswith("<=") else ratio >= float(goal)
        cells = (work, f"{ours:.3f} s", f"{theirs:.3f} s", f"{ratio:.2f}", goal)
        lines.append(" | ".join([*cells, "yes" if met else "no"]))
    return "\n".join(lines)


def main(quick=False):
    warnings.simplefilter("ignore")
    sizes, vocab_sizes, big = ([0.1], [512], 0.2) if quick else ([1, 3, 10], [512, 8192, 32000], 10)
    rows = bench_naive(data.zipf_text(int(sizes[0] * MB)), seconds=5.0 if quick else 110.0)
    for size in sizes:
        for vocab_size in vocab_sizes:
            rows += bench_training(data.zipf_text(int(size * MB)), vocab_size)
    rows += bench_encoding(data.zipf_text(int(big * MB)))
    rows += bench_one_letter(BPETokenizer.train(data.zipf_text(100_000), 1000))
    names = sorted(path.stem for path in data.TEXTS.glob("*.txt"))
    if names:
        own = "\n".join(map(data.load_text, names))
        rows += bench_training(own, 4096) + bench_encoding(own, 4096)
    print(table(rows))


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
