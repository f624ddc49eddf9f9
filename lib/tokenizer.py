r"""Text to integers and back: words, characters, bytes, and byte pair encoding (BPE).

    WordTokenizer, CharTokenizer, ByteTokenizer    three simple ways to cut a text, and their price
    GPT2_PATTERN, GPT4_PATTERN                     how a text is cut into words before BPE sees it
    learn_merges                                   BPE training: merge the commonest pair, repeat
    apply_merges                                   BPE encoding: replay the merges on one word
    BPETokenizer                                   these together, special tokens, and files

BPE for words is Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; on bytes, behind a split
pattern, it is GPT-2 (Radford et al. 2019). Training breaks ties as Hugging Face `tokenizers` does,
and ids are those of `tokenizers` and `tiktoken` for all characters up to Unicode 14; which newer
ones are letters, each regex engine decides by its own tables. Left out: normalisation, WordPiece
and Unigram, threads, and what belongs to whoever builds batches (padding, truncation, templates).

The one trick: a token is a character. Token 300 is written `chr(300)`; then a word is a string,
a pair of tokens is a string of length 2, and "merge this pair everywhere in the word" is
`str.replace`, which runs in C, goes from left to right and never overlaps, as BPE wants it.
"""

import json
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from heapq import heapify, heappop, heappush
from itertools import chain
from operator import add, index, itemgetter
from pathlib import Path

import regex  # the standard library's `re` does not know \p{L}, "any letter"


class WordTokenizer:
    """One id per word, number or punctuation mark; id 0 is `<UNK>`, any word not seen in training.

    Decoding is lossy: white space is dropped, one space joins the tokens, `<UNK>` stays `<UNK>`.

    >>> tokenizer = WordTokenizer.train("the cat, the mat")
    >>> tokenizer.encode("the dog, the cat"), tokenizer.decode([1, 3])
    ([1, 0, 2, 1, 3], 'the cat')
    """

    UNK = "<UNK>"  # split() cuts this into three, so no text can spell it

    def __init__(self, words: Iterable[str]):
        self.tokens = dict(enumerate([self.UNK, *words]))
        self.ids = {token: i for i, token in self.tokens.items()}

    @classmethod
    def train(cls, text: str | Iterable[str], vocab_size: int | None = None) -> "WordTokenizer":
        """Take the words of `text`, commonest first, or as many as fit into `vocab_size` ids."""
        counts = Counter(chain.from_iterable(map(cls.split, _strings(text))))
        words = sorted(counts, key=lambda word: (-counts[word], word))
        return cls(words if vocab_size is None else words[: max(vocab_size - 1, 0)])

    @staticmethod
    def split(text: str) -> list[str]:
        return re.findall(r"\w+|[^\w\s]", text)

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the words of `text`, 0 for those not seen in training."""
        return [self.ids.get(word, 0) for word in self.split(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the words of `ids`, joined by spaces."""
        return " ".join(_look_up(ids, self.tokens))


class CharTokenizer:
    """One id per character (code point) of the training text; any other one raises ValueError.

    >>> CharTokenizer.train("banana").encode("nab")
    [2, 0, 1]
    """

    def __init__(self, characters: Iterable[str]):
        self.tokens = dict(enumerate(characters))
        self.ids = {token: i for i, token in self.tokens.items()}

    @classmethod
    def train(cls, text: str | Iterable[str]) -> "CharTokenizer":
        return cls(sorted(set(chain.from_iterable(_strings(text)))))

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the characters of `text`; raise ValueError for one not seen."""
        unknown = set(text) - set(self.ids)
        _require(
            not unknown,
            f"{unknown and min(unknown)!r} is none of the {self.vocab_size} characters seen in "
            "training; train on text that has it, or use ByteTokenizer",
        )
        return [self.ids[character] for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`."""
        return "".join(_look_up(ids, self.tokens))


class ByteTokenizer:
    """One id per byte of UTF-8, the byte itself: 256 ids for every text, and nothing to train.

    Not all ids are text: `decode` writes U+FFFD for what is not UTF-8, or with `errors="strict"`
    raises UnicodeDecodeError, a ValueError.

    >>> ByteTokenizer().encode("né")
    [110, 195, 169]
    """

    vocab_size = 256

    def encode(self, text: str) -> list[int]:
        """Return the bytes of `text`; raise ValueError for half a surrogate pair."""
        return list(_utf8(text))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text of `ids`, U+FFFD in place of what is not UTF-8."""
        return bytes(_look_up(ids, dict(enumerate(range(256))))).decode("utf-8", errors)


def _strings(text: str | Iterable[str]) -> Iterable[str]:
    return [text] if isinstance(text, str) else text


def _require(condition: object, reason: str) -> None:
    if not condition:
        raise ValueError(reason)


def _utf8(text: str) -> bytes:
    """Return the bytes of `text`, or say where half of a surrogate pair stands alone in it."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        near = text[max(error.start - 10, 0) : error.start + 10]
        raise ValueError(
            f"{text[error.start]!r} in {near!r} is half of a surrogate pair, which is no text; "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') repairs it"
        ) from None


def _look_up(ids: Iterable[int], tokens: dict) -> list:
    """Return the token of each id, or say which id has none."""
    ids = list(ids)
    if not set(map(type, ids)) <= {int}:  # True == 1 and 2.0 == 2 would find a token by accident
        if wrong := [i for i in ids if isinstance(i, bool | float | str)]:
            raise TypeError(f"ids must be integers, not {wrong[0]!r}; there are {len(tokens)} ids")
        ids = list(map(index, ids))  # those of NumPy and torch are welcome
    try:
        return [tokens[i] for i in ids]
    except KeyError as error:
        top = max(tokens, default=-1)
        raise ValueError(
            f"id {error} is outside the vocabulary: its {top + 1} ids go from 0 to {top}"
        ) from None


# ---- Before BPE: cutting a text into words ------------------------------------------------------
# Merges happen inside a word, never across two. The first alternative that matches wins.

GPT2_PATTERN = (  # https://github.com/openai/gpt-2/blob/master/src/encoder.py
    r"'(?:[sdmt]|ll|ve|re)"  # the end of a contraction, in small letters only: it|'s
    r"| ?\p{L}+"  # letters, with the space before them
    r"| ?\p{N}+"  # digits, as many as there are
    r"| ?[^\s\p{L}\p{N}]+"  # anything else that can be seen
    r"|\s+(?!\S)"  # white space, except its last character ...
    r"|\s+"  # ... which goes with the next word if it is a space
)
GPT4_PATTERN = (  # cl100k_base, https://github.com/openai/tiktoken, tiktoken_ext/openai_public.py
    r"'(?i:[sdmt]|ll|ve|re)"  # contractions in capitals, too: IT|'S
    r"|[^\r\n\p{L}\p{N}]?+\p{L}++"  # letters, with the space or the one mark before them
    r"|\p{N}{1,3}"  # digits by threes; cl100k has {1,3}+, which Hugging Face reads as "repeat"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*+"  # anything else that can be seen, and the line's end
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"  # white space: all at the end, lines, all but the last
)


def compile_pattern(pattern: str) -> regex.Pattern:
    r"""Compile a split pattern so that what it does not match is a word too, and nothing is lost.

    Hugging Face does the same; `tiktoken` drops such text. For patterns of plain alternatives, as
    all tokenizers use; not for inline flags or `\K`.
    """
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from None
    wrong = "has a capturing group" if compiled.groups else "matches the empty string"
    _require(not compiled.groups and not compiled.match(""), f"pattern {pattern!r} {wrong}")
    return regex.compile(rf"{pattern}|(?s:(?:(?!{pattern}).)+)")


def split_on_special(text: str, names: Collection[str]) -> list[str]:
    """Cut `text` at special tokens: ordinary text at even places of the list, names at odd ones.

    Where several begin, the longest wins: `<|end|>` must not hide `<|end|>ing`. Hugging Face does
    the same; `tiktoken` may take the shorter one.

    >>> split_on_special("a<|x|>b", ["<|x|>"])
    ['a', '<|x|>', 'b']
    """
    longest_first = sorted(names, key=len, reverse=True)
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text) if names else [text]


# ---- BPE: learning merges, replaying merges -----------------------------------------------------


def learn_merges(words: dict[str, int], n_merges: int) -> list[str]:
    """Learn at most `n_merges` merges from {word as a string of tokens: how often it occurs}.

    A merge is a string of two tokens; the first makes token `chr(256)`, the next `chr(257)`, and so
    on. The commonest pair comes first; of equals, the one with the smallest (left id, right id).

    Sennrich et al. 2016, algorithm 1, https://arxiv.org/abs/1508.07909

    >>> learn_merges({"aaabdaaabac": 1}, 3)  # 'Ā' is chr(256), 'aa'; 'ā' is chr(257), 'ab'
    ['aa', 'ab', 'Āā']
    """
    pairs = _PairIndex(words)
    heap = [(-count, pair) for pair, count in pairs.counts.items()]
    heapify(heap)  # commonest first; of equals the smallest string, which is the smallest ids
    merges: list[str] = []
    while heap and len(merges) < n_merges:
        count, pair = heappop(heap)
        if -count == pairs.counts[pair]:
            merges.append(pair)
            for new_pair, new_count in pairs.merge(pair, chr(255 + len(merges))).items():
                heappush(heap, (-new_count, new_pair))
        elif pairs.counts[pair]:
            # A stale entry: the count has fallen since. It never rises, because a pair is complete
            # when it is born, so the entry came too early, never too late: put it where it belongs.
            heappush(heap, (-pairs.counts[pair], pair))
    return merges


class _PairIndex:
    """The words while merges are learned, how often each pair occurs in them, and where.

    A text has far fewer different words than words, and a merge touches few of those: with counts
    for the first and an index for the second, a merge costs what it changes, not what there is.
    """

    def __init__(self, words: dict[str, int]):
        self.words, self.word_counts = list(words), list(words.values())
        self.places = defaultdict(list)  # pair -> numbers of the words, once for every occurrence
        for place, word in enumerate(self.words):
            for pair in map(add, word, word[1:]):
                self.places[pair].append(place)
        self.counts = self._total(self.places)

    def _total(self, places: dict[str, list[int]]) -> dict[str, int]:
        count = self.word_counts.__getitem__
        return {pair: sum(map(count, where)) for pair, where in places.items()}

    def merge(self, pair: str, merged: str) -> dict[str, int]:
        """Write `merged` for `pair` in all words; return the pairs this makes, with their counts.

        Only the neighbours of a merge change: l a b r loses la, ab and br, and gains lM and Mr.
        """
        (first, second), counts, born = pair, self.counts, defaultdict(list)
        for place in set(self.places.pop(pair)):
            count = self.word_counts[place]
            word = self.words[place] = self.words[place].replace(pair, merged)
            at = word.find(merged)  # -1 if an earlier merge took the pair: places are not removed
            while at >= 0:
                if at:
                    left = word[at - 1]  # M itself where two merges touch: it was "a b" before
                    counts[(second if left == merged else left) + first] -= count
                    born[left + merged].append(place)
                right = word[at + 1 : at + 2]
                if right and right != merged:  # if it is, its own turn counts the pair
                    counts[second + right] -= count
                    born[merged + right].append(place)
                at = word.find(merged, at + 1)
        self.places |= born
        self.counts |= (born_counts := self._total(born))
        return born_counts


def apply_merges(word: str, table: dict[str, str]) -> str:
    """Merge the tokens of `word` until no pair of it is in `table`, which says what a pair makes.

    The lowest merged id goes first, of equals the leftmost: training replayed on a word that it may
    never have seen, and neither the longest match nor one pass from left to right. Tokens form a
    linked list and possible merges wait in a heap, so that n tokens take n log n steps.
    """
    tokens = [*word, ""]  # "" is the end, or a token that was merged into its neighbour
    before, after = list(range(-1, len(word))), list(range(1, len(word) + 2))
    heap = [(table[pair], at) for at, pair in enumerate(map(add, word, word[1:])) if pair in table]
    heapify(heap)
    while heap:
        merged, at = heappop(heap)
        right = after[at]
        if not tokens[at] or table.get(tokens[at] + tokens[right]) != merged:
            continue  # stale: a neighbour has changed since
        tokens[at], tokens[right] = merged, ""
        after[at] = right = after[right]
        before[right] = at
        for left, other in ((before[at], at), (at, right)):
            if left >= 0 and (made := table.get(tokens[left] + tokens[other])):
                heappush(heap, (made, left))
    return "".join(tokens)


# ---- The tokenizer ------------------------------------------------------------------------------
# GPT-2's order of the 256 bytes, which decides their ids: first those that Latin-1 can print. In
# files a byte is written as one visible character, Ġ for the space.
_PRINTED = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
BYTE_ORDER = [*_PRINTED, *(byte for byte in range(256) if byte not in _PRINTED)]
BYTE_TO_CHAR = dict(zip(BYTE_ORDER, map(chr, [*_PRINTED, *range(256, 324)]), strict=True))
CHAR_TO_BYTE = {character: byte for byte, character in BYTE_TO_CHAR.items()}

CACHE_WORDS, CACHE_LENGTH = 2**17, 64  # how many words to remember, and how long ones at most


class _WordCache(dict):
    """The ids of the words met so far; when full it starts again, so that it stays bounded."""

    def __init__(self, encode_word: Callable[[str], tuple[int, ...]]):
        self.encode_word = encode_word

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self.encode_word(word)
        if len(self) >= CACHE_WORDS:
            self.clear()
        if len(word) <= CACHE_LENGTH:
            self[word] = ids
        return ids


class BPETokenizer:
    """Byte pair encoding: the 256 bytes, and the pairs of tokens that training found worth an id.

    `ranks` maps the bytes of a token to its id. Of two possible merges the one that makes the lower
    id goes first. Hugging Face orders the pairs instead; that is the same, because the merges below
    a token can spell it in one way only, which is found and checked here.

    Special tokens mark the end of a document or of a turn. They are no text: only `allowed_special`
    turns their spelling into their id, or else any text could end the document.

    >>> tokenizer = BPETokenizer.train("low low low lower lowest", 259)
    >>> tokenizer.merges
    [(b'l', b'o'), (b'lo', b'w'), (b' ', b'low')]
    """

    def __init__(
        self,
        ranks: dict[bytes, int],
        pattern: str = GPT2_PATTERN,
        special_tokens: dict[str, int] | None = None,
        *,
        _table: dict[str, str] | None = None,
    ):
        self.ranks, self.pattern = dict(ranks), pattern
        self.special_tokens = dict(special_tokens or {})
        _check_ids(self.ranks, self.special_tokens)
        self._find_words = compile_pattern(pattern).findall
        self._tokens = {i: token for token, i in self.ranks.items()}
        self._tokens |= {i: _utf8(name) for name, i in self.special_tokens.items()}
        self._bytes = [chr(self.ranks[bytes([byte])]) for byte in range(256)]
        self._ids = _WordCache(self._encode_word)
        self._table = _table or {}  # pair -> the token it makes; training hands it over
        for token, i in [] if _table else sorted(self.ranks.items(), key=itemgetter(1)):
            if len(token) != 1:
                pair = self._merge(token)  # with the merges found so far, those of lower ids
                _require(len(pair) == 2, f"token {token!r}, id {i}, is no pair of lower tokens")
                self._table[pair] = chr(i)

    @classmethod
    def train(
        cls,
        text: str | Iterable[str],
        vocab_size: int,
        pattern: str = GPT2_PATTERN,
        special_tokens: Collection[str] = (),
    ) -> "BPETokenizer":
        """Learn a vocabulary: ids for 256 bytes, then for merges, then for the special tokens.

        An iterable is read once, a string at a time, and no word goes on in the next string.
        Special tokens are cut out of the text first, so that no merge learns their pieces. If the
        text has too few pairs for `vocab_size` ids, this warns and ends early.
        """
        special_tokens = _check_names(special_tokens)
        n_merges = _count_merges(vocab_size, special_tokens)
        find = compile_pattern(pattern).finditer
        parts = (split_on_special(string, special_tokens)[::2] for string in _strings(text))
        matches = chain.from_iterable(map(find, chain.from_iterable(parts)))
        counts = Counter(map(itemgetter(0), matches))  # one word at a time: only counts are kept
        tokens, table = _learn_tokens(counts, n_merges)
        if len(tokens) < 256 + n_merges:
            warnings.warn(
                f"the text has pairs for {len(tokens) - 256} merges only, not {n_merges}: the "
                f"vocabulary ends at {len(tokens) + len(special_tokens)} ids, not {vocab_size}",
                stacklevel=2,
            )
        special_ids = {name: len(tokens) + i for i, name in enumerate(special_tokens)}
        ranks = {token: rank for rank, token in enumerate(tokens)}
        return cls(ranks, pattern, special_ids, _table=table)

    @property
    def vocab_size(self) -> int:
        return max(self._tokens) + 1  # the rows an embedding needs, even if some ids are not in use

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        return [(self._tokens[ord(a)], self._tokens[ord(b)]) for a, b in self._table]

    def encode(self, text: str, allowed_special: Collection[str] = ()) -> list[int]:
        """Return the ids of `text`; special tokens in `allowed_special`, or "all", are one each.

        Raises ValueError if any other special token is spelled in the text.
        """
        allowed = self._allow(text, allowed_special)
        ids: list[int] = []
        for place, part in enumerate(split_on_special(text, allowed)):
            ids += [self.special_tokens[part]] if place % 2 else self.encode_ordinary(part)
        return ids

    def encode_ordinary(self, text: str) -> list[int]:
        """Return the ids of `text` as if there were no special tokens."""
        return list(chain.from_iterable(map(self._ids.__getitem__, self._find_words(text))))

    def _allow(self, text: str, allowed_special: Collection[str]) -> set[str]:
        if isinstance(allowed_special, str) and allowed_special != "all":
            raise TypeError(f'allowed_special must be "all" or a set: try {{{allowed_special!r}}}')
        names = set(self.special_tokens)
        allowed = names if allowed_special == "all" else set(allowed_special)
        _require(
            allowed <= names,
            f'allowed_special must be "all" or some of {sorted(names)}, not {allowed_special!r}',
        )
        for name in names - allowed:
            _require(
                name not in text,
                f"the text has the special token {name!r} in it: pass allowed_special={{{name!r}}} "
                "if it may mean that, or call encode_ordinary to read it as text",
            )
        return allowed

    def _encode_word(self, word: str) -> tuple[int, ...]:
        data = _utf8(word)
        rank = self.ranks.get(data)  # most words of a text are one token: nothing to merge
        return tuple(map(ord, self._merge(data))) if rank is None else (rank,)

    def _merge(self, data: bytes) -> str:
        """Return the tokens of one word, one character each."""
        return apply_merges("".join([self._bytes[byte] for byte in data]), self._table)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes of `ids`; in a stream, a token may end inside a character."""
        return b"".join(_look_up(ids, self._tokens))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text of `ids`; for bytes that are not UTF-8 see `ByteTokenizer`."""
        return self.decode_bytes(ids).decode("utf-8", errors)

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json`, which Hugging Face `tokenizers` opens with the same ids."""
        Path(path).write_bytes(json.dumps(_to_json(self), ensure_ascii=False, indent=1).encode())

    @classmethod
    def load(cls, path: str | Path) -> "BPETokenizer":
        """Open a `tokenizer.json`: ours, or a byte-level BPE from Hugging Face in GPT-2's style.

        That is: all 256 bytes in the vocabulary, ids in the order of the merges, no normalizer. Its
        added tokens become special tokens; its padding, truncation and templates are not read.
        Raises ValueError with the reason if the file is damaged or of another kind.
        """
        try:
            data = json.loads(Path(path).read_bytes())
            ranks, pattern, special_tokens, merges = _from_json(data)
            tokenizer = cls(ranks, pattern, special_tokens)
            lacking = set(tokenizer.merges) - set(merges)
            _require(not lacking, f"no merge makes {lacking and b''.join(min(lacking))!r}")
            # Files made from ranks may list pairs that never meet, too: harmless in this order.
            made = [ranks[left + right] for left, right in merges]
            _require(made == sorted(made), "merges are not in the order of the ids that they make")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is no byte-level BPE tokenizer: {error}") from error
        return tokenizer


def _learn_tokens(counts: dict[str, int], n_merges: int) -> tuple[list[bytes], dict[str, str]]:
    """Return the tokens of a vocabulary in the order of their ids, and the table of its merges."""
    symbols = {byte: chr(rank) for rank, byte in enumerate(BYTE_ORDER)}
    words = {"".join([symbols[byte] for byte in _utf8(word)]): n for word, n in counts.items()}
    tokens = [bytes([byte]) for byte in BYTE_ORDER]
    merges = learn_merges(words, n_merges)
    for left, right in merges:
        tokens.append(tokens[ord(left)] + tokens[ord(right)])
    return tokens, {pair: chr(256 + i) for i, pair in enumerate(merges)}


def _check_names(names: Collection[str]) -> list[str]:
    if isinstance(names, str):  # its letters would be the names
        raise TypeError(f"special_tokens must be several strings, like [{names!r}], not {names!r}")
    names = list(names)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise TypeError(f"special_tokens must be strings, not {wrong[0]!r}")
    _require("" not in names, "a special token must not be empty")
    _require(len(set(names)) == len(names), f"special_tokens has one of {names} twice")
    return names


def _count_merges(vocab_size: int, special_tokens: Collection[str]) -> int:
    """Return how many merges fill a vocabulary."""
    if type(vocab_size) is not int:
        raise TypeError(f"vocab_size must be an int, 256 or more, not {vocab_size!r}")
    n, least = len(special_tokens), 256 + len(special_tokens)
    _require(
        vocab_size >= least,
        f"vocab_size must be {least} or more, for 256 bytes and {n} special tokens: {vocab_size}",
    )
    return vocab_size - least


def _check_ids(ranks: dict[bytes, int], special_tokens: dict[str, int]) -> None:
    """Refuse ids that are no ids, two tokens with one id, bytes without an id, and holes."""
    _check_names(list(special_tokens))
    token_of = {}
    for token, i in chain(ranks.items(), special_tokens.items()):
        _require(type(i) is int and i >= 0, f"token {token!r} has id {i!r}, not 0 or more")
        other = token_of.setdefault(i, token)
        _require(other == token, f"tokens {other!r} and {token!r} have the same id {i}")
    lacking = [byte for byte in range(256) if bytes([byte]) not in ranks]
    _require(not lacking, f"byte {lacking and lacking[0]} has no id, and some texts need it")
    holes = set(range(max(ranks.values()))) - set(token_of)  # those between specials do no harm
    _require(not holes, f"id {holes and min(holes)} belongs to no token, though higher ids do")


# ---- Hugging Face's file ------------------------------------------------------------------------


def _spell(token: bytes) -> str:
    return "".join([BYTE_TO_CHAR[byte] for byte in token])


def _unspell(spelling: str) -> bytes:
    foreign = set(spelling) - set(CHAR_TO_BYTE)
    _require(not foreign, f"{foreign and min(foreign)!r} in token {spelling!r} stands for no byte")
    return bytes([CHAR_TO_BYTE[character] for character in spelling])


def _to_json(tokenizer: BPETokenizer) -> dict:
    """Return the content of a `tokenizer.json`."""
    vocab = {_spell(token): i for token, i in tokenizer.ranks.items()}
    both = vocab.keys() & tokenizer.special_tokens
    _require(not both, f"special and ordinary tokens are spelled alike in a file: {sorted(both)}")
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    special = sorted(tokenizer.special_tokens.items(), key=itemgetter(1))
    merges = [f"{_spell(left)} {_spell(right)}" for left, right in tokenizer.merges]
    return {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": n, **flags, "special": True} for n, i in special],
        "normalizer": None,
        "pre_tokenizer": _pre_tokenizer(tokenizer.pattern),
        "decoder": {"type": "ByteLevel", **BYTE_LEVEL},
        "model": {"type": "BPE", "vocab": vocab | tokenizer.special_tokens, "merges": merges},
    }


def _from_json(
    data: dict,
) -> tuple[dict[bytes, int], str, dict[str, int], list[tuple[bytes, bytes]]]:
    """Return ranks, pattern, special tokens and merges of a `tokenizer.json`."""
    _require(isinstance(data, dict) and isinstance(data.get("model"), dict), "it has no model")
    model, added = data["model"], data.get("added_tokens") or []
    kind = model.get("type", "BPE")  # the oldest files do not say
    _require(kind == "BPE", f"its model is {kind}, not BPE")
    _require(isinstance(model.get("vocab"), dict), "its model has no vocab")
    _require(isinstance(model.get("merges"), list), "its model has no merges")
    _require(data.get("normalizer") is None, "it has a normalizer, which changes the text")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        _require(not model.get(key), f"its model has {key} {model.get(key)!r}")
    for token in added:
        greedy = [key for key in ("lstrip", "rstrip", "single_word") if token.get(key)]
        _require(not greedy, f"{greedy} of its added token {token['content']!r} must be false")
    special = {token["content"]: token["id"] for token in added}
    for name, i in special.items():
        other = model["vocab"].get(name, i)
        _require(other == i, f"{name!r} has two ids, {other} and {i}")
    ranks = {_unspell(token): i for token, i in model["vocab"].items() if token not in special}
    merges = [_read_merge(merge, ranks) for merge in model["merges"]]
    return ranks, _read_pattern(data.get("pre_tokenizer")), special, merges


def _read_merge(merge: str | list[str], ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens of a merge: "a b" in older files, ["a", "b"] in newer ones."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    _require(len(parts) == 2, f"merge {merge!r} is no pair of tokens")
    left, right = map(_unspell, parts)
    for token in (left, right, left + right):
        _require(token in ranks, f"merge {merge!r} needs the token {token!r}, not in the vocab")
    return left, right


BYTE_LEVEL = {"add_prefix_space": False, "trim_offsets": True}


def _pre_tokenizer(pattern: str) -> dict:
    """Return how a file says that text is split by `pattern`; GPT-2's is built in."""
    if pattern == GPT2_PATTERN:
        return {"type": "ByteLevel", **BYTE_LEVEL, "use_regex": True}
    _refuse_repeats(pattern)
    split = {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", **BYTE_LEVEL, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [{"type": "Split", **split}, byte_level]}


def _read_pattern(pre_tokenizer: dict) -> str:
    match pre_tokenizer:
        case {"type": "ByteLevel", **flags} if flags.get("use_regex", True):
            pattern = GPT2_PATTERN
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", **split},
                {"type": "ByteLevel", "use_regex": False, **flags},
            ],
        } if not split.get("invert"):
            _refuse_repeats(pattern)
        case _:
            raise ValueError("its pre-tokenizer is neither ByteLevel nor Split before ByteLevel")
    _require(not flags.get("add_prefix_space", True), "its add_prefix_space is not false")
    return pattern


def _refuse_repeats(pattern: str) -> None:
    # Possessive to tiktoken and to us, "repeat" to Hugging Face: 1234567 is three words, or one.
    found = re.search(r"\{[\d,]+\}\+", pattern)
    _require(not found, f"regex engines differ on {found and found[0]!r}: leave out the +")
