import re

import pytest
import torch

from lib import data
from lib.data import (
    Grammar,
    backcopy_rows,
    bigram_table,
    card_rows,
    load_text,
    recall_rows,
    repeated_rows,
    zipf_text,
)
from lib.tokenizer import WordTokenizer


@pytest.mark.parametrize("n_bytes", [0, 1, 2, 3, 4, 5, 1000, 99_999])
def test_zipf_text_has_exactly_the_bytes_that_were_asked_for(n_bytes):
    assert len(zipf_text(n_bytes, seed=3).encode()) == n_bytes


def test_zipf_text_is_the_same_for_the_same_seed_and_differs_between_seeds():
    assert zipf_text(5000, seed=1) == zipf_text(5000, seed=1)
    assert zipf_text(5000, seed=1) != zipf_text(5000, seed=2)
    assert zipf_text(50_000, seed=1).startswith(zipf_text(5000, seed=1)[:-4])


def test_zipf_text_is_shaped_like_prose():
    text = zipf_text(300_000)
    words = WordTokenizer.split(text)
    counts = sorted((words.count(word) for word in set(words[:300])), reverse=True)
    assert counts[0] > 20 * counts[len(counts) // 2]  # few words are common
    assert any(c.isdigit() for c in text) and any(c.isupper() for c in text)
    assert any(ord(c) > 0x3000 for c in text) and "\n" in text and "'s" in text
    assert 0.9 < sum(c.isascii() for c in text) / len(text) < 0.999


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="n_bytes must be 0 or more, not -1"):
        zipf_text(-1)


def test_load_text_returns_a_file_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "TEXTS", tmp_path)
    (tmp_path / "verse.txt").write_bytes("Zeile\r\nzwei é\n".encode())
    assert load_text("verse") == "Zeile\r\nzwei é\n"


@pytest.mark.parametrize("name", ["prose", "../verse", ""])
def test_load_text_names_the_texts_there_are(tmp_path, monkeypatch, name):
    monkeypatch.setattr(data, "TEXTS", tmp_path)
    (tmp_path / "verse.txt").write_text("x")
    with pytest.raises(ValueError, match=r"there is no text called .*; the texts are \['verse'\]"):
        load_text(name)


# ---- Rows of ids --------------------------------------------------------------------------------


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_repeated_rows_are_a_mark_and_then_different_words_again_and_again():
    ids, repeats = repeated_rows(200, seq_len=20, n_words=9, periods=(2, 7), generator=seeded())
    assert ids.shape == repeats.shape == (200, 20)
    assert ids.dtype == torch.int64 and repeats.dtype == torch.bool
    periods = set()
    for row, known in zip(ids.tolist(), repeats.tolist()):
        mark, words = row[0], row[1:]
        P = known.index(True) - 1
        assert mark == 9 and len(set(words[:P])) == P and set(words) <= set(range(9))
        assert all(words[t] == words[t - P] for t in range(P, 19))
        assert known == [False] * (P + 1) + [True] * (19 - P)
        periods.add(P)
    assert periods == set(range(2, 8))


def test_all_words_and_all_periods_are_as_likely():
    ids, repeats = repeated_rows(20_000, n_words=8, periods=(3, 6), generator=seeded())
    words = ids[:, 1].bincount(minlength=8)
    periods = (31 - repeats.sum(1)).bincount(minlength=7)[3:]
    assert words.sub(2500).abs().max() < 250  # five standard deviations and more
    assert periods.sub(5000).abs().max() < 320


def test_words_of_a_row_do_not_tell_of_each_other_but_by_being_different():
    ids, _ = repeated_rows(20_000, n_words=5, periods=(5, 5), generator=seeded())
    pairs = (5 * ids[:, 1] + ids[:, 2]).bincount(minlength=25).view(5, 5)
    assert pairs.diagonal().sum() == 0
    assert pairs.sub(1000).abs().fill_diagonal_(0).max() < 160


def test_recall_rows_are_pairs_from_a_dictionary_of_the_rows_own():
    ids, known = recall_rows(100, seq_len=20, n_keys=5, n_values=7, generator=seeded())
    assert ids.shape == known.shape == (100, 20)
    assert ids.dtype == torch.int64 and known.dtype == torch.bool
    dictionaries = set()
    for row, scored in zip(ids.tolist(), known.tolist()):
        dictionary = {}
        for t in range(0, 20, 2):
            key, value = row[t : t + 2]
            assert 0 <= key < 5 and 5 <= value < 12
            assert scored[t : t + 2] == [False, key in dictionary]
            assert dictionary.setdefault(key, value) == value
        dictionaries.add(tuple(sorted(dictionary.items())))
    assert len(dictionaries) > 90  # redrawn for each row


def test_keys_and_values_of_recall_are_as_likely_as_each_other():
    ids, _ = recall_rows(2_000, seq_len=20, n_keys=4, n_values=6, generator=seeded())
    counts = ids.flatten().bincount(minlength=10)
    assert counts[:4].sub(5000).abs().max() < 350
    assert ids[:, 1].bincount(minlength=10)[4:].sub(2000 / 6).abs().max() < 90


def answer_by_hand(cards, query, n_values=5, A=3):
    """Find the cards that fit a query, and what the question asks of each."""
    given, asked = query[0], query[1] - A * n_values
    assert 0 <= asked < A and asked != given // n_values
    return [card[asked] for card in cards if given in card]


def test_one_card_fits_a_query_and_has_the_answer():
    cards, queries, answers = card_rows(200, 4, 3, 5, n_queries=6, generator=seeded())
    assert cards.shape == (200, 4, 3) and queries.shape == (200, 6, 2) and answers.shape == (200, 6)
    assert {x.dtype for x in (cards, queries, answers)} == {torch.int64}
    for row in zip(cards.tolist(), queries.tolist(), answers.tolist()):
        for query, answer in zip(*row[1:]):
            assert answer_by_hand(row[0], query) == [answer]


def test_cards_differ_in_every_attribute_and_their_ids_say_which():
    cards, _, _ = card_rows(500, 5, 3, 5, generator=seeded())
    for a in range(3):
        assert (cards[..., a] // 5 == a).all()
        assert (cards[..., a].sort(1)[0] == 5 * a + torch.arange(5)).all()  # as many as values
    same = (cards[..., 0] == cards[..., 1] - 5).float().mean()
    assert same == pytest.approx(1 / 5, abs=0.05)  # attributes are shuffled on their own


def test_cards_values_and_questions_are_as_likely_as_each_other():
    cards, queries, answers = card_rows(4000, 3, 3, 4, n_queries=2, generator=seeded())
    assert cards.flatten().bincount(minlength=12).sub(3000).abs().max() < 300
    asked = 3 * (queries[..., 0] // 4) + queries[..., 1] - 12
    pairs = asked.flatten().bincount(minlength=9).view(3, 3)
    assert (pairs.diagonal() == 0).all()
    assert pairs.sub(8000 / 6).fill_diagonal_(0).abs().max() < 170
    on_card = (cards == answers[:, :1, None]).any(-1).float().mean(0)
    assert on_card == pytest.approx(1 / 3, abs=0.04)  # no place among the cards is preferred


@pytest.mark.parametrize("n_cards", [0, 17])
def test_more_cards_than_values_and_none_are_refused(n_cards):
    message = f"n_cards must be 1 to n_values, 16, to differ: got {n_cards}"
    with pytest.raises(ValueError, match=message):
        card_rows(2, n_cards=n_cards)


def test_a_card_with_one_attribute_has_nothing_to_ask_for():
    with pytest.raises(ValueError, match=r"n_attributes must be 2 or more, .*: got 1"):
        card_rows(2, n_attributes=1)


def test_after_a_trigger_the_word_before_it_comes_back():
    ids, copied = backcopy_rows(300, bigram_table(7), seq_len=20, n_triggers=2, generator=seeded())
    assert ids.shape == copied.shape == (300, 20)
    assert ids.dtype == torch.int64 and copied.dtype == torch.bool
    for row, back in zip(ids.tolist(), copied.tolist()):
        assert row[0] == 7 and 2 <= row[1] < 7 and set(row[1:]) <= set(range(7))
        assert back[:2] == [False, False]
        for t in range(2, 20):
            assert back[t] == (row[t - 1] < 2)
            assert not back[t] or row[t] == row[t - 2] >= 2  # never two triggers in a row
    assert copied[:, 2:].float().mean() > 0.1


def test_words_that_are_not_copied_follow_the_table_whatever_came_before():
    table = bigram_table(5, seed=3)
    ids, copied = backcopy_rows(4000, table, seq_len=30, n_triggers=1, generator=seeded())
    drawn = ~copied[:, 2:]
    for first in (slice(0, 14), slice(14, 28)):  # early and late alike
        last, word = (x[:, first][drawn[:, first]] for x in (ids[:, 1:-1], ids[:, 2:]))
        counts = (5 * last + word).bincount(minlength=25).view(5, 5).float()
        assert counts[0].sum() == 0  # after the trigger nothing is drawn
        share = counts[1:] / counts[1:].sum(1, keepdim=True)
        assert (share - table[1:]).abs().max() < 0.025


def test_a_table_is_one_distribution_a_word_and_its_seeds():
    state = torch.get_rng_state()
    table = bigram_table(9, seed=1)
    assert table.shape == (9, 9) and (table > 0).all()
    torch.testing.assert_close(table.sum(1), torch.ones(9))
    assert torch.equal(table, bigram_table(9, seed=1))
    assert not torch.equal(table, bigram_table(9, seed=2))
    assert torch.equal(torch.get_rng_state(), state)
    first = torch.randn(9, 9, generator=seeded(1)).exp()
    torch.testing.assert_close(table, first / first.sum(1, keepdim=True))


def test_without_triggers_nothing_is_copied():
    assert not backcopy_rows(5, bigram_table(4), n_triggers=0, generator=seeded())[1].any()


def test_tables_and_triggers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=re.escape("a row for each word: got (3, 4)")):
        backcopy_rows(2, torch.ones(3, 4) / 4)
    with pytest.raises(ValueError, match="n_triggers must be 0 to 3, with 4 words: got 4"):
        backcopy_rows(2, bigram_table(4))
    with pytest.raises(ValueError, match="n_triggers must be 0 to 3, with 4 words: got -1"):
        backcopy_rows(2, bigram_table(4), n_triggers=-1)


@pytest.mark.parametrize(
    "rows",
    [repeated_rows, recall_rows, card_rows, lambda n, **g: backcopy_rows(n, bigram_table(), **g)],
)
def test_rows_are_the_same_for_the_same_seed_and_leave_torch_s_own_alone(rows):
    state = torch.get_rng_state()
    first, again, other = (rows(4, generator=seeded(s))[0] for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("periods", [(0, 4), (5, 4), (4, 33)])
def test_periods_that_cannot_be_are_refused(periods):
    message = re.escape(f"periods must be 1 <= smallest <= largest <= 32: got {periods}")
    with pytest.raises(ValueError, match=message):
        repeated_rows(2, periods=periods)


def test_an_odd_row_of_pairs_is_refused():
    with pytest.raises(ValueError, match="seq_len must be even, a row is made of pairs: got 7"):
        recall_rows(2, seq_len=7)


# ---- The language of known entropy --------------------------------------------------------------


@pytest.fixture(scope="module")
def grammar():
    return Grammar()


def test_the_language_has_70_words_and_every_state_a_distribution(grammar):
    probs, after = grammar.probs, grammar.next
    assert len(set(grammar.words)) == probs.shape[1] == 70 and grammar.words[0] == "."
    assert len(probs) == 731  # 730, and the dead end
    assert torch.allclose(probs[:-1].sum(1), torch.ones(730, dtype=torch.float64))
    assert probs[-1].sum() == 0 and (after[-1] == 730).all()
    assert torch.equal(after == 730, probs == 0)
    assert set(after[:-1].unique().tolist()) == set(range(731))  # every state can be reached
    assert (after[:-1, 0] % 730 == 0).all()  # after "." all begins anew


@pytest.fixture(scope="module")
def floors(grammar):
    return grammar.floors()


def test_the_floors_are_known(grammar, floors):
    floors = {name: round(x, 4) for name, x in floors.items()}
    assert floors == {
        "uniform": 4.2485, "unigram": 3.8249, "bigram": 1.772, "trigram": 1.6866, "exact": 1.4026,
    }  # fmt: skip
    assert round(grammar.rate(), 4) == 1.3759
    assert grammar._exact(1000) == pytest.approx(grammar.rate(), abs=2e-3)


def test_the_true_model_loses_what_the_floor_says(grammar, floors):
    losses = -grammar.log_probs(grammar.sample_rows(20_000, generator=seeded()))
    row = losses.mean(1)
    assert abs(row.mean() - floors["exact"]) < 3.5 * row.std() / 20_000**0.5 < 0.005


def test_counts_of_a_sample_give_the_floors_of_one_and_two_words(grammar, floors):
    ids = grammar.sample_rows(20_000, generator=seeded(1))
    joint = (70 * ids[:, :-1] + ids[:, 1:]).flatten().bincount(minlength=4900).double()
    joint = (joint / joint.sum()).view(70, 70)
    unigram = -torch.xlogy(joint.sum(0), joint.sum(0)).sum()
    bigram = -torch.xlogy(joint, joint).sum() + torch.xlogy(joint.sum(1), joint.sum(1)).sum()
    assert unigram == pytest.approx(floors["unigram"], abs=0.005)
    assert bigram == pytest.approx(floors["bigram"], abs=0.005)


def test_words_are_drawn_as_often_as_the_rules_say(grammar):
    text = grammar.decode(grammar.sample_rows(4000, generator=seeded(2)).flatten().tolist())
    sentences = [s.split() for s in text.split(" . ") if len(s.split()) > 2]
    spoken = [s for s in sentences if s[1] == "says"]
    assert len(spoken) / len(sentences) == pytest.approx(0.5, abs=0.03)
    ends = [s[-1] for s in sentences if "and" in s and len(s) > s.index("and") + 2]
    share = [ends.count(w) / len(ends) for w in ("smiles", "laughs", "leaves")]
    assert share == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=0.02)
    nouns = [text.split().count(w) for w in ("dogs", "cats", "birds", "horses", "rabbits")]
    zipf = [1 / r / (137 / 60) for r in range(1, 6)]
    assert [n / sum(nouns) for n in nouns] == pytest.approx(zipf, abs=0.02)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("the dog sleeps .", True),
        ("the dogs sleep .", True),
        ("two old cats near a lamp behind many stones run slowly .", True),
        ("Anna says ( the cup falls again ) and Anna smiles .", True),
        ("Hugo says [ many birds eat ] and Hugo leaves . a door shines .", True),
        ("the dog sleep .", False),  # number
        ("the dogs near a lamp falls .", False),  # agrees with the nearer noun
        ("the dog near a lamp falls .", False),  # kind of the nearer noun
        ("a dogs sleep .", False),
        ("two dog sleeps .", False),
        ("the old old dog sleeps .", False),
        ("Anna says ( the cup falls ) and Ben smiles .", False),
        ("Anna says ( the cup falls ] and Anna smiles .", False),
        ("Anna says ( the cup falls ) and Anna sleeps .", False),
        ("the dog sleeps", False),
        ("dog sleeps .", False),
        (".", False),
        ("", False),
    ],
)
def test_sentences_that_follow_the_rules_are_told_from_those_that_do_not(grammar, text, good):
    ids = grammar.encode(text)
    assert grammar.is_grammatical(ids) is good
    assert grammar.decode(ids) == text


def test_the_probability_of_a_sentence_is_the_product_of_its_rules(grammar):
    ids = [[0, *grammar.encode("the cat near a cup sleeps . Emma says ( two")]]
    expected = [
        0.25, 0.7 * 0.5 * 0.5 * 12 / 137 * 2.5, 0.35 * 6 / 11, 0.25, 0.7 * 0.5 * 30 / 137,
        0.65 * 12 / 25, 0.7, 1 / 16, 1, 0.5, 0.15,
    ]  # fmt: skip
    assert grammar.log_probs(ids)[0].exp().tolist() == pytest.approx(expected)


def test_after_a_word_that_cannot_follow_nothing_is_possible(grammar):
    rows = [[0, *grammar.encode(text)] for text in ("the the dog .", "the dog sleeps .")]
    lost = grammar.log_probs(rows).isinf().tolist()
    assert lost == [[False, True, True, True], [False] * 4]
    assert grammar.states(rows)[:, -1].tolist() == [730, 0]


def test_sampled_rows_begin_anew_and_are_the_same_for_the_same_seed(grammar):
    state = torch.get_rng_state()
    ids = grammar.sample_rows(50, 30, generator=seeded())
    assert ids.shape == (50, 31) and ids.dtype == torch.int64 and (ids[:, 0] == 0).all()
    assert grammar.log_probs(ids).isfinite().all()
    assert len({tuple(row) for row in ids.tolist()}) == 50
    assert torch.equal(ids, grammar.sample_rows(50, 30, generator=seeded()))
    assert not torch.equal(ids, grammar.sample_rows(50, 30, generator=seeded(1)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("ids", "got"), [([[0, 1], [3, 1]], "[0, 3]"), ([0, 1], "(2,)")])
def test_rows_that_do_not_begin_with_a_full_stop_are_refused(grammar, ids, got):
    with pytest.raises(ValueError, match=re.escape(f'rows that begin with ".", 0: got {got}')):
        grammar.log_probs(ids)
