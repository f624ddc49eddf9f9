"""Experiments in a reduced form, and the tables they left: same columns, at least three seeds."""

import pytest
import torch

import experiments
from experiments import induction, language, positions, read_table
from lib.data import Grammar
from lib.positions import Rope

TABLES = {
    "induction": "kind", "positions": "scheme", "positions_stretched": "extension",
    "language": "kind", "language_curves": "kind", "language_sweep": "kind",
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
