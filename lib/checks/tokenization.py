"""Chapter 1: pairs, merges, BPE training and encoding, bytes, special tokens, streams."""

import codecs
import itertools
import random
import re
import sys
from collections import Counter, defaultdict
from itertools import pairwise

from lib.checks.framework import exercise

CLASSIC = " ".join(["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3)


def random_words(rng, letters, n, longest):
    """Words of 1 to `longest` letters, drawn with replacement, so that pairs repeat."""
    return ["".join(rng.choices(letters, k=rng.randint(1, longest))) for _ in range(n)]


# 1


def some_counted_words():
    """Words of unlike counts, runs of one letter, and tokens that are longer than a letter."""
    rng = random.Random(0)
    many = Counter(tuple(word) for word in random_words(rng, "abc", 30, 5))
    return [
        ({},),
        ({("l", "o", "w"): 5},),
        ({("a", "a", "a"): 2},),
        ({("lo", "w"): 2, ("w", "lo"): 3},),
        ({("b", "a"): 2, ("a",): 7, ("a", "b", "a", "b"): 3},),
        ({tuple(word): n for word, n in Counter(CLASSIC.split()).items()},),
        (dict(many),),
    ]


@exercise(
    title="Count the pairs",
    difficulty="easy",
    minutes=5,
    cases=some_counted_words,
    hints=(
        "zip(word, word[1:]) gives each token of a word with its right neighbour; so does "
        "itertools.pairwise(word).",
        "A word that occurs 5 times adds 5 to each of its pairs.",
        "Begin with counts = Counter(). For every word and its n, and for every pair of that "
        "word: counts[pair] += n.",
    ),
)
def pair_counts(words):
    """words {tuple of tokens: how often} -> {(left, right): how often}, over all words."""
    counts = Counter()
    for word, n in words.items():
        for pair in pairwise(word):
            counts[pair] += n
    return counts


@pair_counts.right
def pairs_by_index(words):
    counts = {}
    for word in words:
        for i in range(len(word) - 1):
            pair = word[i], word[i + 1]
            counts[pair] = counts.get(pair, 0) + words[word]
    return counts


@pair_counts.right
def pairs_by_defaultdict(words):
    counts = defaultdict(int)
    for word, n in words.items():
        for pair in pairwise(word):
            counts[pair] += n
    return counts


@pair_counts.right
def pairs_written_out(words):
    return Counter(p for word, n in words.items() for _ in range(n) for p in pairwise(word))


@pair_counts.wrong(
    "Pairs were counted across word boundaries: the end of one word was paired with the start of "
    "the next. Look at each word by itself."
)
def across_boundaries(words):
    stream = [token for word, n in words.items() for _ in range(n) for token in word]
    return Counter(pairwise(stream))


@pair_counts.wrong(
    "The words were put in one row, so pairs cross their boundaries, and each word came once, "
    "whatever its count. Look at each word by itself and add its count."
)
def across_boundaries_once(words):
    stream = [token for word in words for token in word]
    return Counter(pairwise(stream))


@pair_counts.wrong(
    "Every word was counted once. A word that occurs n times brings each of its pairs n times: "
    "add the word's count, not 1."
)
def frequency_ignored(words):
    return Counter(pair for word in words for pair in pairwise(word))


@pair_counts.wrong(
    "A pair that occurs twice in one word was counted once. `aaa` holds (a, a) at two places: "
    "count places, not distinct pairs."
)
def once_per_word(words):
    counts = Counter()
    for word, n in words.items():
        for pair in set(pairwise(word)):
            counts[pair] += n
    return counts


@pair_counts.wrong(
    "Overlapping places were left out: `aaa` holds (a, a) at two places, 0 and 1. Non-overlap "
    "matters when merging, not when counting."
)
def overlaps_left_out(words):
    counts = Counter()
    for word, n in words.items():
        i = 0
        while i < len(word) - 1:
            pair = word[i], word[i + 1]
            counts[pair] += n
            i += 2 if word[i + 1 : i + 3] == pair else 1
    return counts


@pair_counts.wrong(
    "Each word overwrites what earlier words had given its pairs. Add to the count: `+=`, not `=`."
)
def overwritten(words):
    return {pair: n for word, n in words.items() for pair in pairwise(word)}


@pair_counts.wrong(
    "Single tokens were counted. A pair is two neighbours: `zip(word, word[1:])` gives them."
)
def single_tokens(words):
    counts = Counter()
    for word, n in words.items():
        for token in word:
            counts[token] += n
    return counts


@pair_counts.wrong(
    "(a, b) and (b, a) were counted as one. The order in a pair matters, so leave it as it is."
)
def order_lost(words):
    counts = Counter()
    for word, n in words.items():
        for pair in pairwise(word):
            counts[tuple(sorted(pair))] += n
    return counts


@pair_counts.wrong(
    "Each pair is turned around, the right token first. In ('l', 'o', 'w') the first pair is "
    "('l', 'o')."
)
def turned_around(words):
    counts = Counter()
    for word, n in words.items():
        for pair in zip(word[1:], word):
            counts[pair] += n
    return counts


@pair_counts.wrong(
    "Tokens that are not neighbours were paired too. ('l', 'o', 'w') has two pairs, and (l, w) is "
    "neither."
)
def all_combinations(words):
    counts = Counter()
    for word, n in words.items():
        for pair in itertools.combinations(word, 2):
            counts[pair] += n
    return counts


@pair_counts.wrong(
    "Every second pair is missing: the word was cut into twos. A token in the middle belongs to "
    "two pairs, one with each neighbour."
)
def cut_into_twos(words):
    counts = Counter()
    for word, n in words.items():
        for pair in zip(word[::2], word[1::2]):
            counts[pair] += n
    return counts


@pair_counts.wrong(
    "The keys are joined texts, and `lo` could be (l, o) or one token. Keep each key a tuple of "
    "two tokens."
)
def keys_joined(words):
    counts = Counter()
    for word, n in words.items():
        for left, right in pairwise(word):
            counts[left + right] += n
    return counts


@pair_counts.wrong(
    "The words were cut into letters again. Their tokens may be longer already: ('lo', 'w') has "
    "one pair, ('lo', 'w')."
)
def letters_again(words):
    counts = Counter()
    for word, n in words.items():
        for pair in pairwise("".join(word)):
            counts[pair] += n
    return counts


@pair_counts.wrong(
    "Each word's last pair is missing. A word of n tokens has n - 1 pairs, so the left token's "
    "index runs over range(n - 1)."
)
def last_pair_lost(words):
    counts = Counter()
    for word, n in words.items():
        for i in range(len(word) - 2):
            counts[word[i], word[i + 1]] += n
    return counts


@pair_counts.wrong("Each word's first pair is missing. The left token's index begins at 0.")
def first_pair_lost(words):
    counts = Counter()
    for word, n in words.items():
        for i in range(1, len(word) - 1):
            counts[word[i], word[i + 1]] += n
    return counts


@pair_counts.wrong(
    "The last token of each word was paired with its first: index -1 reaches around to the end. "
    "Begin where a left neighbour exists."
)
def around_the_end(words):
    counts = Counter()
    for word, n in words.items():
        for i in range(len(word)):
            counts[word[i - 1], word[i]] += n
    return counts


@pair_counts.wrong(
    "Only the last word was counted: the counts are begun anew for each word. Begin them once, "
    "before the loop."
)
def begun_anew(words):
    for word, n in words.items():
        counts = Counter()
        for pair in pairwise(word):
            counts[pair] += n
    return counts


@pair_counts.wrong(
    "Only the first word was counted: the `return` stands inside the loop. Move it behind the loop."
)
def returned_too_early(words):
    for word, n in words.items():
        counts = Counter()
        for pair in pairwise(word):
            counts[pair] += n
        return counts


@pair_counts.wrong(
    "These are shares of the whole, not counts. Leave out the division: the largest count decides."
)
def as_shares(words):
    counts = pair_counts.solve(words)
    return {pair: n / sum(counts.values()) for pair, n in counts.items()}


@pair_counts.wrong(
    "Only words that occur more than once were counted. A word of count 1 adds 1 to its pairs."
)
def rare_words_left_out(words):
    return pair_counts.solve({word: n for word, n in words.items() if n > 1})


# 2


def some_tokens():
    """Runs, neighbours that spell the pair but are other tokens, and the pair at both ends."""
    rng = random.Random(1)
    cases = [
        ([], ("a", "b")),
        (["a", "b"], ("a", "b")),
        (["b", "a", "b"], ("a", "b")),
        (["a", "a", "a"], ("a", "a")),
        (["st", "ab"], ("t", "a")),
        (["ab", "c", "a", "bc"], ("ab", "c")),
        (["l", "o", "w", "l", "o", "w"], ("o", "w")),
        (["a", "a", "b", "b", "a", "b", "a"], ("a", "b")),
        (["a"] * 7, ("a", "a")),
    ]
    for pair in [("a", "b"), ("a", "a"), ("ab", "a")]:
        cases.append((rng.choices(["a", "b", "ab"], k=12), pair))
    return cases


def joined(tokens, pair):
    """The tokens with the pair joined: what `merge` asks for, for use in what follows."""
    out = []
    for token in tokens:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out


@exercise(
    title="Merge a pair",
    difficulty="medium",
    minutes=7,
    cases=some_tokens,
    hints=(
        "Go from left to right with an index of your own: sometimes it moves 1, sometimes 2.",
        "Where tokens[i] and tokens[i + 1] are the pair, append the joined token and move 2. "
        "Else append tokens[i] and move 1.",
        "The last token has no right neighbour: tokens[i : i + 2] == list(pair) is False there "
        "and raises nothing.",
    ),
)
def merge(tokens, pair):
    """A list of tokens -> a new list, the two tokens of `pair` joined wherever they are neighbours.

    From left to right, without overlap.
    """
    out, i = [], 0
    while i < len(tokens):
        step = 2 if tokens[i : i + 2] == list(pair) else 1
        out.append("".join(tokens[i : i + step]))
        i += step
    return out


@merge.right
def merged_by_looking_back(tokens, pair):
    return joined(tokens, pair)


@merge.right
def merged_by_a_pattern(tokens, pair):
    pattern = rf"(?<!\S){re.escape(' '.join(pair))}(?!\S)"
    return re.sub(pattern, "".join(pair), " ".join(tokens)).split()


@merge.right
def merged_in_a_copy(tokens, pair):
    out, i = list(tokens), 0
    while i < len(out) - 1:
        if (out[i], out[i + 1]) == tuple(pair):
            out[i : i + 2] = [out[i] + out[i + 1]]
        i += 1
    return out


@merge.right
def merged_with_a_flag(tokens, pair):
    out, skip = [], False
    for left, right in zip(tokens, [*tokens[1:], None]):
        if skip:
            skip = False
        elif (left, right) == pair:
            out.append(left + right)
            skip = True
        else:
            out.append(left)
    return out


@merge.wrong(
    "The tokens were joined by spaces and the pair replaced in that text, where `st ab` holds "
    "`t a`. Compare whole tokens with the pair."
)
def replaced_in_the_text(tokens, pair):
    return " ".join(tokens).replace(" ".join(pair), "".join(pair)).split()


@merge.wrong(
    "Nothing was merged. A list never equals a tuple: compare `tuple(tokens[i:i + 2])` with `pair` "
    "or the two tokens one by one."
)
def list_against_tuple(tokens, pair):
    return list(tokens)


@merge.wrong(
    "The tokens were joined by spaces and the pair replaced in that text, where `st ab` holds "
    "`t a`, and no tokens became ['']. Compare whole tokens with the pair."
)
def replaced_in_the_text_and_split(tokens, pair):
    return " ".join(tokens).replace(" ".join(pair), "".join(pair)).split(" ")


@merge.wrong(
    "`zip(tokens, tokens[1:])` ends before the last token, and a merged right token comes again. "
    "Use an index of your own that moves 1 or 2."
)
def zipped(tokens, pair):
    return [a + b if (a, b) == pair else a for a, b in pairwise(tokens)]


@merge.wrong(
    "A token was used twice: `a a a` became `aa aa`. After a merge, go on behind both tokens: the "
    "index moves 2."
)
def merged_with_overlap(tokens, pair):
    out, i = [], 0
    while i < len(tokens):
        if tuple(tokens[i : i + 2]) == pair:
            out.append("".join(pair))
            i += 1 if tuple(tokens[i + 1 : i + 3]) == pair else 2
        else:
            out.append(tokens[i])
            i += 1
    return out


@merge.wrong(
    "After a merge the right token comes again: `a b` became `ab b`. Skip both tokens: the index "
    "moves 2."
)
def right_token_kept(tokens, pair):
    return [
        "".join(pair) if tuple(tokens[i : i + 2]) == pair else token
        for i, token in enumerate(tokens)
    ]


@merge.wrong(
    "Runs were merged from the right: `a a a` became `a aa`. BPE goes from left to right, so it is "
    "`aa a`."
)
def merged_from_the_right(tokens, pair):
    out, i = [], len(tokens)
    while i > 0:
        step = 2 if tuple(tokens[max(i - 2, 0) : i]) == pair else 1
        out.insert(0, "".join(tokens[i - step : i]))
        i -= step
    return out


@merge.wrong("Only the first place was merged. Go on to the end of the list: merge every place.")
def only_the_first(tokens, pair):
    for i in range(len(tokens) - 1):
        if (tokens[i], tokens[i + 1]) == pair:
            return [*tokens[:i], "".join(pair), *tokens[i + 2 :]]
    return list(tokens)


@merge.wrong("(b, a) was merged as if it were (a, b). The order in a pair matters.")
def either_order(tokens, pair):
    out, i = [], 0
    while i < len(tokens):
        step = 2 if tuple(tokens[i : i + 2]) in (pair, pair[::-1]) else 1
        out.append("".join(tokens[i : i + step]))
        i += step
    return out


@merge.wrong(
    "Neighbours were compared by their joined text: `a` + `bc` spells `abc`, and so does "
    "`ab` + `c`, but only one is the pair. Compare the two tokens one by one."
)
def compared_as_text(tokens, pair):
    out, i = [], 0
    while i < len(tokens):
        step = 2 if len(tokens[i:]) > 1 and tokens[i] + tokens[i + 1] == "".join(pair) else 1
        out.append("".join(tokens[i : i + step]))
        i += step
    return out


@merge.wrong(
    "The text was cut afresh, into the merged token and single letters. Tokens from earlier merges "
    "must stay whole: walk over `tokens`, not over their letters."
)
def cut_afresh(tokens, pair):
    return re.findall(f"{re.escape(''.join(pair))}|.", "".join(tokens))


@merge.wrong(
    "The last token is lost where no merge ends the list. After the loop one token may be left "
    "over: append it."
)
def last_token_lost(tokens, pair):
    out, i = [], 0
    while i < len(tokens) - 1:
        step = 2 if (tokens[i], tokens[i + 1]) == pair else 1
        out.append("".join(tokens[i : i + step]))
        i += step
    return out


@merge.wrong(
    "At the last token `tokens[i + 1]` raises IndexError, because nothing stands to its right. Ask "
    "`i + 1 < len(tokens)` first, or compare the slice `tokens[i:i + 2]`."
)
def past_the_end(tokens, pair):
    out, i = [], 0
    while i < len(tokens):
        step = 2 if (tokens[i], tokens[i + 1]) == pair else 1
        out.append("".join(tokens[i : i + step]))
        i += step
    return out


@merge.wrong(
    "If the list ends on the pair's left token, `tokens[i + 1]` raises IndexError. Ask "
    "`i + 1 < len(tokens)` first."
)
def past_the_end_at_times(tokens, pair):
    out, i = [], 0
    while i < len(tokens):
        step = 2 if tokens[i] == pair[0] and tokens[i + 1] == pair[1] else 1
        out.append("".join(tokens[i : i + step]))
        i += step
    return out


@merge.wrong(
    "The pair stands in the result as a tuple. Join its two tokens into one: `pair[0] + pair[1]`."
)
def pair_left_as_tuple(tokens, pair):
    return [pair if token is None else token for token in mark_pairs(tokens, pair)]


def mark_pairs(tokens, pair):
    """The tokens with None in place of each merged pair."""
    out, i = [], 0
    while i < len(tokens):
        found = tuple(tokens[i : i + 2]) == pair
        out.append(None if found else tokens[i])
        i += 2 if found else 1
    return out


@merge.wrong("The pair was taken out and nothing put in its place. Append its two tokens, joined.")
def pair_removed(tokens, pair):
    return [token for token in mark_pairs(tokens, pair) if token is not None]


@merge.wrong(
    "The tokens of the pair were joined with a space between. Join them bare: `pair[0] + pair[1]`."
)
def joined_with_a_space(tokens, pair):
    return [" ".join(pair) if token is None else token for token in mark_pairs(tokens, pair)]


@merge.wrong(
    "Each left token of the pair was merged with whatever follows it. Look at the right token too."
)
def left_token_only(tokens, pair):
    out, i = [], 0
    while i < len(tokens):
        step = 2 if tokens[i] == pair[0] and i + 1 < len(tokens) else 1
        out.append("".join(tokens[i : i + step]))
        i += step
    return out


# 3


def some_texts():
    """Ties, runs, a text that runs out of pairs, and one where merging in the text goes astray."""
    rng = random.Random(2)
    cases = [
        ("ab ab", 3),
        ("abc", 2),
        ("ba ab", 3),
        ("aaa", 5),
        ("hug pug hug", 50),
        ("st st st st ta ta ta sta", 6),
        ("aaaa aaaa abab", 5),
        ("Ab ab Ab A-b", 6),
        ("né né, né", 5),
        (CLASSIC, 16),
    ]
    for vocab_size in (7, 9, 12):
        cases.append((" ".join(random_words(rng, "abcd", 25, 6)), vocab_size))
    return cases


@exercise(
    title="Train a BPE",
    difficulty="hard",
    minutes=15,
    cases=some_texts,
    hints=(
        "Keep the words as a Counter of tuples of tokens. How many merges fit: vocab_size less "
        "the distinct characters.",
        "Each round: count the pairs of the words as they are now, choose one, join it in every "
        "word. With no pair left, stop.",
        "min(counts, key=lambda pair: (-counts[pair], pair)) takes the highest count and, among "
        "equals, the smallest pair.",
    ),
)
def train_bpe(text, vocab_size):
    """A text -> the pairs that BPE merges, in order.

    Words lie between spaces. The vocabulary begins with the distinct characters, without the space.
    """
    words = Counter(tuple(word) for word in text.split())
    merges = []
    for _ in range(vocab_size - len(set(text) - {" "})):
        counts = Counter()
        for word, n in words.items():
            for pair in pairwise(word):
                counts[pair] += n
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        merged = Counter()
        for word, n in words.items():
            tokens = []
            for token in word:
                if tokens and (tokens[-1], token) == best:
                    tokens[-1] += token
                else:
                    tokens.append(token)
            merged[tuple(tokens)] = n
        words = merged
    return merges


def free_places(text, vocab_size):
    return vocab_size - len(set(text) - {" "})


def neighbours(word):
    return pairwise(word)


def most_frequent(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair)) if counts else None


def trained(words, n_merges, pairs=neighbours, choose=most_frequent, join=joined):
    """BPE training with parts to exchange: a mistake is one other part.

    `words` holds (word, count); `choose` gives None where training should stop.
    """
    words, merges = [(tuple(word), n) for word, n in words], []
    for _ in range(n_merges):
        counts = Counter()
        for word, n in words:
            for pair in pairs(word):
                counts[pair] += n
        best = choose(counts)
        if best is None:
            break
        merges.append(best)
        words = [(tuple(join(word, best)), n) for word, n in words]
    return merges


def counted(text):
    return Counter(text.split()).items()


@train_bpe.right
def trained_from_a_list_of_words(text, vocab_size):
    return trained([(word, 1) for word in text.split(" ")], free_places(text, vocab_size))


@train_bpe.right
def trained_while_the_vocabulary_is_small(text, vocab_size):
    words = [list(word) for word in text.split()]
    vocab, merges = {letter for word in words for letter in word}, []
    while len(vocab) < vocab_size:
        counts = Counter(pair for word in words for pair in pairwise(word))
        if not counts:
            return merges
        left, right = sorted(counts, key=lambda pair: (-counts[pair], pair))[0]
        words = [joined(word, (left, right)) for word in words]
        vocab.add(left + right)
        merges.append([left, right])
    return merges


@train_bpe.wrong(
    "`vocab_size` was taken as the number of merges. The distinct characters are in the vocabulary "
    "already; each merge adds one token to them."
)
def size_as_merges(text, vocab_size):
    return trained(counted(text), vocab_size)


@train_bpe.wrong(
    "One merge is missing. The first tokens are the distinct characters without the space, which "
    "only separates words here."
)
def space_in_the_vocabulary(text, vocab_size):
    return trained(counted(text), vocab_size - len(set(text)))


@train_bpe.wrong(
    "No merge came out, as if the vocabulary began with 256 bytes and had no place left. Here it "
    "begins with the distinct characters of the text."
)
def begun_with_bytes(text, vocab_size):
    return trained(counted(text), vocab_size - 256)


@train_bpe.wrong(
    "The pairs were counted once, at the start. A merge makes new pairs and ends others: count "
    "again in every round."
)
def never_recounted(text, vocab_size):
    counts = Counter()
    for word, n in counted(text):
        for pair in pairwise(word):
            counts[pair] += n
    ordered = sorted(counts, key=lambda pair: (-counts[pair], pair))
    return ordered[: max(free_places(text, vocab_size), 0)]


@train_bpe.wrong(
    "The counts of earlier rounds were kept and the new ones added. Begin each round with empty "
    "counts: a merge takes pairs away, too."
)
def counts_kept(text, vocab_size):
    words, merges, counts = [(tuple(w), n) for w, n in counted(text)], [], Counter()
    for _ in range(free_places(text, vocab_size)):
        for word, n in words:
            for pair in pairwise(word):
                counts[pair] += n
        if not counts:
            break
        merges.append(most_frequent(counts))
        words = [(tuple(joined(word, merges[-1])), n) for word, n in words]
    return merges


@train_bpe.wrong(
    "The count was divided by the counts of both tokens: that is WordPiece. BPE takes the pair "
    "with the highest count, as it is."
)
def by_wordpiece_score(text, vocab_size):
    words, merges = [(tuple(w), n) for w, n in counted(text)], []
    for _ in range(free_places(text, vocab_size)):
        pairs, single = Counter(), Counter()
        for word, n in words:
            for token in word:
                single[token] += n
            for pair in pairwise(word):
                pairs[pair] += n
        if not pairs:
            break
        merges.append(min(pairs, key=lambda p: (-pairs[p] / single[p[0]] / single[p[1]], p)))
        words = [(tuple(joined(word, merges[-1])), n) for word, n in words]
    return merges


@train_bpe.wrong(
    "Among pairs of equal count their joined texts were compared. Compare the pairs themselves, as "
    "tuples: ('a', 'b') comes before ('aa', 'aa')."
)
def smallest_text_on_ties(text, vocab_size):
    def choose(counts):
        return min(counts, key=lambda p: (-counts[p], "".join(p))) if counts else None

    return trained(counted(text), free_places(text, vocab_size), choose=choose)


@train_bpe.wrong(
    "When merging, runs were joined from the right: `a a a` became `a aa`. Go from left to right."
)
def trained_from_the_right(text, vocab_size):
    places = free_places(text, vocab_size)
    return trained(counted(text), places, join=merged_from_the_right)


@train_bpe.wrong(
    "The same pair comes again and again: it was chosen, and the words were not changed. Join it "
    "in every word before the next count."
)
def never_merged(text, vocab_size):
    return trained(counted(text), free_places(text, vocab_size), join=lambda word, pair: word)


@train_bpe.wrong(
    "Among pairs of equal count the largest was taken: `max` over (count, pair) does that. The "
    "task takes the smallest; `min` over (-count, pair) gives it."
)
def largest_on_ties(text, vocab_size):
    def choose(counts):
        return max(counts, key=lambda pair: (counts[pair], pair)) if counts else None

    return trained(counted(text), free_places(text, vocab_size), choose=choose)


@train_bpe.wrong(
    "Among pairs of equal count the first one seen was taken, as `max(counts, key=counts.get)` and "
    "`most_common` do. The task takes the smallest pair."
)
def first_seen_on_ties(text, vocab_size):
    def choose(counts):
        return max(counts, key=counts.get) if counts else None

    return trained(counted(text), free_places(text, vocab_size), choose=choose)


@train_bpe.wrong(
    "Each distinct word was counted once. A pair's count is over the whole text: a word that "
    "occurs 6 times brings its pairs 6 times."
)
def word_counts_ignored(text, vocab_size):
    words = [(word, 1) for word in dict.fromkeys(text.split())]
    return trained(words, free_places(text, vocab_size))


@train_bpe.wrong(
    "Pairs were counted across word boundaries: the spaces were dropped and all words became one. "
    "Count and merge inside each word."
)
def words_run_together(text, vocab_size):
    return trained([(text.replace(" ", ""), 1)], free_places(text, vocab_size))


@train_bpe.wrong(
    "The space was treated as a character that merges. Split the text at its spaces first, and "
    "count inside the words."
)
def space_merged(text, vocab_size):
    return trained([(text, 1)], free_places(text, vocab_size))


@train_bpe.wrong(
    "An end-of-word mark was appended to each word, as in the paper of 2016. In this exercise a "
    "word is only its characters."
)
def end_of_word(text, vocab_size):
    words = [((*word, "</w>"), n) for word, n in counted(text)]
    return trained(words, free_places(text, vocab_size))


@train_bpe.wrong(
    "An end-of-word mark was appended to each word and given a place in the vocabulary. In this "
    "exercise a word is only its characters."
)
def end_of_word_in_the_vocabulary(text, vocab_size):
    words = [((*word, "</w>"), n) for word, n in counted(text)]
    return trained(words, free_places(text, vocab_size) - 1)


@train_bpe.wrong(
    "Training ended when no pair occurred twice. The task goes on while there is any pair, even of "
    "count 1."
)
def stopped_at_one(text, vocab_size):
    def choose(counts):
        return most_frequent(counts) if max(counts.values(), default=0) > 1 else None

    return trained(counted(text), free_places(text, vocab_size), choose=choose)


@train_bpe.wrong(
    "When every word is one token there is no pair left, and `max` or `min` of nothing raises "
    "ValueError. Stop the loop if the counts are empty."
)
def never_stopped(text, vocab_size):
    def choose(counts):
        return min(counts, key=lambda pair: (-counts[pair], pair))

    return trained(counted(text), free_places(text, vocab_size), choose=choose)


@train_bpe.wrong(
    "When every word is one token there is no pair left, and the first of an empty list raises "
    "IndexError. Stop the loop if the counts are empty."
)
def never_stopped_by_index(text, vocab_size):
    def choose(counts):
        return sorted(counts, key=lambda pair: (-counts[pair], pair))[0]

    return trained(counted(text), free_places(text, vocab_size), choose=choose)


@train_bpe.wrong(
    "The result holds joined texts. Give the pairs themselves: from `est` alone nobody knows "
    "whether (e, st) or (es, t) was merged."
)
def texts_for_pairs(text, vocab_size):
    return [left + right for left, right in train_bpe.solve(text, vocab_size)]


@train_bpe.wrong(
    "Pairs were replaced in a text of tokens with spaces between, where `st a` holds `t a`. "
    "Compare whole tokens when merging."
)
def merged_in_the_text(text, vocab_size):
    return trained(counted(text), free_places(text, vocab_size), join=replaced_in_the_text)


@train_bpe.wrong(
    "When merging, one token was used twice: `a a a` became `aa aa`. After a merge go on behind "
    "both tokens."
)
def trained_with_overlap(text, vocab_size):
    return trained(counted(text), free_places(text, vocab_size), join=merged_with_overlap)


@train_bpe.wrong(
    "Only the first place in each word was merged. A word can hold the pair several times: merge "
    "them all."
)
def first_place_in_each_word(text, vocab_size):
    return trained(counted(text), free_places(text, vocab_size), join=only_the_first)


@train_bpe.wrong(
    "A pair that a word holds twice was counted once in it. Count places: `abab` holds (a, b) two "
    "times."
)
def counted_once_per_word(text, vocab_size):
    places = free_places(text, vocab_size)
    return trained(counted(text), places, pairs=lambda word: dict.fromkeys(neighbours(word)))


@train_bpe.wrong(
    "Overlapping places were not counted: `aaaa` holds (a, a) at three places. Non-overlap "
    "matters when merging, not when counting."
)
def counted_without_overlap(text, vocab_size):
    def pairs(word):
        return overlaps_left_out({word: 1}).elements()

    return trained(counted(text), free_places(text, vocab_size), pairs=pairs)


@train_bpe.wrong(
    "There is one merge too many. Stop as soon as characters and merges together are `vocab_size`."
)
def one_too_many(text, vocab_size):
    return trained(counted(text), free_places(text, vocab_size) + 1)


@train_bpe.wrong("The rarest pair was merged first. Take the one with the highest count.")
def rarest_first(text, vocab_size):
    def choose(counts):
        return min(counts, key=lambda pair: (counts[pair], pair)) if counts else None

    return trained(counted(text), free_places(text, vocab_size), choose=choose)


# 4


def ranks_from(text, vocab_size, rng, first=0):
    """A trained table whose dict order is not the order of its ranks."""
    ranked = list(enumerate(train_bpe.solve(text, vocab_size), first))
    rng.shuffle(ranked)
    return {pair: rank for rank, pair in ranked}


def some_words_and_ranks():
    """Tables as training makes them; words with runs, unknown letters, one letter, none."""
    rng = random.Random(3)
    table = {("bc", "d"): 2, ("a", "b"): 1, ("b", "c"): 0}
    classic = ranks_from(CLASSIC, 18, rng, first=256)
    cases = [
        ("", table),
        ("b", table),
        ("xy", table),
        ("abc", table),
        ("abcd", table),
        ("abc", {("a", "b"): 2, ("b", "c"): 0, ("a", "bc"): 1}),
        ("bcbc", table),
        ("abcd", {("a", "b"): 0, ("c", "d"): 1, ("ab", "c"): 2}),
        ("aaaaa", {("aa", "a"): 1, ("a", "a"): 0}),
        ("abc", {("b", "c"): 0, ("a", "b"): 1, ("ab", "c"): 2}),
        ("ABab", {("a", "b"): 5000}),
        ("slowest", classic),
        ("newer", classic),
        ("lowestnewest", classic),
    ]
    for _ in range(4):
        ranks = ranks_from(" ".join(random_words(rng, "abcd", 25, 6)), 14, rng)
        cases += [("".join(rng.choices("abcd", k=k)), ranks) for k in (5, 8, 12)]
    return cases


@exercise(
    title="Encode by rank",
    difficulty="medium",
    minutes=10,
    cases=some_words_and_ranks,
    hints=(
        "Begin with the letters. In each round look at all neighbouring pairs: which of them are "
        "in ranks?",
        "Of those, merge the pair with the lowest rank, then look again: the merge may have made "
        "a new pair. If none is left, the tokens are done.",
        "known = [pair for pair in pairwise(tokens) if pair in ranks], and "
        "min(known, key=ranks.get) is the pair to merge.",
    ),
)
def encode(word, ranks):
    """A word, and ranks {pair: rank} -> its tokens: the lowest-ranked pair first, again and again.

    Equal pairs are merged from left to right.
    """
    tokens = list(word)
    while known := [pair for pair in pairwise(tokens) if pair in ranks]:
        best = min(known, key=ranks.get)
        merged = []
        for token in tokens:
            if merged and (merged[-1], token) == best:
                merged[-1] += token
            else:
                merged.append(token)
        tokens = merged
    return tokens


def by_rank(word, ranks):
    """The right encoder: merge the pair of lowest rank, until no pair is in the table."""
    tokens = list(word)
    while len(tokens) > 1:
        places = range(len(tokens) - 1)
        i = min(places, key=lambda i: ranks.get((tokens[i], tokens[i + 1]), float("inf")))
        if (tokens[i], tokens[i + 1]) not in ranks:
            break
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens


encode.right(by_rank)


@encode.right
def replayed(word, ranks):
    """Every merge once, in order: the same, since the parts of a pair have lower ranks."""
    tokens = list(word)
    for pair in sorted(ranks, key=ranks.get):
        tokens = joined(tokens, pair)
    return tokens


@encode.wrong(
    "That takes the longest known token from the left. BPE replays its merges in the order of "
    "their ranks, so `abc` can be `a` + `bc` although `ab` is known."
)
def longest_match(word, ranks):
    known, tokens, i = {left + right for left, right in ranks}, [], 0
    while i < len(word):
        end = next((e for e in range(len(word), i + 1, -1) if word[i:e] in known), i + 1)
        tokens.append(word[i:end])
        i = end
    return tokens


def left_to_right(word, ranks):
    """An encoder that looks right: merge the first pair that is in the table, until none is."""
    tokens, i = list(word), 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) in ranks:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
            i = 0
        else:
            i += 1
    return tokens


encode.wrong(
    "The leftmost known pair was merged, again and again. Not its place decides but its rank: "
    "take the pair with the lowest rank, wherever it stands."
)(left_to_right)


@encode.wrong(
    "One pass from left to right, merging each known pair it meets. Rank decides what is merged "
    "first, and merged tokens can merge again: repeat, with the lowest rank each time."
)
def one_pass(word, ranks):
    tokens, i = [], 0
    while i < len(word):
        step = 2 if tuple(word[i : i + 2]) in ranks else 1
        tokens.append(word[i : i + step])
        i += step
    return tokens


@encode.wrong(
    "One pass from left to right, each token growing while the pair with the next letter is known. "
    "Rank decides what is merged first: look at all pairs and take the lowest."
)
def growing(word, ranks):
    tokens = []
    for letter in word:
        if tokens and (tokens[-1], letter) in ranks:
            tokens[-1] += letter
        else:
            tokens.append(letter)
    return tokens


@encode.wrong(
    "The highest rank was merged first. Ranks count from the first merge of training: the lowest "
    "goes first."
)
def highest_rank(word, ranks):
    tokens = list(word)
    while known := [pair for pair in pairwise(tokens) if pair in ranks]:
        tokens = joined(tokens, max(known, key=ranks.get))
    return tokens


@encode.wrong(
    "The merges were replayed from the last to the first. Ranks count from the first merge of "
    "training: leave out `reverse=True`."
)
def replayed_backwards(word, ranks):
    tokens = list(word)
    for pair in sorted(ranks, key=ranks.get, reverse=True):
        tokens = joined(tokens, pair)
    return tokens


@encode.wrong(
    "Of the known pairs the one that makes the longest token was merged. Not length decides but "
    "rank: `min(known, key=ranks.get)`."
)
def longest_pair(word, ranks):
    tokens = list(word)
    while known := [pair for pair in pairwise(tokens) if pair in ranks]:
        tokens = joined(tokens, max(known, key=lambda pair: (len("".join(pair)), -ranks[pair])))
    return tokens


@encode.wrong(
    "Pass after pass went from left to right, merging every known pair on its way. Each round has "
    "one pair to merge, the one with the lowest rank."
)
def pass_after_pass(word, ranks):
    tokens, before = list(word), None
    while tokens != before:
        before, tokens, i = tokens, [], 0
        while i < len(before):
            step = 2 if tuple(before[i : i + 2]) in ranks else 1
            tokens.append("".join(before[i : i + step]))
            i += step
    return tokens


@encode.wrong(
    "The pair of rank 0 is never merged: 0 counts as False. Ask `pair in ranks`, not "
    "`ranks.get(pair)`."
)
def rank_0_taken_for_none(word, ranks):
    return by_rank(word, {pair: rank for pair, rank in ranks.items() if rank})


@encode.wrong(
    "Pairs were replaced in a text of tokens with spaces between, where `ab c` holds `b c`. "
    "Compare whole tokens."
)
def encoded_in_the_text(word, ranks):
    tokens = list(word)
    for pair in sorted(ranks, key=ranks.get):
        tokens = replaced_in_the_text(tokens, pair)
    return tokens


@encode.wrong(
    "The merges were taken in the order of the dict. Its order need not be that of the ranks: sort "
    "by them, or take the minimum."
)
def in_the_order_of_the_dict(word, ranks):
    tokens = list(word)
    for pair in ranks:
        tokens = joined(tokens, pair)
    return tokens


@encode.wrong(
    "The pairs were taken in alphabetical order: `min` and `sorted` compare the pairs themselves. "
    "Give them `key=ranks.get`."
)
def alphabetical(word, ranks):
    tokens = list(word)
    while known := [pair for pair in pairwise(tokens) if pair in ranks]:
        tokens = joined(tokens, min(known))
    return tokens


@encode.wrong(
    "Pairs that are not in `ranks` were merged too, until one token was left. If the best pair "
    "there is has no rank, stop."
)
def unknown_pairs_too(word, ranks):
    return [word] if word else []


@encode.wrong(
    "A pair that is not in `ranks` raises KeyError. Look only at the pairs that are, or use "
    "`ranks.get(pair, float('inf'))` and stop at infinity."
)
def unknown_pair_raises(word, ranks):
    tokens = list(word)
    while len(tokens) > 1:
        tokens = joined(tokens, min(pairwise(tokens), key=lambda pair: ranks[pair]))
    return tokens


@encode.wrong(
    "With one token or none there is no pair, and `min` of nothing raises ValueError. Stop before "
    "that."
)
def no_pair_raises(word, ranks):
    tokens = list(word)
    while True:
        best = min(pairwise(tokens), key=lambda pair: ranks.get(pair, float("inf")))
        if best not in ranks:
            return tokens
        tokens = joined(tokens, best)


@encode.wrong(
    "When no known pair is left, `min` of an empty list raises ValueError. That is the end of the "
    "loop: give the tokens back there."
)
def no_known_pair_raises(word, ranks):
    tokens = list(word)
    while True:
        best = min((pair for pair in pairwise(tokens) if pair in ranks), key=ranks.get)
        tokens = joined(tokens, best)


@encode.wrong(
    "Only one pair was merged. Repeat until no neighbours are in `ranks`: each merge can make a "
    "new pair."
)
def one_merge(word, ranks):
    tokens = list(word)
    known = [pair for pair in pairwise(tokens) if pair in ranks]
    return joined(tokens, min(known, key=ranks.get)) if known else tokens


@encode.wrong(
    "Every merge was replayed at one place only. A pair can stand at several places of the word: "
    "merge them all before a higher rank has its turn."
)
def one_place_each(word, ranks):
    tokens = list(word)
    for pair in sorted(ranks, key=ranks.get):
        tokens = only_the_first(tokens, pair)
    return tokens


@encode.wrong(
    "Only pairs of letters were merged. The merged tokens form new pairs with their neighbours: "
    "look again after every merge."
)
def pairs_of_letters_only(word, ranks):
    return by_rank(word, {pair: rank for pair, rank in ranks.items() if len("".join(pair)) == 2})


@encode.wrong(
    "Equal pairs were merged from the right: `aaa` became `a` + `aa`. Among equals the leftmost "
    "comes first."
)
def equals_from_the_right(word, ranks):
    tokens = list(word)
    while known := [pair for pair in pairwise(tokens) if pair in ranks]:
        tokens = merged_from_the_right(tokens, min(known, key=ranks.get))
    return tokens


@encode.wrong(
    "One token was used in two merges: `aaa` became `aa` + `aa`. After a merge go on behind both "
    "tokens."
)
def encoded_with_overlap(word, ranks):
    tokens = list(word)
    for pair in sorted(ranks, key=ranks.get):
        tokens = merged_with_overlap(tokens, pair)
    return tokens


@encode.wrong(
    "Letters that no merge knows were dropped. They stay in the result, each as a token of its own."
)
def unknown_letters_dropped(word, ranks):
    known = {letter for pair in ranks for token in pair for letter in token}
    return [token for token in by_rank(word, ranks) if token[0] in known]


# 5


def some_ids():
    """Characters whole and cut in two to four tokens; bytes that are no character at all."""
    vocab = {
        0: b"caf",
        1: b"\xc3",
        2: b"\xa9",
        3: b" the",
        4: b"\xf0\x9f",
        5: b"\x98",
        6: b"\x80",
        7: b"\xff",
        8: b"na\xc3",
        9: b"\xafve ",
        65: "日本".encode(),
        256: b"He",
        300: b"llo",
        301: "\ufeff".encode(),
        302: b"\r\n",
    }
    sequences = [
        [],
        [256, 300],
        [0, 1, 2],
        [3, 256, 300, 3, 3, 0],
        [8, 9],
        [4, 5, 6],
        [65, 3, 1, 2, 65],
        [0, 7, 3],
        [2, 0],
        [0, 7, 7, 2, 1, 2, 4, 0],
        [256, 1],
        [301, 256, 300, 302, 300],
    ]
    return [(ids, vocab) for ids in sequences]


@exercise(
    title="Decode ids to text",
    difficulty="medium",
    minutes=4,
    cases=some_ids,
    hints=(
        "é is two bytes, and a token may end between them. When is it safe to decode?",
        "Put the bytes of all tokens together first: b''.join(...). Then decode once.",
        "bytes.decode takes errors=. What does errors='replace' do with an invalid byte?",
    ),
)
def decode(ids, vocab):
    """ids, and vocab {id: bytes} -> text; invalid bytes become U+FFFD (�)."""
    return b"".join(vocab[i] for i in ids).decode("utf-8", errors="replace")


@decode.right
def decoded_by_adding_bytes(ids, vocab):
    data = bytearray()
    for i in ids:
        data += vocab[i]
    return str(data, "utf-8", "replace")


@decode.right
def decoded_step_by_step(ids, vocab):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return "".join(decoder.decode(vocab[i]) for i in ids) + decoder.decode(b"", final=True)


@decode.wrong(
    "Each token was decoded by itself, so a character cut in two became two �. Join the bytes of "
    "all tokens first, then decode once."
)
def token_by_token(ids, vocab):
    return "".join(vocab[i].decode("utf-8", "replace") for i in ids)


@decode.wrong(
    "Each token was decoded by itself, and half a character raises UnicodeDecodeError. Join the "
    "bytes of all tokens, then decode once with errors='replace'."
)
def token_by_token_strictly(ids, vocab):
    return "".join(vocab[i].decode() for i in ids)


@decode.wrong(
    "Each token was decoded by itself with errors='ignore', so a character cut in two is gone. "
    "Join the bytes of all tokens first."
)
def token_by_token_ignoring(ids, vocab):
    return "".join(vocab[i].decode("utf-8", "ignore") for i in ids)


@decode.wrong(
    "Invalid bytes raise UnicodeDecodeError, and a model can emit any bytes. Ask for � in their "
    "place: errors='replace'."
)
def strictly(ids, vocab):
    return b"".join(vocab[i] for i in ids).decode()


@decode.wrong(
    "Invalid bytes vanish without a trace: that is errors='ignore'. With errors='replace' the "
    "reader sees � where something was lost."
)
def ignoring(ids, vocab):
    return b"".join(vocab[i] for i in ids).decode("utf-8", "ignore")


@decode.wrong(
    "Every byte became a character of its own, as Latin-1 has it. In UTF-8 é is two bytes: decode "
    "with 'utf-8'."
)
def as_latin_1(ids, vocab):
    return b"".join(vocab[i] for i in ids).decode("latin-1")


@decode.wrong(
    "All bytes above 127 became �, as ASCII has it, or UTF-8 read byte by byte. Decode the whole "
    "with 'utf-8', where é is two such bytes."
)
def as_ascii(ids, vocab):
    return b"".join(vocab[i] for i in ids).decode("ascii", "replace")


@decode.wrong(
    "The tokens were put together with spaces. A BPE's tokens carry their own spaces: join with "
    "nothing between."
)
def with_spaces(ids, vocab):
    return b" ".join(vocab[i] for i in ids).decode("utf-8", "replace")


@decode.wrong(
    "`str(b'...')` writes bytes as Python would show them, b and quotes included. Use "
    "`.decode('utf-8', errors='replace')`."
)
def as_shown(ids, vocab):
    return str(b"".join(vocab[i] for i in ids))


@decode.wrong(
    "The tokens were written as Python shows bytes, with b and quotes. Join the bytes, then "
    "`.decode('utf-8', errors='replace')`."
)
def tokens_as_shown(ids, vocab):
    return "".join(str(vocab[i]) for i in ids)


@decode.wrong(
    "Invalid bytes were written as \\xff: that is errors='backslashreplace'. The task asks for �, "
    "errors='replace'."
)
def with_backslashes(ids, vocab):
    return b"".join(vocab[i] for i in ids).decode("utf-8", "backslashreplace")


@decode.wrong(
    "Invalid bytes became lone surrogates: that is errors='surrogateescape'. The task asks for �, "
    "errors='replace'."
)
def with_surrogates(ids, vocab):
    return b"".join(vocab[i] for i in ids).decode("utf-8", "surrogateescape")


@decode.wrong("Invalid bytes became `?`. The task asks for �, U+FFFD.")
def with_question_marks(ids, vocab):
    return decode.solve(ids, vocab).replace("\ufffd", "?")


@decode.wrong("Several � in a row became one. Python's errors='replace' needs no tidying up.")
def runs_of_replacements_as_one(ids, vocab):
    return re.sub("\ufffd+", "\ufffd", decode.solve(ids, vocab))


@decode.wrong(
    "Each id was taken as a code point. An id is a row number of the vocabulary: look up "
    "`vocab[id]`."
)
def ids_as_code_points(ids, vocab):
    return "".join(chr(i) for i in ids)


@decode.wrong("That is the joined bytes. One step is missing: decode them to text.")
def still_bytes(ids, vocab):
    return b"".join(vocab[i] for i in ids)


@decode.wrong("White space at the ends was stripped. It belongs to the text: leave it.")
def stripped(ids, vocab):
    return decode.solve(ids, vocab).strip()


@decode.wrong(
    "The decoder still waits for the rest of the last character. Flush it at the end, with "
    "`decoder.decode(b'', final=True)`, or decode all bytes at once."
)
def never_flushed(ids, vocab):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return "".join(decoder.decode(vocab[i]) for i in ids)


@decode.wrong(
    "One invalid byte made the whole text a single �. Only that byte is lost: errors='replace' "
    "keeps the rest."
)
def all_lost(ids, vocab):
    try:
        return b"".join(vocab[i] for i in ids).decode()
    except UnicodeDecodeError:
        return "\ufffd"


@decode.wrong(
    "A token that is no valid text by itself was skipped whole, with its good half. Join the bytes "
    "of all tokens before you decode."
)
def bad_tokens_skipped(ids, vocab):
    def text(token):
        try:
            return token.decode()
        except UnicodeDecodeError:
            return "\ufffd"

    return "".join(text(vocab[i]) for i in ids)


# 6


def some_texts_with_specials():
    """Specials that overlap, stand side by side or at the ends, or that a pattern misreads."""
    end, start = "<|end|>", "<|end|><|start|>"
    rng = random.Random(4)
    cases = [
        ("", ["<s>"]),
        ("low", []),
        ("one<s>two", ["<s>"]),
        ("<s>one <S>", ["<s>"]),
        ("<s><s> one <s>", ["<s>"]),
        (f"one{end}two{end}", [end]),
        ("a # b ## c ### d", ["##", "###"]),
        (f"x{start}y{end}z", [start, end]),
        (f"x{start}y{end}z", [end, start]),
        ("abcd ab", ["ab", "bcd"]),
        ("wait... (a|b)", ["...", "(a|b)"]),
        ("one\ntwo<s>\r\nthree\n", ["<s>"]),
    ]
    for _ in range(3):
        pieces = rng.choices(["#", "##", "###", " ", "a", " b ", "(+)"], k=14)
        cases.append(("".join(pieces), ["##", "(+)", "###", "##a"]))
    return cases


@exercise(
    title="Split at the special tokens",
    difficulty="medium",
    minutes=10,
    cases=some_texts_with_specials,
    hints=(
        "re.split keeps what it splits at if the whole pattern stands in parentheses.",
        "A pattern with `|` takes its first alternative that fits, so put the longest special "
        "first. re.escape disarms signs like | and (.",
        "re.split gives empty pieces at the ends and between neighbours: leave them out. With no "
        "specials there is nothing to split at.",
    ),
)
def split_on_special(text, specials):
    """A text -> its pieces in order, each special a piece of its own, no piece empty.

    From left to right; where several specials begin at one place, the longest counts.
    """
    longest_first = sorted(specials, key=len, reverse=True)
    pattern = "|".join(re.escape(special) for special in longest_first)
    pieces = re.split(f"({pattern})", text) if specials else [text]
    return [piece for piece in pieces if piece]


@split_on_special.right
def split_by_hand(text, specials):
    pieces, plain, i = [], "", 0
    while i < len(text):
        here = [special for special in specials if text.startswith(special, i)]
        if here:
            special = max(here, key=len)
            pieces += [plain, special] if plain else [special]
            plain, i = "", i + len(special)
        else:
            plain, i = plain + text[i], i + 1
    return [*pieces, plain] if plain else pieces


@split_on_special.right
def split_by_matches(text, specials):
    pattern = "|".join(map(re.escape, sorted(specials, reverse=True)))
    pieces, last = [], 0
    for match in re.finditer(pattern, text) if specials else ():
        pieces += [text[last : match.start()], match[0]]
        last = match.end()
    return list(filter(None, [*pieces, text[last:]]))


@split_on_special.right
def split_at_the_first(text, specials):
    found = [(text.index(s), -len(s), s) for s in specials if s in text]
    if not found:
        return [text] if text else []
    at, _, special = min(found)
    head = [text[:at]] if at else []
    return [*head, special, *split_at_the_first(text[at + len(special) :], specials)]


def split_with(text, alternatives):
    """Pieces of a text, by a pattern of alternatives taken in the order given."""
    pieces = re.split(f"({'|'.join(alternatives)})", text) if alternatives else [text]
    return [piece for piece in pieces if piece]


def longest_first(specials):
    return sorted(specials, key=len, reverse=True)


def split_one_after_another(text, specials):
    """Pieces by one special after another; finished pieces are cut again."""
    pieces = [text]
    for special in specials:
        pattern = f"({re.escape(special)})"
        pieces = [part for piece in pieces for part in re.split(pattern, piece) if part]
    return pieces


@split_on_special.wrong(
    "Where two specials begin at one place, the one listed first was taken: `##` hides `###`. "
    "Sort them by length, the longest first."
)
def in_the_order_given(text, specials):
    return split_with(text, [re.escape(s) for s in specials])


@split_on_special.wrong(
    "Of two specials that begin at one place the shorter was taken. The longest comes first: "
    "`sorted(specials, key=len, reverse=True)`."
)
def shortest_first(text, specials):
    return split_with(text, [re.escape(s) for s in sorted(specials, key=len)])


@split_on_special.wrong(
    "The specials themselves are gone. `re.split` keeps what it splits at if the pattern stands in "
    "parentheses: `re.split(f'({pattern})', text)`."
)
def specials_dropped(text, specials):
    pieces = split_on_special.solve(text, specials)
    return [piece for piece in pieces if piece not in specials]


@split_on_special.wrong(
    "There are empty pieces: `re.split` gives one wherever a special stands at an end or beside "
    "another. Leave them out."
)
def empty_pieces_kept(text, specials):
    if not specials:
        return [text]
    return re.split(f"({'|'.join(map(re.escape, longest_first(specials)))})", text)


@split_on_special.wrong(
    "In a pattern `|`, `(` and `.` have meanings of their own, so `<|end|>` was read as three "
    "alternatives. Pass each special through `re.escape`."
)
def not_escaped(text, specials):
    return plain_split_with(text, longest_first(specials))


def plain_split_with(text, alternatives):
    """Pieces, without the None that a group inside an alternative gives where it took no part."""
    pieces = re.split(f"({'|'.join(alternatives)})", text) if alternatives else [text]
    return [piece for piece in pieces if piece]


@split_on_special.wrong(
    "The specials went into the pattern as they are and in the order given. `|` has a meaning "
    "there: pass each through `re.escape`, and put the longest first."
)
def neither_escaped_nor_sorted(text, specials):
    return plain_split_with(text, specials)


@split_on_special.wrong(
    "With no specials the pattern is empty and fits everywhere, so the text fell into single "
    "characters. In that case the whole text is one piece."
)
def split_everywhere_without_specials(text, specials):
    pattern = "|".join(map(re.escape, longest_first(specials)))
    return [piece for piece in re.split(f"({pattern})", text) if piece]


@split_on_special.wrong(
    "Only the first special was split off. Go on behind it: the rest of the text may hold more."
)
def only_the_first_special(text, specials):
    pattern = "|".join(map(re.escape, longest_first(specials)))
    pieces = re.split(f"({pattern})", text, maxsplit=1) if specials else [text]
    return [piece for piece in pieces if piece]


@split_on_special.wrong(
    "The specials were taken one after another, and pieces that were done were cut again: a long "
    "special that holds a shorter one falls apart. Look for all of them in one pass."
)
def cut_again(text, specials):
    return split_one_after_another(text, longest_first(specials))


@split_on_special.wrong(
    "The specials were taken one after another in the order given, so a short one breaks the "
    "longer. Look for all of them in one pass, the longest first."
)
def one_after_another(text, specials):
    return split_one_after_another(text, specials)


@split_on_special.wrong(
    "The longest special was looked for in the whole text before the others. Go from left to "
    "right: what begins first counts first, and length decides at one place only."
)
def longest_in_the_whole_text(text, specials):
    pieces = [text]
    for special in longest_first(specials):
        pattern = f"({re.escape(special)})"
        split = [[p] if p in specials else re.split(pattern, p) for p in pieces]
        pieces = [part for parts in split for part in parts if part]
    return pieces


@split_on_special.wrong(
    "Spaces around the pieces were stripped. Put together, the pieces must give the text again: "
    "leave spaces alone."
)
def spaces_stripped(text, specials):
    stripped = (piece.strip() for piece in split_on_special.solve(text, specials))
    return [piece for piece in stripped if piece]


@split_on_special.wrong(
    "Pieces of spaces only were left out. They are text too: leave out empty pieces alone."
)
def spaces_left_out(text, specials):
    return [piece for piece in split_on_special.solve(text, specials) if piece.strip()]


@split_on_special.wrong(
    "Specials that stand side by side became one piece. Each is a piece of its own: the pattern "
    "needs no `+` behind it."
)
def neighbours_glued(text, specials):
    pattern = "|".join(map(re.escape, longest_first(specials)))
    pieces = re.split(f"((?:{pattern})+)", text) if specials else [text]
    return [piece for piece in pieces if piece]


@split_on_special.wrong(
    "The text behind the last special is missing. After the loop something may be left over: "
    "append it."
)
def rest_lost(text, specials):
    pieces = split_on_special.solve(text, specials)
    return pieces if not pieces or pieces[-1] in specials else pieces[:-1]


@split_on_special.wrong(
    "Each special was glued to the text before it. It is a piece of its own, with the plain text "
    "in pieces around it."
)
def glued_to_the_left(text, specials):
    pieces = []
    for piece in split_on_special.solve(text, specials):
        if piece in specials and pieces and pieces[-1] not in specials:
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces


@split_on_special.wrong("The plain text is missing: only the specials were found. Keep both.")
def only_the_specials(text, specials):
    return [piece for piece in split_on_special.solve(text, specials) if piece in specials]


@split_on_special.property("Put together, the pieces should give the text again.")
def pieces_give_the_text(out, text, specials):
    return "".join(out) == text


# 7


def some_streams():
    """Characters in two to four pieces, an empty piece, invalid bytes, an end cut short."""
    text = "né 日本 😀 ok".encode()
    rng = random.Random(5)
    cuts = sorted(rng.sample(range(1, len(text)), k=9))
    return [
        ([],),
        ([b"Hi", b" ", b"you"],),
        ([b"caf\xc3", b"\xa9!"],),
        ([b"\xe6", b"\x97", b"", b"\xa5"],),
        ([b"a\xff", b"b"],),
        ([b"a\xe2\x82", b"b"],),
        ([b"ok\xf0\x9f"],),
        ([b"o", b"k", b"\xc3"],),
        ([b"\x80", b"\xc3", b"\xc3", b"\xa9\xa9"],),
        ([b"ab\xf0\x9f", b"\x98", b"\x80\xf0", b"\x9f\x98\x80 c"],),
        ([bytes([byte]) for byte in text],),
        ([text[i:j] for i, j in zip([0, *cuts], [*cuts, None])],),
        ([b"\xff", b"\xfe ok", b"\xe6\x97", b"\xff\xe6", b"\x97\xa5"],),
        ([b"\xc0", b"A\xf5", b"B"],),
        ([b"\xef\xbb", b"\xbfa"],),
    ]


@exercise(
    title="Text from a stream of bytes",
    difficulty="hard",
    minutes=12,
    cases=some_streams,
    hints=(
        "Some bytes must wait for the next piece. Keep them, and put them before it.",
        "What must wait is at most 3 bytes long, stands at the end, and begins with a byte that "
        "promises more than has come: 110xxxxx two bytes, 1110xxxx three, 11110xxx four.",
        "Python has this: codecs.getincrementaldecoder('utf-8')('replace') is a decoder whose "
        "decode(piece) keeps the incomplete end for the next call.",
    ),
)
def utf8_stream(chunks):
    """Pieces of bytes as they arrive -> for each piece, the text that became complete with it.

    An incomplete character waits, at the end of the stream too. Invalid bytes give U+FFFD at once.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(chunk) for chunk in chunks]


@utf8_stream.right
def streamed_by_hand(chunks):
    texts, rest = [], b""
    for chunk in chunks:
        rest += chunk
        wait = 0
        for n in range(1, min(3, len(rest)) + 1):
            lead = rest[-n]
            if lead >= 0xC2:
                size = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4 if lead < 0xF5 else 1
                wait = n if size > n else 0
                break
            if lead < 0x80:
                break
        keep = len(rest) - wait
        texts.append(rest[:keep].decode("utf-8", "replace"))
        rest = rest[keep:]
    return texts


@utf8_stream.right
def streamed_by_the_error(chunks):
    texts, rest = [], b""
    for chunk in chunks:
        rest, text = rest + chunk, ""
        while rest:
            try:
                text, rest = text + rest.decode(), b""
            except UnicodeDecodeError as error:
                text += rest[: error.start].decode()
                if error.reason == "unexpected end of data":
                    rest = rest[error.start :]
                    break
                text, rest = text + "\ufffd", rest[error.end :]
        texts.append(text)
    return texts


@utf8_stream.wrong(
    "Each piece was decoded by itself, so a character cut in two became two or more �. Keep the "
    "incomplete bytes and put them before the next piece."
)
def piece_by_piece(chunks):
    return [chunk.decode("utf-8", "replace") for chunk in chunks]


@utf8_stream.wrong(
    "Each piece was decoded by itself, and half a character raises UnicodeDecodeError. Keep the "
    "incomplete bytes for the next piece."
)
def piece_by_piece_strictly(chunks):
    return [chunk.decode() for chunk in chunks]


@utf8_stream.wrong(
    "Each piece was decoded by itself with errors='ignore', so characters cut in two are gone. "
    "Keep the incomplete bytes for the next piece."
)
def piece_by_piece_ignoring(chunks):
    return [chunk.decode("utf-8", "ignore") for chunk in chunks]


@utf8_stream.wrong(
    "After an invalid byte nothing is shown any more: all waits until the whole decodes, which "
    "never comes. Only an incomplete character may wait; an invalid byte is � at once."
)
def waiting_for_ever(chunks):
    texts, rest = [], b""
    for chunk in chunks:
        rest += chunk
        try:
            texts.append(rest.decode())
            rest = b""
        except UnicodeDecodeError:
            texts.append("")
    return texts


@utf8_stream.wrong(
    "An invalid byte blocks the stream: whatever follows waits behind it. Tell the two errors "
    "apart: an incomplete end waits, an invalid byte is � at once."
)
def blocked_by_the_invalid(chunks):
    texts, rest = [], b""
    for chunk in chunks:
        rest += chunk
        try:
            texts.append(rest.decode())
            rest = b""
        except UnicodeDecodeError as error:
            texts.append(rest[: error.start].decode())
            rest = rest[error.start :]
    return texts


@utf8_stream.wrong(
    "Up to 3 bytes were held back whenever the text did not decode, an invalid byte like 0xff "
    "among them. Only a lead byte that still misses bytes may wait."
)
def up_to_three_held_back(chunks):
    texts, rest = [], b""
    for chunk in chunks:
        rest += chunk
        for wait in range(4):
            keep = len(rest) - wait
            try:
                text = rest[:keep].decode()
                break
            except UnicodeDecodeError:
                text = None
        texts.append(rest.decode("utf-8", "replace") if text is None else text)
        rest = b"" if text is None else rest[keep:]
    return texts


@utf8_stream.wrong(
    "Every byte from 0xf5 on was taken for the start of a character, and waits. No character "
    "begins so: show � at once."
)
def every_high_byte_leads(chunks):
    texts, rest = [], b""
    for chunk in chunks:
        rest += chunk
        wait = 0
        for n in range(1, min(3, len(rest)) + 1):
            lead = rest[-n]
            if lead >= 0xC0:
                wait = n if (2 if lead < 0xE0 else 3 if lead < 0xF0 else 4) > n else 0
            if lead >= 0xC0 or lead < 0x80:
                break
        keep = len(rest) - wait
        texts.append(rest[:keep].decode("utf-8", "replace"))
        rest = rest[keep:]
    return texts


@utf8_stream.wrong(
    "What waits was replaced by the end of the newest piece. A character in three pieces needs the "
    "older bytes too: put them together before you cut."
)
def older_bytes_lost(chunks):
    texts, rest = [], b""
    for chunk in chunks:
        text, used = codecs.utf_8_decode(rest + chunk, "replace", False)
        texts.append(text)
        rest = chunk[used:]
    return texts


@utf8_stream.wrong(
    "All text came with the last piece. A reader wants to see it arrive: give with each piece what "
    "is complete by then."
)
def all_at_the_end(chunks):
    text = "".join(utf8_stream.solve(chunks))
    return [*[""] * (len(chunks) - 1), text] if chunks else []


@utf8_stream.wrong(
    "A piece that ends inside a character was held back whole. Its complete characters can be "
    "shown at once: only the last few bytes wait."
)
def whole_piece_held_back(chunks):
    texts, rest = [], b""
    for chunk in chunks:
        rest += chunk
        waits = codecs.utf_8_decode(rest, "replace", False)[1] < len(rest)
        texts.append("" if waits else rest.decode("utf-8", "replace"))
        rest = rest if waits else b""
    return texts


@utf8_stream.wrong(
    "Text that ends in � was taken for incomplete and held back. A byte that no character can "
    "hold, like 0xff, gives a � too, and that one is final."
)
def replacement_taken_for_incomplete(chunks):
    texts, data, shown = [], b"", 0
    for chunk in chunks:
        data += chunk
        text = data.decode("utf-8", "replace")
        new = text[shown:] if not text.endswith("\ufffd") else ""
        texts.append(new)
        shown += len(new)
    return texts


@utf8_stream.wrong(
    "All � at the end of the text so far were held back. A byte that no character can hold, like "
    "0xff, gives a � that is final: show it at once."
)
def replacements_stripped(chunks):
    texts, data, shown = [], b"", 0
    for chunk in chunks:
        data += chunk
        new = data.decode("utf-8", "replace").rstrip("\ufffd")[shown:]
        texts.append(new)
        shown += len(new)
    return texts


@utf8_stream.wrong(
    "Each item is the whole text so far. Give only what is new with that piece: the items joined "
    "are then the text."
)
def text_so_far(chunks):
    return list(itertools.accumulate(utf8_stream.solve(chunks)))


@utf8_stream.wrong(
    "Invalid bytes vanish. They should show as �, so that a reader sees that something was lost: "
    "errors='replace'."
)
def invalid_dropped(chunks):
    decoder = codecs.getincrementaldecoder("utf-8")("ignore")
    return [decoder.decode(chunk) for chunk in chunks]


@utf8_stream.wrong(
    "Invalid bytes raise UnicodeDecodeError. Give the decoder 'replace', and they become �."
)
def invalid_raises(chunks):
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(chunk) for chunk in chunks]


@utf8_stream.wrong(
    "The stream's incomplete end was shown as �. More could still arrive: here it stays held back."
)
def end_shown(chunks):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    last = len(chunks) - 1
    return [decoder.decode(chunk, final=i == last) for i, chunk in enumerate(chunks)]


@utf8_stream.wrong(
    "There is one item more than pieces: the decoder was flushed at the end. Give one text for "
    "each piece, and let an incomplete end wait."
)
def end_appended(chunks):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(chunk) for chunk in chunks] + [decoder.decode(b"", final=True)]


@utf8_stream.wrong(
    "A � was added as an extra item for the incomplete end. Give one text for each piece; what is "
    "incomplete waits."
)
def incomplete_end_appended(chunks):
    return [text for i, text in enumerate(end_appended(chunks)) if i < len(chunks) or text]


@utf8_stream.wrong(
    "Every piece was called final, so nothing was held back. Without `final=True` the decoder "
    "keeps an incomplete end."
)
def always_final(chunks):
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return [decoder.decode(chunk, True).rstrip("\ufffd") for chunk in chunks]


@utf8_stream.wrong(
    "Items for pieces that complete nothing are missing. Give an empty text for those, so that "
    "item i belongs to piece i."
)
def empty_texts_left_out(chunks):
    return [text for text in utf8_stream.solve(chunks) if text]


@utf8_stream.wrong(
    "The incomplete bytes at a piece's end were thrown away, and the next piece begins without "
    "them. Keep them and put them before it."
)
def incomplete_thrown_away(chunks):
    return [codecs.utf_8_decode(chunk, "replace", False)[0] for chunk in chunks]


@utf8_stream.wrong(
    "Every byte was shown as a character of its own, as Latin-1 has it. UTF-8 takes two to four "
    "bytes for what is not ASCII."
)
def streamed_as_latin_1(chunks):
    return [chunk.decode("latin-1") for chunk in chunks]


@utf8_stream.wrong(
    "That is one text. The task asks for a list, with what each piece made complete."
)
def one_text(chunks):
    return "".join(utf8_stream.solve(chunks))


# 8


def some_documents():
    """Documents of unlike lengths and ratios, with characters of one to four bytes."""
    return [
        (["low lower"], [3]),
        (["café"], [2]),
        (["low", "a much longer document of plain words"], [3, 8]),
        (["日本", "nine plain words", "naïve 😀"], [5, 3, 7]),
        (["a b\n", "ab" * 20, "é" * 9], [3, 4, 11]),
        (["low", "low", "lower"], [1, 1, 3]),
    ]


@exercise(
    title="Bytes per token",
    difficulty="easy",
    minutes=3,
    cases=some_documents,
    hints=(
        "len(text) counts characters. How many bytes has é in UTF-8?",
        "len(text.encode()) is the number of bytes.",
        "A short document should not weigh as much as a long one: add up all bytes and all "
        "tokens, then divide once.",
    ),
)
def bytes_per_token(texts, n_tokens):
    """Documents, and how many tokens each became -> UTF-8 bytes per token over all of them."""
    return sum(len(text.encode()) for text in texts) / sum(n_tokens)


@bytes_per_token.right
def bytes_joined(texts, n_tokens):
    return len("".join(texts).encode("utf-8")) / sum(n_tokens)


@bytes_per_token.right
def bytes_by_weights(texts, n_tokens):
    ratios = [len(bytes(text, "utf-8")) / n for text, n in zip(texts, n_tokens)]
    return sum(ratio * n / sum(n_tokens) for ratio, n in zip(ratios, n_tokens))


@bytes_per_token.wrong(
    "The ratio was averaged over documents, so a short one weighs as much as a long one. Divide "
    "all bytes by all tokens."
)
def mean_of_ratios(texts, n_tokens):
    return sum(len(text.encode()) / n for text, n in zip(texts, n_tokens)) / len(texts)


@bytes_per_token.wrong(
    "`len(text)` counts code points; é is one of them and two bytes. Count `len(text.encode())`."
)
def code_points(texts, n_tokens):
    return sum(map(len, texts)) / sum(n_tokens)


@bytes_per_token.wrong(
    "Two things at once: code points were counted, not bytes, and the ratio was averaged over "
    "documents. Divide all bytes, `len(text.encode())`, by all tokens."
)
def mean_of_code_point_ratios(texts, n_tokens):
    return sum(len(text) / n for text, n in zip(texts, n_tokens)) / len(texts)


@bytes_per_token.wrong("That is tokens per byte. Turn the fraction over.")
def tokens_per_byte(texts, n_tokens):
    return 1 / bytes_per_token.solve(texts, n_tokens)


@bytes_per_token.wrong(
    "Something was put between the documents when joining them, and counted. Add up the documents' "
    "own bytes."
)
def joined_by_newlines(texts, n_tokens):
    return len("\n".join(texts).encode()) / sum(n_tokens)


@bytes_per_token.wrong(
    "A newline was counted at the end of every document. Count only the bytes they have."
)
def ended_by_newlines(texts, n_tokens):
    return sum(len(text.encode()) + 1 for text in texts) / sum(n_tokens)


@bytes_per_token.wrong(
    "`//` cuts the fraction off. The answer is not a whole number: divide by `/`."
)
def cut_off(texts, n_tokens):
    return bytes_per_token.solve(texts, n_tokens) // 1


@bytes_per_token.wrong(
    "All bytes were divided by the number of documents. Divide by the number of tokens."
)
def bytes_per_document(texts, n_tokens):
    return sum(len(text.encode()) for text in texts) / len(texts)


@bytes_per_token.wrong("These are bits: eight times too many. Leave out the factor 8.")
def bits_per_token(texts, n_tokens):
    return 8 * bytes_per_token.solve(texts, n_tokens)


@bytes_per_token.wrong(
    "That is one ratio for each document. The task asks for one number: all bytes over all tokens."
)
def each_ratio(texts, n_tokens):
    return [len(text.encode()) / n for text, n in zip(texts, n_tokens)]


@bytes_per_token.wrong(
    "`sys.getsizeof` measures Python's object with its header. Count `len(text.encode())`."
)
def python_objects(texts, n_tokens):
    return sum(map(sys.getsizeof, texts)) / sum(n_tokens)


@bytes_per_token.wrong("That is words per token. Count bytes: `len(text.encode())`.")
def words_per_token(texts, n_tokens):
    return sum(len(text.split()) for text in texts) / sum(n_tokens)


@bytes_per_token.wrong(
    "The spaces were left out. They are bytes that the tokens carry: count the whole text."
)
def without_spaces(texts, n_tokens):
    return sum(len("".join(text.split()).encode()) for text in texts) / sum(n_tokens)


@bytes_per_token.wrong(
    "These are the bytes of UTF-16. The chapter counts UTF-8: `len(text.encode())`."
)
def in_utf_16(texts, n_tokens):
    return sum(len(text.encode("utf-16-le")) for text in texts) / sum(n_tokens)


@bytes_per_token.wrong(
    "These are the bytes of UTF-16 and its mark at the start of each document. The chapter counts "
    "UTF-8: `len(text.encode())`."
)
def in_utf_16_with_mark(texts, n_tokens):
    return sum(len(text.encode("utf-16")) for text in texts) / sum(n_tokens)


@bytes_per_token.wrong("The documents' ratios were added up. Divide all bytes by all tokens, once.")
def sum_of_ratios(texts, n_tokens):
    return sum(each_ratio(texts, n_tokens))


@bytes_per_token.wrong("The answer was rounded. Give it as it is.")
def rounded(texts, n_tokens):
    return round(bytes_per_token.solve(texts, n_tokens), 2)


@bytes_per_token.wrong(
    "That is the median of the documents' ratios. A long document weighs more: divide all bytes by "
    "all tokens."
)
def median_of_ratios(texts, n_tokens):
    ratios = sorted(each_ratio(texts, n_tokens))
    return (ratios[len(ratios) // 2] + ratios[(len(ratios) - 1) // 2]) / 2


# 9


@exercise(
    title="Why no text is unknown",
    difficulty="medium",
    minutes=3,
    options={
        "a": "Its training text held a small part of all words and not every character. A word "
        "typed tomorrow is in no training text, and still it can be encoded: what is it made of?",
        "b": "A vocabulary of any size leaves out a name, a typo, an emoji of next year. What the "
        "large vocabulary spares is tokens, not unknowns: look at the smallest pieces instead.",
        "c": "The 256 bytes would do without any merge: merges make sequences shorter and know "
        "nothing new. What is never unknown was there before the first merge.",
        "d": "Yes. UTF-8 writes every text as bytes, all 256 bytes are tokens from the start, and "
        "merges only add to them. At worst a text costs one token per byte.",
        "e": "No character is replaced: encoding followed by decoding gives back every text "
        "exactly. � appears when bytes are decoded that are no valid UTF-8, which is the other "
        "direction.",
        "f": "Unicode has room for 1,114,112 code points, 22 times GPT-2's whole vocabulary, and "
        "gains new ones every year. A rare character is several tokens: which ones?",
    },
    hints=(
        "Take a character that was not in the training text, say an emoji of next year. What does "
        "the encoder see of it?",
        "Before the first merge the vocabulary has exactly 256 tokens. Which?",
        "Set every merge aside: which texts can still be encoded? Merges only shorten.",
    ),
)
def no_unknown():
    """Why a byte-level BPE needs no <UNK>: a letter from a to f."""
    return "d"


# 10


def some_tables():
    """Tables with a witness each: plain, with pairs that mislead, and with longer tokens."""
    rng = random.Random(6)
    converging = {("a", "b"): 1, ("b", "c"): 0, ("ab", "c"): 2, ("a", "bc"): 3}
    return [
        ({("a", "b"): 1, ("b", "c"): 0},),
        ({("l", "o"): 2, ("n", "e"): 3, ("w", "e"): 1, ("o", "w"): 0},),
        ({**converging, ("x", "y"): 5, ("y", "z"): 4},),
        ({("p", "q"): 0, ("r", "s"): 1, ("pq", "r"): 2},),
        ({("a", "b"): 0, ("b", "c"): 1, ("a", "bc"): 2, ("c", "a"): 3},),
        (ranks_from(" ".join(random_words(rng, "enst", 25, 5)), 10, rng),),
    ]


def parts_ways(word, ranks):
    """What is wrong with a witness, or "": the two encoders must cut it differently."""
    if not isinstance(word, str):
        return f"Expected a word, as text; got {word!r:.80}."
    if len(word) > 100:
        return f"That word has {len(word)} letters. A short one shows more: up to 100, please."
    by_place, right = left_to_right(word, ranks), by_rank(word, ranks)
    if by_place != right:
        return ""
    return (
        f"Both encoders cut {word!r} into {right!r:.80}, so it is no witness. In which words does "
        "the order of merging matter?"
    )


@exercise(
    title="Bug hunt: the encoder that reads from the left",
    difficulty="hard",
    minutes=12,
    cases=some_tables,
    judge=parts_ways,
    hints=(
        "If no two pairs share a token, the order of merging changes nothing. Which words make two "
        "pairs compete?",
        "(a, b) and (b, c) compete in `abc`. The wrong encoder takes (a, b). When does the right "
        "one take (b, c)?",
        "Try every two pairs whose tokens meet, as a + b + c, where (b, c) has the lower rank. "
        "Some of these words end up equal after all: run both encoders on each.",
    ),
)
def witness(ranks):
    """ranks {pair: rank} -> a word that `left_to_right` and the right encoder cut differently."""
    for (a, b), late in ranks.items():
        for (c, d), early in ranks.items():
            word = a + b + d
            if b == c and early < late and left_to_right(word, ranks) != by_rank(word, ranks):
                return word


@witness.right
def found_by_trying_all_words(ranks):
    letters = sorted({letter for pair in ranks for token in pair for letter in token})
    for length in range(2, 5):
        for word in map("".join, itertools.product(letters, repeat=length)):
            if left_to_right(word, ranks) != by_rank(word, ranks):
                return word


@witness.right
def found_by_chance(ranks):
    letters = [letter for pair in ranks for token in pair for letter in token]
    while True:
        word = "".join(random.choices(letters, k=8))
        if left_to_right(word, ranks) != by_rank(word, ranks):
            return word


def meeting_pairs(ranks, agree=lambda early, late: early < late):
    """Words a + b + c of pairs (a, b) and (b, c) whose ranks satisfy `agree(rank_bc, rank_ab)`."""
    for (a, b), late in ranks.items():
        for (c, d), early in ranks.items():
            if b == c and agree(early, late):
                yield a + b + d


@witness.wrong(
    "Not every two pairs that meet are a witness: sometimes both encoders end at the same token, "
    "as `abc` by (ab, c) and by (a, bc). Run both on each word you try."
)
def not_tried_out(ranks):
    return next(meeting_pairs(ranks))


@witness.wrong(
    "In these words the left pair has the lower rank, so both encoders merge it first. The wrong "
    "one errs where the pair on the right has the lower rank."
)
def ranks_the_other_way(ranks):
    return next(meeting_pairs(ranks, lambda early, late: early > late), None)


@witness.wrong(
    "For one table no word was found: there, single letters never compete, merged tokens do. With "
    "(pq, r) and (r, s) look at `pqrs`."
)
def three_letters_only(ranks):
    letters = sorted({letter for pair in ranks for token in pair for letter in token})
    words = map("".join, itertools.product(letters, repeat=3))
    return next((w for w in words if left_to_right(w, ranks) != by_rank(w, ranks)), None)


@witness.wrong(
    "That is the pair of lowest rank. In a word of one pair nothing competes: a witness needs two "
    "pairs that share a token."
)
def lowest_pair(ranks):
    return "".join(min(ranks, key=ranks.get))


@witness.wrong(
    "That is the pair of highest rank. In a word of one pair nothing competes: a witness needs two "
    "pairs that share a token."
)
def highest_pair(ranks):
    return "".join(max(ranks, key=ranks.get))


@witness.wrong(
    "The two pairs of lowest rank stand side by side, each with letters of its own. They compete "
    "only if they share a token, as (a, b) and (b, c) do in `abc`."
)
def two_lowest_pairs(ranks):
    return "".join("".join(pair) for pair in sorted(ranks, key=ranks.get)[:2])


@witness.wrong(
    "The longest match errs on this word, and `left_to_right` does not. Compare the right encoder "
    "with `left_to_right`: it stops at a merge it knows, and never looks for a longer token."
)
def against_the_longest_match(ranks):
    letters = sorted({letter for pair in ranks for token in pair for letter in token})
    for length in range(2, 5):
        for word in map("".join, itertools.product(letters, repeat=length)):
            if longest_match(word, ranks) != by_rank(word, ranks):
                return word


@witness.wrong(
    "These are the word's tokens. Give the word itself, as text, so that an encoder can cut it."
)
def as_tokens(ranks):
    return left_to_right(witness.solve(ranks), ranks)


@witness.wrong("These are the word's letters in a list. Give the word as text: `''.join(...)`.")
def as_letters(ranks):
    return list(witness.solve(ranks))


@witness.wrong("These are the two encodings. Give the word on which they differ.")
def both_encodings(ranks):
    word = witness.solve(ranks)
    return left_to_right(word, ranks), by_rank(word, ranks)


@witness.wrong(
    "The longest token that the table can make is the same for both encoders. A witness is a word "
    "in which two pairs compete, and it need not be a token."
)
def longest_token(ranks):
    return max(("".join(pair) for pair in ranks), key=len)
