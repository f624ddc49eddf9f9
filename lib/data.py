"""Text to learn from: the course's own files, and synthetic text of any size.

What is here
    load_text    one of the texts in `lib/texts/`
    zipf_text    as many bytes as asked for of text that is shaped like prose, for benchmarks
    repeated_rows    lists of random words, again and again, for chapter 3
    recall_rows      keys and values, to be recalled by key, for chapters 4 and 7
    card_rows        cards that are found by any of their attributes, for chapters 7 and 8
    bigram_table, backcopy_rows    words that need the past only now and then, for chapter 6
    Grammar      a language whose entropy is known exactly, for chapter 5

`zipf_text` imitates what matters to a tokenizer and nothing else: few words are common and many
are rare, common words are short, sentences have capitals, punctuation and lines, some words are
numbers, and some are not ASCII. It means nothing: a language model learns little from it.
"""

import math
from itertools import accumulate
from pathlib import Path
from random import Random

import torch

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


def repeated_rows(n_rows, seq_len=32, n_words=32, periods=(4, 16), generator=None):
    """Rows of a mark, then P different words again and again, P drawn anew for each row.

    Returns ids (n_rows, seq_len), where words are 0 .. n_words - 1 and the mark is n_words, and
    `repeats`, of the same shape: True for the tokens that can be known, those after the first
    round. `periods` are the smallest and the largest P.

    Raises ValueError for periods that are not 1 <= smallest <= largest <= n_words.
    """
    low, high = periods
    if not 1 <= low <= high <= n_words:
        raise ValueError(f"periods must be 1 <= smallest <= largest <= {n_words}: got {periods}")
    words = torch.rand(n_rows, n_words, generator=generator).argsort(1)  # a shuffle for each row
    P = torch.randint(low, high + 1, (n_rows, 1), generator=generator)
    t = torch.arange(seq_len - 1)
    rows = words.gather(1, t % P)  # (n_rows, seq_len - 1)
    mark = torch.full((n_rows, 1), n_words)
    return torch.cat((mark, rows), 1), torch.cat((mark < 0, t >= P), 1)


def recall_rows(n_rows, seq_len=32, n_keys=12, n_values=12, generator=None):
    """Rows of pairs key, value, key, value ...: a dictionary redrawn for each row, to be recalled.

    Returns ids (n_rows, seq_len), where keys are 0 .. n_keys - 1 and values come after them, and
    `known`, of the same shape: True for the values whose key has come before.

    Raises ValueError for an odd seq_len.
    """
    if seq_len % 2:
        raise ValueError(f"seq_len must be even, a row is made of pairs: got {seq_len}")
    dictionary = torch.randint(n_values, (n_rows, n_keys), generator=generator)
    keys = torch.randint(n_keys, (n_rows, seq_len // 2), generator=generator)
    values = n_keys + dictionary.gather(1, keys)
    before = (keys[:, :, None] == keys[:, None, :]).tril(-1).any(-1)  # (n_rows, seq_len/2)
    ids = torch.stack((keys, values), 2).flatten(1)  # (n_rows, seq_len/2, 2) -> (n_rows, seq_len)
    return ids, torch.stack((torch.zeros_like(before), before), 2).flatten(1)


def card_rows(n_rows, n_cards=8, n_attributes=4, n_values=16, n_queries=16, generator=None):
    """Cards, each with one value of every attribute, and queries "a is v: what is its b?".

    Returns cards (n_rows, N, A), queries (n_rows, Q, 2) and answers (n_rows, Q), all of them ids:
    "attribute a is v" is a·n_values + v, the question "what is b?" is A·n_values + b, so that
    there are A·(n_values + 1). A query names a value of one card and asks for another attribute of
    it. No two cards of a row have the same value of an attribute: one card fits. A card is one
    token: to be found by any of A attributes it needs A keys, or one wide enough for all.

    Raises ValueError for more cards than values, and for fewer than two attributes.
    """
    if not 1 <= n_cards <= n_values:
        raise ValueError(f"n_cards must be 1 to n_values, {n_values}, to differ: got {n_cards}")
    if n_attributes < 2:
        raise ValueError(f"n_attributes must be 2 or more, given and asked for: got {n_attributes}")
    B, N, A, n, Q = n_rows, n_cards, n_attributes, n_values, n_queries
    shuffled = torch.rand(B, A, n, generator=generator).argsort(2)  # a shuffle for each attribute
    cards = shuffled[..., :N].mT + n * torch.arange(A)  # (B, A, N) -> (B, N, A)
    card = torch.randint(N, (B, Q, 1), generator=generator)
    given = torch.randint(A, (B, Q, 1), generator=generator)
    asked = (given + torch.randint(1, A, (B, Q, 1), generator=generator)) % A  # another one
    found = cards.gather(1, card.expand(-1, -1, A))  # (B, Q, A): the card of each query
    queries = torch.cat((found.gather(2, given), A * n + asked), 2)  # (B, Q, 2)
    return cards, queries, found.gather(2, asked)[..., 0]


def bigram_table(n_words=24, seed=0):
    """How likely each word is after each: (n_words, n_words), rows sum to 1, alike for one seed.

    A row is the softmax of numbers from N(0, 1): no word is certain, and none is impossible.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_words, n_words, generator=generator).softmax(1)


def backcopy_rows(n_rows, table, seq_len=64, n_triggers=4, generator=None):
    """Rows of a mark, then words drawn after `table` (W, W); after a trigger, the word before it.

    Returns ids (n_rows, seq_len), where words are 0 .. W - 1, the first `n_triggers` of them
    triggers, and the mark is W; and `copied`, of the same shape: True for words that repeat the one
    before a trigger. All others depend on the last word alone, so that looking back helps only
    after a trigger.

    Guo et al. 2024 (bigram-backcopy), https://arxiv.org/abs/2410.13835

    Raises ValueError for a table that is not square, and for triggers that leave no other word.
    """
    W = len(table)
    if table.shape != (W, W):
        raise ValueError(f"table must be (W, W), a row for each word: got {tuple(table.shape)}")
    if not 0 <= n_triggers < W:
        raise ValueError(f"n_triggers must be 0 to {W - 1}, with {W} words: got {n_triggers}")
    ids = torch.full((n_rows, seq_len), W)
    ids[:, 1:2] = torch.randint(n_triggers, W, (n_rows, 1), generator=generator)
    for t in range(2, seq_len):
        last, before = ids[:, t - 1], ids[:, t - 2]
        drawn = torch.multinomial(table[last], 1, generator=generator)[:, 0]
        ids[:, t] = torch.where(last < n_triggers, before, drawn)
    copied = torch.zeros_like(ids, dtype=torch.bool)
    copied[:, 1:] = ids[:, :-1] < n_triggers
    return ids, copied


# ---- A language whose entropy is known ----------------------------------------------------------

NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Hugo"]
NOUNS = {"animal": "dog cat bird horse rabbit", "thing": "ball cup lamp stone door"}
VERBS = {"animal": "sleep run eat jump", "thing": "fall break shine roll"}


def _zipf(words, share=1.0, ending=""):
    """Rules for words of which the r-th is drawn in proportion to 1/r, `share` together."""
    words = words.split()
    total = sum(1 / r for r in range(1, len(words) + 1))
    return [(share / r / total, word + ending) for r, word in enumerate(words, 1)]


def _rules():
    """Symbol -> [(probability, what it turns into)]; what has no rules is a word.

    The subject leaves its verb behind, in the right number and class, beyond all that follows it.
    """
    phrase = [(0.5, "the ADJ? {}"), (0.25, "a ADJ? {}-one")]  # `the` leaves the number to the noun
    phrase += [(0.15, "two ADJ? {}-many"), (0.1, "many ADJ? {}-many")]
    speech = "{0} says SPEECH and {0} END ."  # the name comes back
    rules = {
        "SENTENCE": [(1 / 2, "CLAUSE ."), *((1 / 16, speech.format(name)) for name in NAMES)],
        "SPEECH": [(0.5, "( CLAUSE )"), (0.5, "[ CLAUSE ]")],
        "END": _zipf("smiles laughs leaves"),
        "CLAUSE": [(p, form.format("SUBJECT")) for p, form in phrase],
        "OTHER": [(p, form.format("NOUN")) for p, form in phrase],
        "PLACE?": [(0.65, ""), (0.35, "PREP OTHER PLACE?")],
        "PREP": _zipf("near behind under"),
        "ADJ?": [(0.7, ""), *_zipf("small old black young big red", 0.3)],
        "ADV?": [(0.7, ""), *_zipf("again slowly quietly", 0.3)],
    }
    for noun in ("SUBJECT", "NOUN"):
        rules[noun] = [(0.5, f"{noun}-one"), (0.5, f"{noun}-many")]
        for number in ("one", "many"):
            verb = " PLACE? VERB-{0}-{1} ADV?" if noun == "SUBJECT" else ""
            form = "{0}-{1}" + verb
            rules[f"{noun}-{number}"] = [(0.5, form.format(kind, number)) for kind in NOUNS]
    for kind in NOUNS:
        for number, s in (("one", ""), ("many", "s")):
            rules[f"{kind}-{number}"] = _zipf(NOUNS[kind], ending=s)
            rules[f"VERB-{kind}-{number}"] = _zipf(VERBS[kind], ending="" if s else "s")
    return rules


class Grammar:
    """Short sentences whose next word is a draw from known probabilities: a floor for any model.

    Verbs agree with the first noun in number and kind, whatever stands between; a name comes back;
    a bracket closes as it opened. The words so far fix the state, and a state says how likely each
    word is: `probs` (states, V); `next` (states, V) is where it leads. The last state is a dead
    end, for words that could not follow. Word 0 is ".", after which all begins anew.

    >>> grammar = Grammar()
    >>> len(grammar.words), len(grammar.probs) - 1
    (70, 730)
    >>> grammar.is_grammatical(grammar.encode("a dog near two lamps sleeps ."))
    True
    """

    def __init__(self):
        rules = _rules()
        sides = " ".join(side for turns in rules.values() for _, side in turns).split()
        self.words = list(dict.fromkeys([".", *(word for word in sides if word not in rules)]))
        self._id = {word: i for i, word in enumerate(self.words)}
        states, edges = {("SENTENCE",): 0}, []
        for pending in (todo := [("SENTENCE",)]):  # grows as states are found
            for p, word, after in _first_words(pending, rules):
                if after not in states:
                    states[after] = len(states)
                    todo.append(after)
                edges.append((states[pending], self._id[word], states[after], p))
        N = len(states)
        self.probs = torch.zeros(N + 1, len(self.words), dtype=torch.float64)
        self.next = torch.full((N + 1, len(self.words)), N)
        for state, word, after, p in edges:
            self.probs[state, word], self.next[state, word] = p, after

    def encode(self, text):
        """Words with spaces between them -> ids, a list."""
        return [self._id[word] for word in text.split()]

    def decode(self, ids):
        """Ids -> text."""
        return " ".join(self.words[i] for i in ids)

    def sample_rows(self, n_rows, seq_len=64, generator=None):
        """Rows of "." and the `seq_len` words that come after it: ids (n_rows, 1 + seq_len)."""
        ids = torch.zeros(n_rows, 1 + seq_len, dtype=torch.long)
        state = torch.zeros(n_rows, dtype=torch.long)
        ladder = self.probs[:-1].cumsum(1)
        ladder /= ladder[:, -1:].clone()  # ends at 1 exactly: no draw lies above
        draws = torch.rand(seq_len, n_rows, 1, dtype=torch.float64, generator=generator)
        for t in range(seq_len):
            word = torch.searchsorted(ladder[state], draws[t], right=True)[:, 0]
            ids[:, t + 1], state = word, self.next[state, word]
        return ids

    def states(self, ids):
        """The state after each word: ids (B, 1 + T) that begin with "." -> (B, 1 + T).

        `probs[states(ids)]`, (B, 1 + T, V), is what a perfect model would say.
        Raises ValueError for rows that begin with another word.
        """
        ids = torch.as_tensor(ids)
        if ids.ndim != 2 or ids.shape[1] == 0 or ids[:, 0].any():
            got = ids[:, :1].flatten().tolist() if ids.ndim == 2 else tuple(ids.shape)
            raise ValueError(f'ids must be (B, 1 + T), rows that begin with ".", 0: got {got}')
        states = torch.zeros_like(ids)
        for t in range(1, ids.shape[1]):
            states[:, t] = self.next[states[:, t - 1], ids[:, t]]
        return states

    def log_probs(self, ids):
        """The true log-probability of each word after the first: ids (B, 1 + T) -> (B, T), in nats.

        -inf from the first word on that could not follow.
        """
        ids = torch.as_tensor(ids)
        return self.probs[self.states(ids)[:, :-1], ids[:, 1:]].log()

    def is_grammatical(self, ids):
        """Whether word ids, a list, are one whole sentence, "." included, or several."""
        ends = len(ids) > 0 and ids[-1] == 0
        return bool(ends and self.log_probs([[0, *ids]]).isfinite().all())

    def floors(self, seq_len=64):
        """The lowest mean loss, in nats a word, on rows of `seq_len` words after a ".".

        "exact" is for who knows the rules; "unigram", "bigram" and "trigram" for who sees no, one
        or two words back; "uniform" for who knows nothing.
        """
        names = {"unigram": 1, "bigram": 2, "trigram": 3}
        blind = {name: self._ngram(n, seq_len) for name, n in names.items()}
        return {"uniform": math.log(len(self.words)), **blind, "exact": self._exact(seq_len)}

    def rate(self):
        """The entropy of the language, in nats a word: the floor of rows without end."""
        step, entropy = self._chain()
        return (torch.linalg.matrix_power(step, 4096)[0] @ entropy).item()

    def _chain(self):
        """Transitions between states (N, N), and the entropy of the next word in each, (N,)."""
        probs = self.probs[:-1]
        step = probs.new_zeros(len(probs), len(probs) + 1)
        return step.scatter_add(1, self.next[:-1], probs)[:, :-1], -torch.xlogy(probs, probs).sum(1)

    def _exact(self, seq_len):
        step, entropy = self._chain()
        now, total = torch.eye(1, len(step), dtype=step.dtype)[0], 0.0  # where it is at time t
        for _ in range(seq_len):
            total, now = total + now @ entropy, now @ step
        return (total / seq_len).item()

    def _ngram(self, n, seq_len):
        """Entropy of a word given the n - 1 words before it, counted over all places of a row."""
        (N, V), C = self.probs.shape, len(self.words) ** (n - 1)
        now, joint = self.probs.new_zeros(C, N), self.probs.new_zeros(C, V)
        now[0, 0] = 1  # the words so far are ".", and so is what one might see before
        for _ in range(seq_len):
            seen, state = now.nonzero(as_tuple=True)
            flow = now[seen, state, None] * self.probs[state]  # (pairs, V)
            joint.index_add_(0, seen, flow)
            after = (seen[:, None] * V + torch.arange(V)) % C * N + self.next[state]
            now = now.new_zeros(C * N).index_add_(0, after.flatten(), flow.flatten()).view(C, N)
        joint /= seq_len
        return (
            torch.xlogy(joint.sum(1), joint.sum(1)).sum() - torch.xlogy(joint, joint).sum()
        ).item()


def _first_words(pending, rules):
    """Symbols still to come -> [(probability, next word, symbols that come after it)]."""
    if pending[0] not in rules:
        return [(1.0, pending[0], pending[1:] or ("SENTENCE",))]
    return [
        (p * q, word, after)
        for p, side in rules[pending[0]]
        for q, word, after in _first_words((*side.split(), *pending[1:]), rules)
    ]
