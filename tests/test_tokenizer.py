"""Our tokenizers against hand-made examples, a naive BPE, Hugging Face `tokenizers`, `tiktoken`."""

import doctest
import json
import random
import time
import unicodedata
import warnings
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from lib import tokenizer as module
from lib.data import zipf_text
from lib.tokenizer import (
    BYTE_ORDER,
    GPT2_PATTERN,
    GPT4_PATTERN,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    WordTokenizer,
    apply_merges,
    compile_pattern,
    learn_merges,
    split_on_special,
)

PATTERNS = {"gpt2": GPT2_PATTERN, "gpt4": GPT4_PATTERN}
AWKWARD = (
    "It's IT'S we'll WE'LL don'ſt 12345 1 22 333 4444 ²½Ⅷ x=3.14;  a  b   c\t\td\r\n\r\n \n e\n\n\n"
    "ende \u3000\n\u3000 \x1c\x85\xa0 naïve cafe\u0301 日本語のテキスト שלום مرحبا नमस्ते "
    "👩‍👩‍👧 🇩🇪 \ufeff!!!...???\n--\n"
    "aaaaaaaaa bababab abababa    \n"
)
TEXTS = {
    "zipf": zipf_text(60_000, seed=5),
    "awkward": AWKWARD * 3 + AWKWARD[::-1],
    "letters": " ".join("".join(random.Random(n).choices("abc", k=3 + n % 9)) for n in range(400))
    + "aaaa" * 30,
    "ties": "dc ba fe zy xw ab cd ef " * 2,
}
PRINTABLE = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cs", "Cn")]
FUZZ_ALPHABETS = [PRINTABLE, list(AWKWARD), list("ab '’.\n\r\t 1s"), PRINTABLE[:500]]


def fuzz_strings(n, seed):
    rng = random.Random(seed)
    for _ in range(n):
        yield "".join(rng.choices(rng.choice(FUZZ_ALPHABETS), k=rng.randrange(40)))


@cache
def ours(text="zipf", vocab_size=700, pattern="gpt2", special=()):
    return BPETokenizer.train(TEXTS[text], vocab_size, PATTERNS[pattern], special)


def hugging_face_untrained(pattern):
    theirs = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
    both = pre_tokenizers.Sequence([split, byte_level])
    theirs.pre_tokenizer = byte_level if pattern == "gpt2" else both
    theirs.decoder = decoders.ByteLevel()
    return theirs


def hugging_face_trained(texts, vocab_size, pattern, special=()):
    theirs = hugging_face_untrained(pattern)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(special),
        show_progress=False,
    )
    theirs.train_from_iterator(texts, trainer)
    return theirs


def as_bytes(spelling):
    decode = {chr(b): b for b in [*range(33, 127), *range(161, 173), *range(174, 256)]}
    others = (b for b in range(256) if b not in decode.values())
    decode |= {chr(256 + n): b for n, b in enumerate(list(others))}
    return bytes(decode[c] for c in spelling)


def their_merges(theirs):
    merges = json.loads(theirs.to_str())["model"]["merges"]
    return [tuple(map(as_bytes, m.split(" ") if isinstance(m, str) else m)) for m in merges]


def as_tiktoken(tokenizer, pattern=None):
    return tiktoken.Encoding(
        "ours",
        pat_str=pattern or tokenizer.pattern,
        mergeable_ranks=tokenizer.ranks,
        special_tokens=tokenizer.special_tokens,
    )


def naive_train(text, n_merges, pattern):
    """Count all pairs, merge the best one everywhere, count again."""
    rank = {byte: i for i, byte in enumerate(BYTE_ORDER)}
    token = {i: bytes([byte]) for byte, i in rank.items()}
    words = [[rank[b] for b in word.encode()] for word in regex.findall(pattern, text)]
    merges = []
    for _ in range(n_merges):
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        new = 256 + len(merges)
        token[new] = token[best[0]] + token[best[1]]
        merges.append((token[best[0]], token[best[1]]))
        words = [naive_merge(word, best, new) for word in words]
    return merges


def naive_merge(word, pair, new):
    merged, at = [], 0
    while at < len(word):
        hit = tuple(word[at : at + 2]) == pair
        merged.append(new if hit else word[at])
        at += 2 if hit else 1
    return merged


def naive_encode(text, merges, ranks, pattern):
    ids = []
    for word in regex.findall(pattern, text):
        parts = [bytes([byte]) for byte in word.encode()]
        for pair in merges:
            parts = naive_merge(parts, pair, pair[0] + pair[1])
        ids += [ranks[part] for part in parts]
    return ids


def test_the_docstrings_tell_the_truth():
    assert doctest.testmod(module).attempted >= 7
    assert doctest.testmod(module).failed == 0


# ---- Words, characters, bytes -------------------------------------------------------------------


def test_words_are_split_at_white_space_and_punctuation_and_the_commonest_come_first():
    tokenizer = WordTokenizer.train("the cat, the dog; the 2 cats\n(naïve)")
    assert list(tokenizer.tokens.values())[:2] == ["<UNK>", "the"]
    assert tokenizer.decode(tokenizer.encode("the cat, (the dog)")) == "the cat , ( the dog )"


def test_unknown_words_become_unk_and_are_lost():
    tokenizer = WordTokenizer.train("the cat")
    assert tokenizer.decode(tokenizer.encode("the caat <UNK> cat")) == (
        "the <UNK> <UNK> <UNK> <UNK> cat"
    )


def test_a_word_vocabulary_can_be_cut_to_the_commonest_words():
    tokenizer = WordTokenizer.train(["b a b", "c b a"], vocab_size=3)
    assert tokenizer.vocab_size == 3 and tokenizer.encode("a b c") == [2, 1, 0]


def test_characters_come_back_and_unknown_ones_are_named():
    tokenizer = CharTokenizer.train(["hé", "llo"])
    assert tokenizer.vocab_size == 4
    assert tokenizer.decode(tokenizer.encode("hélloh")) == "hélloh"
    with pytest.raises(ValueError, match="'x' is none of the 4 characters seen in training; train"):
        tokenizer.encode("hxl")


@given(st.text())
def test_bytes_are_utf8(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.decode(tokenizer.encode(text), errors="strict") == text
    assert tokenizer.vocab_size == 256


# ---- Training -----------------------------------------------------------------------------------


def test_the_wikipedia_example():
    with warnings.catch_warnings(action="error"):
        tokenizer = BPETokenizer.train("aaabdaaabac", 259)
    assert tokenizer.merges == [(b"a", b"a"), (b"a", b"b"), (b"aa", b"ab")]
    assert [tokenizer.decode_bytes([i]) for i in tokenizer.encode("aaabdaaabac")] == (
        [b"aaab", b"d", b"aaab", b"a", b"c"]
    )


def test_low_lower_newest_widest():
    """Sennrich's words with their counts, without the end-of-word sign; ties by byte order."""
    words = {"low": 5, "lower": 2, "newest": 6, "widest": 3}
    merges, spelled = learn_merges(words, 8), {}
    for n, (left, right) in enumerate(merges):
        spelled[chr(256 + n)] = spelled.get(left, left) + spelled.get(right, right)
    assert list(spelled.values()) == ["es", "est", "lo", "low", "ew", "new", "newest", "dest"]
    table = {pair: chr(256 + n) for n, pair in enumerate(merges)}
    assert [spelled.get(t, t) for t in apply_merges("lowest", table)] == ["low", "est"]


@pytest.mark.filterwarnings("ignore:the text has pairs")
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("text", ["awkward", "letters", "ties"])
def test_merges_are_those_of_the_naive_loop(text, pattern):
    merges = ours(text, 330, pattern).merges
    assert merges == naive_train(TEXTS[text], 74, PATTERNS[pattern])


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="abc ", max_size=60), st.integers(256, 290))
def test_merges_of_any_text_are_those_of_the_naive_loop(text, vocab_size):
    with warnings.catch_warnings(action="ignore"):
        merges = BPETokenizer.train(text, vocab_size).merges
    assert merges == naive_train(text, vocab_size - 256, GPT2_PATTERN)


@pytest.mark.parametrize("vocab_size", [256, 300, 512, 2000])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.filterwarnings("ignore:the text has pairs")
def test_merges_and_ids_are_those_of_hugging_face(text, pattern, vocab_size):
    theirs = hugging_face_trained([TEXTS[text]], vocab_size, pattern)
    tokenizer = ours(text, vocab_size, pattern)
    assert tokenizer.merges == their_merges(theirs)
    assert tokenizer.vocab_size == theirs.get_vocab_size()
    assert tokenizer.ranks == {as_bytes(t): i for t, i in theirs.get_vocab().items()}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_iterable_is_read_once_and_gives_what_hugging_face_learns_from_it(pattern):
    lines = TEXTS["zipf"].splitlines(keepends=True)
    reads = []
    stream = (reads.append(line) or line for line in lines)
    tokenizer = BPETokenizer.train(stream, 500, PATTERNS[pattern])
    assert reads == lines
    assert tokenizer.merges == their_merges(hugging_face_trained(lines, 500, pattern))


def test_no_word_goes_on_in_the_next_string_of_an_iterable():
    with pytest.warns(UserWarning):
        assert BPETokenizer.train(["ab", "cd"], 300).merges == [(b"a", b"b"), (b"c", b"d")]


def test_training_keeps_the_counts_of_a_stream_and_not_the_stream():
    import tracemalloc

    tracemalloc.start()
    BPETokenizer.train(("a tall tale " * 100 + str(n % 7) for n in range(3000)), 260)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # of a stream of 3,600,000


def test_too_little_text_ends_early_and_says_how_many_merges_there_are():
    message = "pairs for 2 merges only, not 44: the vocabulary ends at 259 ids, not 301"
    with pytest.warns(UserWarning, match=message) as caught:
        tokenizer = BPETokenizer.train("abc", 301, special_tokens=["<|end|>"])
    assert caught[0].filename == __file__
    assert tokenizer.vocab_size == 259 and tokenizer.special_tokens == {"<|end|>": 258}


def test_merges_do_not_learn_pieces_of_special_tokens():
    text = "aa<|x|>aa<|x|>"
    with pytest.warns(UserWarning):
        tokenizer = BPETokenizer.train(text, 300, special_tokens=["<|x|>"])
    assert tokenizer.merges == [(b"a", b"a")]
    assert tokenizer.encode(text, allowed_special="all") == [256, 257, 256, 257]


# ---- Encoding and decoding ----------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("text", ["zipf", "awkward"])
@pytest.mark.filterwarnings("ignore:the text has pairs")
def test_ids_are_those_of_tiktoken_and_hugging_face_on_4000_strings(text, pattern, tmp_path):
    tokenizer = ours(text, 700, pattern)
    tokenizer.save(tmp_path / "tokenizer.json")
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tik = as_tiktoken(tokenizer)
    for string in [*fuzz_strings(4000, seed=pattern), AWKWARD, TEXTS["zipf"], ""]:
        ids = tokenizer.encode(string)
        assert ids == theirs.encode(string).ids == tik.encode(string), string
        assert tokenizer.decode(ids, errors="strict") == string


# As tiktoken 0.14 has it, so that a slip in ours is not copied into what it is compared with.
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


def test_the_gpt4_pattern_splits_as_the_one_that_tiktoken_ships():
    tokenizer = ours("awkward", 400, "gpt4")
    tik = as_tiktoken(tokenizer, CL100K)
    for string in [*fuzz_strings(2000, seed=9), AWKWARD, "\n\u3000", "a \n\n b 12345 IT'S"]:
        assert tokenizer.encode(string) == tik.encode(string)
    words = compile_pattern(GPT4_PATTERN).findall("IT'S 12345\n\u3000x \n\n y\n")
    assert compile_pattern(GPT4_PATTERN).findall("x\n\u3000") == ["x", "\n\u3000"]
    assert words == ["IT", "'S", " ", "123", "45", "\n", "\u3000x", " \n\n", " y", "\n"]


@settings(max_examples=300, deadline=None)
@given(st.text(), st.sampled_from(list(PATTERNS)))
def test_what_was_encoded_is_decoded(text, pattern):
    tokenizer = ours("zipf", 700, pattern)
    assert tokenizer.decode(tokenizer.encode(text), errors="strict") == text
    assert tokenizer.encode(text) == tokenizer.encode(text)  # the second time from the cache


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="abc ", max_size=30) | st.text(alphabet="ab", min_size=70, max_size=90))
def test_encoding_replays_the_merges_in_their_order(text):
    tokenizer = ours("letters", 330)
    expected = naive_encode(text, tokenizer.merges, tokenizer.ranks, GPT2_PATTERN)
    assert tokenizer.encode(text) == expected


def test_the_order_of_the_merges_decides_and_not_the_longest_match():
    ranks = {bytes([byte]): i for i, byte in enumerate(BYTE_ORDER)}
    ranks |= {b"bc": 256, b"ab": 257, b"cd": 258, b"abd": 259, b"aa": 260, b"aaa": 261}
    tokenizer = BPETokenizer(ranks)
    assert tokenizer.merges[-1] == (b"aa", b"a") and tokenizer.merges[3] == (b"ab", b"d")
    pieces = [tokenizer.decode_bytes([i]) for i in tokenizer.encode("abcd abd aaaaa")]
    assert pieces == [b"a", b"bc", b"d", b" ", b"abd", b" ", b"aa", b"aaa"]


def test_a_long_word_is_encoded_as_hugging_face_does():
    tokenizer = ours("letters", 330)
    word = "".join(random.Random(0).choices("abc", k=20_000))
    assert tokenizer.encode(word) == as_tiktoken(tokenizer).encode(word)
    assert tokenizer.encode("a" * 1001) == as_tiktoken(tokenizer).encode("a" * 1001)


@pytest.mark.parametrize("unit", ["a", "ab", "abcacb"])
def test_twice_as_many_letters_without_a_space_take_about_twice_the_time(unit):
    tokenizer = ours("letters", 330)

    def seconds(n):
        start = time.process_time()
        tokenizer.encode(unit * (n // len(unit)))
        return time.process_time() - start

    assert min(seconds(40_000) for _ in range(3)) < 3.5 * min(seconds(20_000) for _ in range(3))


def test_the_cache_is_bounded_and_never_changes_the_result(monkeypatch):
    tokenizer = BPETokenizer.train(TEXTS["zipf"], 400)
    expected = tokenizer.encode(TEXTS["zipf"])
    monkeypatch.setattr(module, "CACHE_WORDS", 50)
    tokenizer._ids.clear()
    assert tokenizer.encode(TEXTS["zipf"]) == expected
    assert 0 < len(tokenizer._ids) <= 50
    tokenizer.encode("x" * 10_000)
    assert max(map(len, tokenizer._ids)) <= module.CACHE_LENGTH


def test_two_tokenizers_share_no_cache():
    assert ours("zipf", 700).encode("the other") != ours("letters", 330).encode("the other")


def test_text_that_the_pattern_does_not_match_is_kept_as_hugging_face_keeps_it(tmp_path):
    tokenizer = BPETokenizer.train("..:: ab ab ..::", 262, pattern=r"\p{L}+")
    assert compile_pattern(r"\p{L}+").findall(".. ab") == [".. ", "ab"]
    tokenizer.save(tmp_path / "t.json")
    theirs = Tokenizer.from_file(str(tmp_path / "t.json"))
    for string in ("ab..::\nab 12", "....", ""):
        assert tokenizer.encode(string) == theirs.encode(string).ids
        assert tokenizer.decode(tokenizer.encode(string)) == string


def test_a_character_cut_in_two_is_replaced_or_refused_or_kept_as_bytes():
    tokenizer = BPETokenizer.train("abc abc", 257)
    first = tokenizer.encode("é")[:1]
    assert tokenizer.decode(first) == "\ufffd"
    assert tokenizer.decode_bytes(first) == b"\xc3"
    for strict in (tokenizer, ByteTokenizer()):
        ids = strict.encode("é")
        assert strict.decode(ids) == "é"
        with pytest.raises(UnicodeDecodeError):
            strict.decode(ids[:1], errors="strict")


def test_numpy_integers_are_ids():
    import numpy as np

    tokenizer = ours()
    assert tokenizer.decode(np.array(tokenizer.encode("these"))) == "these"


# ---- Special tokens -----------------------------------------------------------------------------

SPECIAL = ("<|end|>", "<|end|>ing", "<s>", "ab")


def test_special_tokens_get_the_last_ids():
    tokenizer = ours("zipf", 700, "gpt2", SPECIAL)
    assert tokenizer.special_tokens == {name: 696 + i for i, name in enumerate(SPECIAL)}
    assert tokenizer.vocab_size == 700 and len(tokenizer.merges) == 440


def test_special_tokens_in_ordinary_text_are_refused_unless_allowed():
    tokenizer = ours("zipf", 700, "gpt2", SPECIAL)
    with pytest.raises(
        ValueError, match=r"special token '<s>' in it: pass allowed_special={'<s>'}"
    ):
        tokenizer.encode("x<s>", allowed_special={"<|end|>"})
    with pytest.raises(ValueError, match="special token"):
        as_tiktoken(tokenizer).encode("x<s>", allowed_special={"<|end|>"})
    assert tokenizer.encode("<s>", allowed_special=["<s>"]) == [698]
    assert tokenizer.encode("<s>x", allowed_special="all")[0] == 698
    assert tokenizer.decode(tokenizer.encode_ordinary("x<s>")) == "x<s>"
    assert 698 not in tokenizer.encode_ordinary("x<s>")


def test_one_name_is_not_a_set_of_names():
    with pytest.raises(TypeError, match=r"must be \"all\" or a set: try \{'<s>'\}"):
        ours("zipf", 700, "gpt2", SPECIAL).encode("x", allowed_special="<s>")


@pytest.mark.parametrize("allowed", [{"<|nd|>"}, ["<s>", "<t>"]])
def test_allowed_special_must_name_special_tokens(allowed):
    with pytest.raises(ValueError, match=r'must be "all" or some of .*<s>.*, not'):
        ours("zipf", 700, "gpt2", SPECIAL).encode("x", allowed_special=allowed)


def test_of_two_special_tokens_the_longer_wins():
    tokenizer = ours("zipf", 700, "gpt2", SPECIAL)
    text = "<|end|>ing<|end|><|end|>in"
    ids = tokenizer.encode(text, allowed_special="all")
    assert ids[:3] == [697, 696, 696] and tokenizer.decode(ids) == text
    assert split_on_special("a.b.", [".", "b."]) == ["a", ".", "", "b.", ""]


def test_special_tokens_give_the_ids_of_hugging_face_and_tiktoken(tmp_path):
    tokenizer = ours("zipf", 700, "gpt4", ("<|end|>", "<s>", "[MASK]"))
    tokenizer.save(tmp_path / "t.json")
    theirs, tik = Tokenizer.from_file(str(tmp_path / "t.json")), as_tiktoken(tokenizer)
    rng = random.Random(1)
    for _ in range(500):
        parts = rng.choices(["<|end|>", "<s>", "[MASK]", " ", "a", "the", "\n", "<|en", "s>"], k=12)
        ids = tokenizer.encode("".join(parts), allowed_special="all")
        assert ids == theirs.encode("".join(parts)).ids
        assert ids == tik.encode("".join(parts), allowed_special="all")
        assert tokenizer.decode(ids) == "".join(parts)


# ---- Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
def test_our_file_opens_here_again(pattern, tmp_path):
    tokenizer = ours("zipf", 700, pattern, SPECIAL[:3])
    tokenizer.save(tmp_path / "t.json")
    again = BPETokenizer.load(tmp_path / "t.json")
    for name in ("ranks", "merges", "special_tokens", "pattern", "vocab_size"):
        assert getattr(again, name) == getattr(tokenizer, name)
    again.save(tmp_path / "again.json")
    assert (tmp_path / "t.json").read_bytes() == (tmp_path / "again.json").read_bytes()


@pytest.mark.parametrize("special", [(), ("<|endoftext|>", "<pad>")])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_file_from_hugging_face_opens_here(pattern, special, tmp_path):
    theirs = hugging_face_trained([TEXTS["zipf"]], 600, pattern, special)  # special ids come first
    theirs.save(str(tmp_path / "t.json"))
    tokenizer = BPETokenizer.load(tmp_path / "t.json")
    assert tokenizer.pattern == PATTERNS[pattern]
    assert tokenizer.merges == their_merges(theirs)
    assert tokenizer.special_tokens == {name: i for i, name in enumerate(special)}
    tik = as_tiktoken(tokenizer)
    for string in [*fuzz_strings(1500, seed=3), *special]:
        ids = tokenizer.encode(string, allowed_special="all")
        assert ids == theirs.encode(string).ids == tik.encode(string, allowed_special="all")


def test_the_oldest_form_of_the_file_opens_here(tmp_path):
    """GPT-2's own file: merges as "a b", no model type, no use_regex, empty affixes, a late id."""
    tokenizer = ours("zipf", 700, "gpt2", ("<|endoftext|>",))
    data = saved(tokenizer, tmp_path)
    del data["model"]["type"], data["pre_tokenizer"]["use_regex"]
    data["model"] |= {"continuing_subword_prefix": "", "end_of_word_suffix": "", "dropout": None}
    assert load(data, tmp_path).encode("the other") == tokenizer.encode("the other")
    data["model"]["merges"] = [merge.split(" ") for merge in data["model"]["merges"]]
    assert load(data, tmp_path).merges == tokenizer.merges


def test_special_ids_may_leave_a_gap_as_in_cl100k(tmp_path):
    tokenizer = BPETokenizer(ours().ranks, special_tokens={"<a>": 710, "<b>": 705})
    assert tokenizer.vocab_size == 711
    data = saved(tokenizer, tmp_path)
    assert load(data, tmp_path).special_tokens == {"<a>": 710, "<b>": 705}
    assert Tokenizer.from_file(str(tmp_path / "t.json")).encode("<a><b>").ids == [710, 705]
    with pytest.raises(ValueError, match="id 707 is outside the vocabulary"):
        tokenizer.decode([707])


def saved(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "t.json")
    return json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))


def load(data, tmp_path):
    (tmp_path / "damaged.json").write_text(json.dumps(data))
    return BPETokenizer.load(tmp_path / "damaged.json")


def put(*path_and_value):
    *path, last, value = path_and_value

    def damage(data):
        for key in path:
            data = data[key]
        data[last] = value

    return damage


def drop(*path):
    def damage(data):
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return damage


SPLIT = {"type": "Split", "pattern": {"Regex": "x{1,3}+"}, "behavior": "Isolated", "invert": False}
LATE = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
DAMAGES = {
    "no model": drop("model"),
    "model is WordPiece, not BPE": put("model", "type", "WordPiece"),
    "model is Unigram, not BPE": put("model", "type", "Unigram"),
    "no vocab": drop("model", "vocab"),
    "no merges": drop("model", "merges"),
    "no merge makes b": put("model", "merges", []),
    "the same id 300": put("model", "vocab", "twin", 300),
    "id 900 belongs|id 257 belongs|id 700 belongs": put("model", "vocab", "later", 999),
    "has id 1.5, not 0 or more": put("model", "vocab", "half", 1.5),
    "has id -1, not 0 or more": put("model", "vocab", "half", -1),
    "byte 0 has no id": drop("model", "vocab", "Ā"),
    "'▁' in token '▁the' stands for no byte": put("model", "vocab", "▁the", 701),
    "merge 'a b c' is no pair": put("model", "merges", 0, "a b c"),
    "which the vocab lacks|not in the vocab": put("model", "merges", 0, "q qqqqq"),
    "it has a normalizer": put("normalizer", {"type": "NFC"}),
    "has dropout 0.1": put("model", "dropout", 0.1),
    "has end_of_word_suffix '</w>'": put("model", "end_of_word_suffix", "</w>"),
    "has continuing_subword_prefix '##'": put("model", "continuing_subword_prefix", "##"),
    "neither ByteLevel nor Split": put("pre_tokenizer", {"type": "Metaspace"}),
    "neither ByteLevel nor Split before": put("pre_tokenizer", None),
    "add_prefix_space is not false": put("pre_tokenizer", "add_prefix_space", True),
    "regex engines differ": put(
        "pre_tokenizer", {"type": "Sequence", "pretokenizers": [SPLIT, LATE]}
    ),
    r"\['lstrip'\] of its added token '<s>'": put("added_tokens", 0, "lstrip", True),
    "'<s>' has two ids, 699 and 5": put("added_tokens", 0, "id", 5),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_damaged_or_foreign_file_is_refused_with_the_reason(reason, tmp_path):
    data = saved(ours("zipf", 700, "gpt2", ("<s>",)), tmp_path)
    DAMAGES[reason](data)
    with pytest.raises(ValueError, match=rf"damaged\.json is no byte-level BPE .*(?:{reason})"):
        load(data, tmp_path)


def test_merges_in_the_wrong_order_are_refused(tmp_path):
    data = saved(ours(), tmp_path)
    data["model"]["merges"].reverse()
    with pytest.raises(ValueError, match="merges are not in the order of the ids that they make"):
        load(data, tmp_path)


def test_a_lost_merge_is_refused(tmp_path):
    data = saved(ours(), tmp_path)
    data["model"]["merges"].pop()
    with pytest.raises(ValueError, match="no merge makes b"):
        load(data, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b'{"model": 1}', b"[" * 9**6]
)
def test_what_is_no_tokenizer_file_is_refused(content, tmp_path):
    (tmp_path / "t.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.json is no byte-level BPE tokenizer: "):
        BPETokenizer.load(tmp_path / "t.json")


def test_a_file_that_cannot_be_written_is_not_begun(tmp_path):
    ranks = ours().ranks
    for special in ({"a": 700}, {"Ġ": 700}):  # spelled like the byte "a", like the space
        with pytest.raises(ValueError, match="special and ordinary tokens are spelled alike"):
            BPETokenizer(ranks, special_tokens=special).save(tmp_path / "t.json")
    with pytest.raises(ValueError, match="regex engines differ"):
        BPETokenizer(ranks, r"\d{1,3}+|\D+").save(tmp_path / "t.json")
    assert not (tmp_path / "t.json").exists()


# ---- Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocab_size", "special", "error", "message"),
    [
        (255, (), ValueError, "must be 256 or more, for 256 bytes and 0 special tokens: 255"),
        (257, ("<a>", "<b>"), ValueError, "must be 258 or more, .* and 2 special tokens: 257"),
        (-1, (), ValueError, "must be 256 or more"),
        (300.0, (), TypeError, "vocab_size must be an int, 256 or more, not 300.0"),
        (float("inf"), (), TypeError, "vocab_size must be an int, 256 or more, not inf"),
        (300, "<a>", TypeError, r"several strings, like \['<a>'\], not '<a>'"),
        (300, ("<a>", "<a>"), ValueError, "special_tokens has one of .* twice"),
        (300, ("",), ValueError, "a special token must not be empty"),
    ],
)
def test_impossible_vocabularies_are_refused(vocab_size, special, error, message):
    with pytest.raises(error, match=message):
        BPETokenizer.train("some text", vocab_size, special_tokens=special)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"abcd": 256}, "token b'abcd', id 256, is no pair of lower tokens"),
        ({b"": 256}, "token b'', id 256, is no pair of lower tokens"),
        ({b"ab": 257}, "id 256 belongs to no token, though higher ids do"),
        ({b"ab": 0}, "tokens b'!' and b'ab' have the same id 0"),
        ({b"ab": True}, "token b'ab' has id True, not 0 or more"),
    ],
)
def test_impossible_ranks_are_refused(change, message):
    ranks = {bytes([byte]): i for i, byte in enumerate(BYTE_ORDER)}
    with pytest.raises(ValueError, match=message):
        BPETokenizer(ranks | change)
    with pytest.raises(ValueError, match="byte 0 has no id, and some texts need it"):
        BPETokenizer({b"a": 0})


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(\w+)|\W+", "has a capturing group"),
        (r"\w*", "matches the empty string"),
        (r"(?:", "is no regular expression"),
    ],
)
def test_patterns_that_cannot_split_are_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        BPETokenizer.train("some text", 256, pattern=pattern)


@pytest.mark.parametrize("make", [ours, ByteTokenizer])
def test_lone_surrogates_are_refused_with_a_way_to_repair_them(make):
    text = "a pair, \ud83d, cut"
    with pytest.raises(ValueError, match=r"'\\ud83d' in .* is half of a surrogate pair") as caught:
        make().encode(text)
    assert "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')" in str(caught.value)
    fixed = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert make().decode(make().encode(fixed)) == fixed
    with pytest.raises(ValueError, match="surrogate"):
        BPETokenizer.train(text, 300)


TOKENIZERS = {
    "word": lambda: WordTokenizer.train("one two three"),
    "char": lambda: CharTokenizer.train("one two three"),
    "byte": ByteTokenizer,
    "bpe": lambda: ours("zipf", 700, "gpt2", ("<s>",)),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_ids_outside_the_vocabulary_are_named(kind):
    tokenizer = TOKENIZERS[kind]()
    size = tokenizer.vocab_size
    for bad in (-1, size, 10**9):
        message = f"id {bad} is outside the vocabulary: its {size} ids go from 0 to {size - 1}"
        with pytest.raises(ValueError, match=message):
            tokenizer.decode([0, bad])
    for bad in (True, 1.0, "1", None):
        with pytest.raises(TypeError):
            tokenizer.decode([0, bad])
    with pytest.raises(TypeError, match=f"ids must be integers, not True; there are {size} ids"):
        tokenizer.decode([True])


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_every_tokenizer_has_ids_below_its_vocab_size(kind):
    tokenizer = TOKENIZERS[kind]()
    ids = tokenizer.encode("two one")
    assert ids and all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.decode(ids) == "two one"
    assert tokenizer.encode("") == [] and tokenizer.decode([]) == ""


def test_a_call_that_raises_changes_nothing():
    tokenizer = BPETokenizer.train("low lower lowest", 260, special_tokens=["<s>"])
    before = tokenizer.encode("low lower"), tokenizer.ranks.copy(), tokenizer.merges
    for bad in ("low \ud800", "low <s>"):
        with pytest.raises(ValueError):
            tokenizer.encode(bad)
    assert (tokenizer.encode("low lower"), tokenizer.ranks, tokenizer.merges) == before
