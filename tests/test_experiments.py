"""Experiments in a reduced form, and the tables they left: same columns, at least three seeds."""

from itertools import pairwise

import pytest
import torch

import experiments
from experiments import decode, induction, language, positions, read_table, sharing, sinks
from lib.attention import mask_to_bias
from lib.cache import Cache, SlidingWindowCache
from lib.data import Grammar, card_rows
from lib.positions import NoPosition, Rope
from lib.transformer import share_heads

TABLES = {
    "induction": "kind", "positions": "scheme", "positions_stretched": "extension",
    "language": "kind", "language_curves": "kind", "language_sweep": "kind", "sinks": "kind",
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_says_how_it_was_made_and_has_three_seeds_of_everything(name):
    text = (experiments.RESULTS / f"{name}.csv").read_text(encoding="utf-8")
    assert text.startswith("# python -m experiments.")
    assert f"torch {torch.__version__.split('+')[0]}" in text
    seeds = {}
    for row in read_table(name):
        seeds.setdefault(row[TABLES[name]], set()).add(row["seed"])
    assert all(len(found) >= 3 for found in seeds.values()), seeds


def test_a_table_is_read_back_as_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    rows = [{"kind": "a, b", "seed": 0, "loss": 0.25}, {"kind": "c", "seed": 1, "loss": 1e-05}]
    experiments.write_table("induction", rows, 0.0)
    assert read_table("induction") == rows


def test_a_short_induction_run_gives_the_rows_of_the_table():
    rows = induction.run("2 layers, 2 heads, ALiBi", seed=0, steps=2)
    assert [(row["layer"], row["head"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(rows[0]) == list(read_table("induction")[0])
    assert {row["kind"] for row in read_table("induction")} == set(induction.KINDS)


def test_head_scores_are_one_for_perfect_heads(monkeypatch):
    ids = torch.tensor([[9, 1, 2, 3, 1, 2, 3, 1], [9, 4, 5, 4, 5, 4, 5, 4]])
    previous = torch.eye(8).roll(-1, 1).tril()  # row t reads t - 1
    previous[0, 0] = 1.0
    follows = torch.eye(8).repeat(2, 1, 1)
    for row, period in zip(follows, (3, 2)):
        for t in range(1 + period, 8):
            row[t] = 0.0
            row[t, t - period + 1] = 1.0
    maps = [previous.expand(2, 1, 8, 8), follows[:, None]]  # two layers, one head each
    monkeypatch.setattr(induction, "attention_maps", lambda model, ids: maps)
    first, second = induction.head_scores(None, ids)
    assert first[0, 0] == 1.0
    assert second[1, 0] == 1.0
    assert first[1, 0] < 0.5
    assert second[0, 0] < 0.7  # with a list of two, the token before is the one after the copy


def test_removing_a_head_takes_away_what_it_adds_and_is_undone():
    torch.manual_seed(0)
    model = induction.build(n_layers=1, n_heads=2)
    ids, repeats = induction.held_out(n_rows=4)
    whole = induction.repeat_loss(model, ids, repeats).item()
    layer = model.blocks[0].attention
    heads = []
    layer.wo.register_forward_pre_hook(lambda _, args: heads.append(args[0]))
    without = induction.loss_without(model, 0, [1], ids, repeats)
    assert without != whole
    assert induction.repeat_loss(model, ids, repeats).item() == whole
    induction.remove_head(model, 0, 1)
    kept = layer.wo(heads[0])
    torch.testing.assert_close(kept, heads[0][..., :32] @ layer.wo.weight[:, :32].T)
    assert induction.repeat_loss(model, ids, repeats).item() == pytest.approx(without)


def test_a_short_position_run_gives_the_rows_of_the_tables():
    _, row = positions.run("t5", seed=0, steps=2)
    assert list(row) == list(read_table("positions")[0])
    model, _ = positions.run("rope", seed=0, steps=2)
    rows = positions.stretch(model, seed=0, steps=1)
    assert list(rows[0]) == list(read_table("positions_stretched")[0])
    assert [row["extension"] for row in rows] == list(positions.EXTENSIONS)


def test_a_stretched_model_has_its_frequencies_in_every_layer_and_its_weights_back():
    torch.manual_seed(0)
    model = positions.build("rope")
    slow = Rope(positions.HEAD_DIM, scaling={"kind": "linear", "factor": 4.0})
    positions.set_position(model, slow)
    assert all(block.attention.position is slow for block in model.blocks)


def test_the_probe_asks_for_a_key_that_came_once_near_the_beginning():
    ids = positions.far_rows(128)
    key, value = ids[:, -2:-1], ids[:, -1:]
    assert (ids[:, 8:9] == key).all()
    assert (ids[:, 9:10] == value).all()
    assert not (ids[:, 10:-2:2] == key).any()
    assert not (ids[:, 0:8:2] == key).any()


def test_a_learned_table_repeats_its_last_trained_row():
    torch.manual_seed(0)
    model = positions.build("learned")
    positions.reuse_last_row(model)
    table = model.position.table.weight
    assert (table[positions.TRAINED :] == table[positions.TRAINED - 1]).all()
    assert not torch.equal(table[positions.TRAINED - 2], table[positions.TRAINED - 1])


@pytest.fixture(scope="module")
def grammar():
    return Grammar()


def test_a_short_language_run_gives_the_rows_of_the_tables(grammar):
    row, means = language.run("tied, small", seed=0, steps=20, grammar=grammar)
    assert list(row) == list(read_table("language")[0]) == list(read_table("language_sweep")[0])
    assert len(means) == 2
    assert {r["kind"] for r in read_table("language")} == {"chapter's", "tied, small"}
    assert {r["kind"] for r in read_table("language_sweep")} == set(language.SWEEP)
    assert {r["step"] for r in read_table("language_curves")} == set(range(5, 500, 10))


@pytest.mark.parametrize("kind", language.SWEEP)
def test_models_of_the_sweep_have_the_same_number_of_parameters_within_half_a_percent(kind):
    count = sum(p.numel() for p in language.build(kind).parameters())
    assert count == pytest.approx(106_560, rel=0.005)
    assert all(r["parameters"] == count for r in read_table("language_sweep") if r["kind"] == kind)


def test_the_true_probabilities_have_no_excess_and_uniform_ones_have_theirs(grammar):
    def perfect(ids):
        return grammar.probs[grammar.states(ids)].log()

    beyond, words, true = language.excess(perfect, grammar, n_rows=64)
    assert words.shape == beyond.shape == (64, language.SEQ_LEN)
    torch.testing.assert_close(beyond, torch.zeros_like(beyond), rtol=0, atol=1e-12)
    beyond, _, _ = language.excess(lambda ids: torch.zeros(*ids.shape, 70), grammar, n_rows=64)
    expected = torch.log(torch.tensor(70.0)).double() + true
    torch.testing.assert_close(beyond, expected, check_dtype=False)


def test_the_tied_model_starts_small_and_has_one_map():
    torch.manual_seed(0)
    model = language.build("tied, small")
    assert model.head.weight is model.embedding.weight
    assert model.embedding.weight.std().item() == pytest.approx(0.02, rel=0.05)


# ---- Attention sinks ----------------------------------------------------------------------------


def test_a_short_sink_run_gives_the_row_of_the_table():
    row = sinks.run("RoPE, no mark", seed=0, steps=2)
    assert list(row) == list(read_table("sinks")[0])
    assert {r["kind"] for r in read_table("sinks")} == set(sinks.KINDS)


class Within(NoPosition):
    """A second way to hide tokens: as a bias on the scores, with no cache."""

    def __init__(self, inside, window, first):
        super().__init__()
        self.inside, self.window, self.first = inside, window, first

    def rotate(self, x, positions):
        return self.inside.rotate(x, positions)

    def bias(self, q_positions, k_positions):
        back = q_positions[:, None] - k_positions
        return mask_to_bias((back < self.window) | (k_positions < self.first))


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_losses_through_window_caches_are_those_under_masks(position):
    torch.manual_seed(0)
    model = sinks.build(position, std=0.5)
    ids, _ = sinks.held_out(n_rows=16)
    found = sinks.losses(model, ids)
    layer = model.blocks[0].attention
    inside, expected = layer.position, []
    with torch.no_grad():
        for window, first in ((64, 0), (8, 0), (7, 1)):
            layer.position = Within(inside, window, first)
            expected.append(sinks.loss_on(model, ids).item())
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({round(x, 4) for x in found}) == 3


def test_a_window_that_is_filled_token_by_token_loses_the_same():
    torch.manual_seed(0)
    model = sinks.build(std=0.5)
    ids, _ = sinks.held_out(n_rows=4)
    cache = SlidingWindowCache(7, sinks=1)
    with torch.no_grad():
        steps = [model(ids[:, t : t + 1], caches=[cache]) for t in range(63)]
    right = torch.cat(steps, 1).log_softmax(-1).gather(2, ids[:, 1:, None])
    assert -right.mean().item() == pytest.approx(sinks.losses(model, ids)[2], abs=1e-5)


def test_the_true_loss_is_that_of_the_table_and_the_rule():
    ids = torch.tensor([[24, 7, 0, 7, 9]])  # mark, word, trigger, word again, word
    copied = torch.tensor([[False, False, False, True, False]])
    table = sinks.TABLE
    by_hand = -torch.stack((torch.tensor(1 / 20), table[7, 0], table[7, 9])).log().sum() / 4
    assert sinks.true_loss(ids, copied) == pytest.approx(by_hand.item(), abs=1e-6)
    by_hand = -torch.stack((table[7, 0], table[7, 9])).log().sum() / 3
    assert sinks.true_loss(ids[:, 1:], copied[:, 1:]) == pytest.approx(by_hand.item(), abs=1e-6)


@pytest.mark.parametrize("mark", [True, False])
def test_no_trained_model_is_better_than_the_truth(mark):
    ids, copied = sinks.held_out(mark)
    assert ids.shape[1] == 63 + mark and (ids[:, 0] == 24).all() == mark
    floor = sinks.true_loss(ids, copied)
    for row in read_table("sinks"):
        if row["kind"].endswith("no mark") != mark:
            assert row["floor"] == pytest.approx(floor, abs=1e-4)
            assert floor < row["full"] < floor + 0.1


def test_a_sink_is_measured_where_the_window_has_lost_the_first_token(monkeypatch):
    weights = torch.zeros(1, 12, 12)
    weights[0, :, 0] = 0.75
    weights[0, :8, 0] = 9.0  # these queries still see token 0 within the last 8
    weights[0, 10, 0] = 0.25  # the one trigger
    lengths = torch.full((1, 12), 4.0)
    lengths[0, 0] = 1.0
    copied = torch.zeros(1, 13, dtype=torch.bool)
    copied[0, 11] = True  # the word after it
    monkeypatch.setattr(sinks, "look", lambda model, ids: (weights, lengths))
    assert sinks.sink(None, torch.zeros(1, 13), copied) == (0.75, 0.25, 0.25)


def test_look_returns_the_weights_and_lengths_that_were_used_and_leaves_no_hook():
    torch.manual_seed(0)
    model = sinks.build(std=0.5)
    ids, _ = sinks.held_out(n_rows=3)
    weights, lengths = sinks.look(model, ids)
    layer, block = model.blocks[0].attention, model.blocks[0]
    assert not layer._forward_pre_hooks
    x = block.attention_norm(model.position.embed(model.embedding(ids), torch.arange(64)))
    v = layer.wv(x)
    torch.testing.assert_close(lengths, v.square().sum(-1).sqrt())
    torch.testing.assert_close(layer.wo(weights @ v), layer(x))


def test_a_small_start_is_small_and_a_larger_one_is_the_models_own():
    torch.manual_seed(0)
    stds = [sinks.build(std=std).blocks[0].attention.wq.weight.std().item() for std in (0.02, None)]
    assert stds == pytest.approx([0.02, 32**-0.5], rel=0.1)


def test_the_table_of_sinks_says_what_the_chapter_says():
    rows = [row for row in read_table("sinks") if row["kind"] == "learned"]
    assert len(rows) >= 5
    for row in rows:
        assert row["on token 0"] > 0.5 > 0.05 > row["on token 0 at triggers"]
        assert row["length of value 0"] < 0.5
        assert row["window"] - row["full"] > 10 * abs(row["first and window"] - row["full"])


# ---- Sharing heads ------------------------------------------------------------------------------

CELL = ("comparison", "kind", "n_heads", "head_dim", "d_ff", "steps")


def recall_cells():
    """Seeds by everything else that tells one kind of model from another."""
    cells = {}
    for row in read_table("recall"):
        cells.setdefault(tuple(row[name] for name in CELL), []).append(row)
    return cells


def test_the_recall_table_has_the_same_seeds_of_every_variant_and_right_sizes():
    cells = recall_cells()
    assert len(cells) == len(sharing.variants())
    for comparison, kind, sizes, steps in sharing.variants():
        model = sharing.build(**sizes)
        c = model.model.config
        rows = cells[comparison, kind, c.n_heads, c.head_dim, c.d_ff, steps]
        assert len({row["seed"] for row in rows}) == len(rows) >= 3
        assert {row["parameters"] for row in rows} == {sharing.count(model)}
        assert {row["cache"] for row in rows} == {sharing.cache_per_token(c)}


def test_the_table_of_recall_says_what_the_chapters_say():
    found = {cell[:4]: [row["accuracy"] for row in rows] for cell, rows in recall_cells().items()}
    narrow = [found["as is", kind, 8, 8] for kind in ("MHA", "GQA-4", "GQA-2", "MQA")]
    for more, fewer in pairwise(narrow):
        assert min(more) > max(fewer)  # beyond the spread
    assert min(found["as is", "MQA", 8, 16]) > max(found["equal cache", "MHA", 2, 8])  # 32 numbers
    assert min(found["as is", "MLA-16", 8, 8]) > max(found["as is", "MQA", 8, 8])  # 16
    assert max(found["equal parameters", "GQA-2", 8, 8]) < min(found["as is", "GQA-4", 8, 8])


def test_a_short_recall_run_gives_the_row_of_the_table():
    row = sharing.run("MLA-16", {"latent": 16}, seed=0, steps=2)
    assert ["comparison", *row] == list(read_table("recall")[0])


@pytest.mark.parametrize(
    "sizes", [{}, {"n_kv_heads": 2}, {"n_kv_heads": 1, "head_dim": 16}, {"latent": 16}]
)
def test_cache_per_token_is_what_a_cache_holds(sizes):
    model = sharing.build(**sizes)
    cache = Cache(max_seq_len=1)
    model.model.blocks[0](torch.randn(1, 1, 64), cache=cache)
    assert sharing.cache_per_token(model.model.config) == cache.nbytes // 4
    if "latent" in sizes:
        assert cache.nbytes // 4 == sizes["latent"]  # the rotary key is paid for


def test_equal_parameters_are_equal_within_a_tenth_of_a_percent():
    whole = sharing.count(sharing.build())
    equal = [sizes for name, _, sizes, _ in sharing.variants() if name == "equal parameters"]
    assert len(equal) == 3
    for sizes in equal:
        assert sharing.count(sharing.build(**sizes)) == pytest.approx(whole, rel=1e-3)


def test_a_reader_sees_the_sum_of_a_cards_values_and_earlier_tokens_only():
    torch.manual_seed(0)
    model = sharing.build()
    cards, queries, _ = card_rows(2, **sharing.CARDS, generator=torch.Generator().manual_seed(0))
    logits = model(cards, queries)
    assert logits.shape == (2, 16, 4 * 17)
    torch.testing.assert_close(model(cards.flip(2), queries), logits)  # a sum has no order
    torch.testing.assert_close(model(cards.flip(1), queries), logits)  # nor have cards: no position
    torch.testing.assert_close(model(cards, queries[:, :5]), logits[:, :5])
    assert not torch.allclose(model(cards.roll(1, 0), queries), logits)


def test_who_looks_cards_up_is_always_right_and_who_guesses_a_card_is_not():
    class LookUp(torch.nn.Module):
        def forward(self, cards, queries):
            N = sharing.CARDS["n_values"]
            fits = (cards[:, None] == queries[:, :, :1, None]).any(-1)  # (B, Q, N)
            on_it = torch.nn.functional.one_hot(cards, 4 * (N + 1)).sum(2)  # (B, N, V)
            asked = torch.arange(4 * (N + 1)) // N == queries[..., 1:] - 4 * N  # (B, Q, V)
            return (self.weigh(fits).double() @ on_it.double()) * asked

        def weigh(self, fits):
            return fits

    class Guess(LookUp):
        def weigh(self, fits):
            return torch.ones_like(fits)

    assert sharing.accuracy(LookUp()) == 1.0
    assert sharing.accuracy(Guess()) == pytest.approx(1 / 8, abs=0.02)


def test_a_short_conversion_gives_the_rows_of_the_table():
    rows = sharing.convert(seed=0, steps=1, marks=(0, 2))
    table = read_table("conversion")
    assert list(rows[0]) == list(table[0])
    assert {(r["kv_heads"], r["start"]) for r in rows} == {
        (r["kv_heads"], r["start"]) for r in table
    }
    seeds = {}
    for row in table:
        seeds.setdefault((row["kv_heads"], row["start"], row["steps"]), []).append(row["seed"])
    assert len(seeds) == 1 + 2 * (4 * 5 + 1)
    assert all(
        sorted(found) == list(range(len(found))) and len(found) >= 3 for found in seeds.values()
    )


def test_starts_come_from_the_trained_model_and_a_new_one_does_not(monkeypatch):
    seen = []

    def keep(model, seed, marks):
        seen.append((model.config.n_kv_heads, model.embedding.weight))
        return {}

    monkeypatch.setattr(sharing, "uptrain", keep)
    sharing.convert(seed=0, steps=1)
    assert [K for K, _ in seen] == [2] * 4 + [1] * 4
    trained = seen[0][1]
    same = [torch.equal(weight, trained) for _, weight in seen]
    assert same == [True, True, True, False] * 2


def test_ways_to_start_keep_one_head_or_make_new_ones_of_the_right_size():
    w = torch.randn(2, 3, 40, 400)
    assert torch.equal(sharing.first_of(w), w[:, 0])
    new = sharing.at_random(w)
    assert new.shape == (2, 40, 400)
    assert new.std().item() == pytest.approx(0.05, rel=0.02)
    assert not torch.allclose(new[0], new[1])


def test_scores_are_those_of_a_perfect_and_of_an_ignorant_model():
    def perfect(ids):
        logits = torch.zeros(*ids.shape, 24)
        return logits.scatter(2, ids.roll(-1, 1)[..., None], 50.0)

    assert sharing.score(perfect) == {"loss": 0.0, "accuracy": 1.0}
    ignorant = sharing.score(lambda ids: torch.zeros(*ids.shape, 24))
    assert ignorant == {"loss": 3.178, "accuracy": 0.0}  # log 24, and a key is the first of equals


def test_uptraining_looks_before_and_after_and_changes_the_model_in_place():
    torch.manual_seed(0)
    model = sharing.build_recall()
    half = share_heads(model, 2)
    before = half.blocks[0].attention.wk.weight.clone()
    scores = sharing.uptrain(half, seed=0, marks=(0, 1, 3))
    assert list(scores) == [0, 1, 3]
    assert scores[3] == sharing.score(half) != scores[0]
    assert not torch.equal(half.blocks[0].attention.wk.weight, before)
    assert scores[0] == sharing.score(share_heads(model, 2))  # the model given has not learned


def test_a_model_with_fewer_heads_is_built_with_the_shapes_of_a_shared_one():
    shared = share_heads(sharing.build_recall(), 2).state_dict()
    built = sharing.build_recall(2).state_dict()
    assert {n: p.shape for n, p in shared.items()} == {n: p.shape for n, p in built.items()}


# ---- Decoding with shared heads -----------------------------------------------------------------


def test_a_short_decode_run_gives_the_rows_of_the_table():
    rows = decode.measure(1, 16, rounds=1, ways=decode.SHARED + decode.LATENT)
    table = read_table("decode")
    assert ["run", *rows[0]] == list(table[0])
    assert all(time == "" or time > 0 for row in rows for time in list(row.values())[4:])
    for batch, context in decode.grid():
        cell = [r for r in table if (r["batch"], r["context"]) == (batch, context)]
        assert {(r["variant"], r["way"]) for r in cell} >= set(decode.SHARED)
        assert len({r["run"] for r in cell}) >= 3
    header = (experiments.RESULTS / "decode.csv").read_text(encoding="utf-8").splitlines()[2]
    assert header.startswith("# one thread of ")
    assert decode.processor().startswith("one thread of ")


@pytest.mark.parametrize("way", ["repeated", "expanded", "enable_gqa"])
@pytest.mark.parametrize("variant", list(decode.KV_HEADS))
def test_another_way_to_share_changes_nothing_but_the_time(variant, way):
    blocks = [decode.build(variant, way) for way in ("grouped", way)]
    blocks[1].load_state_dict(blocks[0].state_dict())
    caches, x = [Cache(5), Cache(5)], torch.randn(2, 5, decode.D_MODEL)
    for part in (x[:, :4], x[:, 4:]):  # the last is a single new token, as it is timed
        with torch.no_grad():
            ours, theirs = (block(part, cache=cache) for block, cache in zip(blocks, caches))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert caches[0].nbytes == caches[1].nbytes


@pytest.mark.parametrize(("variant", "way"), decode.SHARED + decode.OTHERS + decode.LATENT)
def test_every_timed_step_has_the_same_context_however_often_it_is_taken(variant, way, monkeypatch):
    caches = []
    monkeypatch.setattr(decode, "Cache", lambda n: caches.append(Cache(n)) or caches[-1])
    for function in decode.step(variant, way, batch=2, context=7):
        for _ in range(2 * (function is not None)):
            function()
            assert caches[0].length == 7
    heads = decode.KV_HEADS.get(variant)
    numbers = decode.LATENT_ROW if heads is None else 2 * heads * decode.HEAD_DIM
    assert caches[0].nbytes == 2 * 7 * numbers * 4  # batch, tokens, bytes
