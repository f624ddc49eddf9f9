"""Text to learn from: the course's own files, and synthetic text of any size.

What is here
    load_text    one of the texts in `lib/texts/`
    zipf_text    as many bytes as asked for of text that is shaped like prose, for benchmarks

`zipf_text` imitates what matters to a tokenizer and nothing else: few words are common and many
are rare, common words are short, sentences have capitals, punctuation and lines, some words are
numbers, and some are not ASCII. It means nothing: a language model learns little from it.
"""

from itertools import accumulate
from pathlib import Path
from random import Random

TEXTS = Path(__file__).with_name("texts")

ONSETS = [*"bcdfghklmnprstvw", "ch", "pr", "sh", "st", "th", "tr"]
VOWELS = [*"aeiouaeio", "ea", "ou"]
CODAS = ["", "", "", "", "n", "r", "s", "t", "l", "ng"]
ACCENTS = str.maketrans({"a": "á", "e": "é", "o": "ö", "u": "ü", "n": "ñ"})
SCRIPTS = ["абвгдежзиклмнопрсту", "αβγδεζηθικλμνοπρστυ", "あいうえおかきくけこさしすせそ"]
LEXICON_SIZE = 60_000
ENDINGS = [". "] * 8 + ["! ", "? ", "; ", ": ", ".\n", ".\n", ".\n\n"]


def load_text(name: str) -> str:
    """Return the text of `lib/texts/<name>.txt`, one of the course's own, as it stands in the file.

    Raises ValueError, naming the texts there are, for any other name.
    """
    names = sorted(path.stem for path in TEXTS.glob("*.txt"))
    if name not in names:
        raise ValueError(f"there is no text called {name!r}; the texts are {names}")
    # newline="": "\r\n" is two characters to a tokenizer, and must not become one on the way.
    with open(TEXTS / f"{name}.txt", encoding="utf-8", newline="") as file:
        return file.read()


def zipf_text(n_bytes: int, seed: int = 0) -> str:
    """Return text of exactly `n_bytes` bytes of UTF-8 whose word frequencies follow Zipf's law.

    The word of rank r is drawn with probability proportional to (r + 2.7) ** -1.1, Zipf's law as
    Mandelbrot corrected it: the first megabyte has some 24,000 different words.
    The same size and seed give the same text; a shorter text is the beginning of a longer one,
    apart from the spaces that may fill up its last character.

    Zipf 1949, *Human Behavior and the Principle of Least Effort*; Mandelbrot 1953

    >>> len(zipf_text(1000).encode()), zipf_text(1000) == zipf_text(1000, seed=1)
    (1000, False)
    """
    if n_bytes < 0:
        raise ValueError(f"n_bytes must be 0 or more, not {n_bytes}")
    rng = Random(seed)
    words = _lexicon(rng)
    weights = list(accumulate((rank + 2.7) ** -1.1 for rank in range(len(words))))
    parts, missing = [], n_bytes
    while missing > 0:
        batch = _sentences(rng, rng.choices(words, cum_weights=weights, k=20_000))
        parts.append(batch)
        missing -= len(batch.encode())
    # The cut may fall inside a character: drop its first bytes and fill up with spaces.
    text = "".join(parts).encode()[:n_bytes].decode(errors="ignore")
    return text + " " * (n_bytes - len(text.encode()))


def _lexicon(rng: Random) -> list[str]:
    """Return LEXICON_SIZE words: the commoner the shorter, some in other scripts, some doubles."""
    words = []
    for rank in range(LEXICON_SIZE):
        n_syllables = (
            1 + (rank > 100) * rng.choice((0, 1)) + (rank > 2000) * rng.choice((0, 1, 1, 2))
        )
        kind = rng.random()
        if rank > 100 and kind < 0.03:
            word = "".join(rng.choices(rng.choice(SCRIPTS), k=2 * n_syllables))
        else:
            word = "".join(
                rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS)
                for _ in range(n_syllables)
            )
            word = word.translate(ACCENTS) if kind < 0.05 else word
            word = word.capitalize() if 0.05 < kind < 0.12 else word
        words.append(word)
    return words


def _sentences(rng: Random, words: list[str]) -> str:
    """Join words into sentences with capitals, punctuation, contractions and numbers."""
    parts, start = [], 0
    while start < len(words):
        sentence = words[start : start + rng.randrange(4, 24)]
        start += len(sentence)
        kind = rng.randrange(len(sentence) * 3)  # one sentence in three gets something special
        if kind < len(sentence):
            extra = (",", "'s", "'ll", " -", f" {rng.randrange(3000)}", f" ({kind})")
            sentence[kind] += extra[rng.randrange(len(extra))]
        line = " ".join(sentence)
        parts.append(line[:1].upper() + line[1:] + rng.choice(ENDINGS))
    return "".join(parts)
