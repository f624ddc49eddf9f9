"""Every exercise: its stub, solution, other right answers, known mistakes, and garbage."""

import itertools
import json
import random
import re
import time
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from lib import checks
from lib.checks import EXERCISES
from lib.checks.compare import different_form, same, where_they_differ
from lib.checks.framework import Choice, Exercise, exercise, kind_of, to_numpy
from lib.checks.record import load

ALL = pytest.mark.parametrize("ex", EXERCISES.values(), ids=EXERCISES.keys())
RIGHTS = [(ex, right) for ex in EXERCISES.values() for right in ex.rights]
MISTAKES = [(ex, m, f) for ex in EXERCISES.values() for m, f in ex.mistakes]


def named(pairs):
    return [f"{ex.key}-{function.__name__}" for ex, *_, function in pairs]


def arguments(ex):
    return ", ".join(ex.solve.__code__.co_varnames[: ex.solve.__code__.co_argcount])


@pytest.fixture(autouse=True)
def soon(request, monkeypatch):
    """Endless loops need not run for the whole five seconds here; a busy machine needs some."""
    monkeypatch.setattr(Exercise, "seconds", 0.5 if "garbage" in request.node.name else 2.0)


@ALL
def test_a_stub_is_not_attempted(ex):
    for body in ("...", "pass", "return None", "return ...", '"""Says what."""\n    ...',
                 "raise NotImplementedError"):  # fmt: skip
        space = {}
        exec(f"def {ex.name}({arguments(ex)}):\n    {body}\n", space)
        assert ex(space[ex.name]).status == "not attempted"
    assert ex(...).status == "not attempted"


@ALL
def test_the_solution_runs_by_itself_and_passes(ex):
    space = {}
    exec(ex.solution(), space)
    assert ex(space[ex.name]).status == "passed", ex(space[ex.name]).message


@ALL
def test_a_solution_shows_nothing_of_the_check(ex):
    assert "import exercise" not in ex.solution()
    assert ex.cases.__name__ not in ex.solution()


@ALL
def test_an_exercise_is_complete(ex):
    assert ex.difficulty in ("easy", "medium", "hard")
    assert 1 <= ex.minutes <= 40
    assert ex.title
    assert len(ex.hints) >= 2 or isinstance(ex, Choice)
    if not isinstance(ex, Choice):
        assert ex.rights, "another style must be tried"
        assert len(ex.mistakes) >= 3
        messages = [message for message, _ in ex.mistakes]
        assert len(set(messages)) == len(messages)


@pytest.mark.parametrize(("ex", "right"), RIGHTS, ids=named(RIGHTS))
def test_a_right_answer_in_another_style_passes(ex, right):
    assert ex(right).status == "passed", ex(right).message


@pytest.mark.parametrize(("ex", "message", "mistake"), MISTAKES, ids=named(MISTAKES))
def test_a_known_mistake_fails_with_its_own_message(ex, message, mistake):
    verdict = ex(mistake)
    assert verdict.status == "failed"
    assert verdict.message == message


@pytest.mark.parametrize("n", range(8))
@pytest.mark.parametrize("what", ["row", "feature", "start"])
def test_what_a_comparison_of_two_orders_leaves_out_is_noticed(what, n):
    def answer(naive, absorbed, x):
        for t in range(1, len(x) + 1):
            pair = naive(x[:t]), absorbed(x[:t])
            axis = ["row", "feature", "start"].index(what)
            if axis < 2 and n < pair[0].shape[axis]:
                pair = [np.delete(y, n, axis) for y in pair]
            if not np.allclose(*pair) and (what, n) != ("start", t):
                return False
        return True

    left_out = n in {"row": range(7), "feature": range(4), "start": range(1, 8)}[what]
    verdict = EXERCISES["mla.naive_equals_absorbed"](answer)
    assert verdict.status == ("failed" if left_out else "passed")


@pytest.mark.parametrize(
    ("close", "words"),
    [
        (lambda p, q: np.allclose(p, q, rtol=1e-3), "A fault of 3e-4 passes"),
        (lambda p, q: np.allclose(p, q, atol=1e-3), "A fault of 3e-4 passes"),
        (lambda p, q: np.linalg.norm(p - q) < 1e-3, "A fault of 3e-4 passes"),
        (lambda p, q: np.abs(p - q).mean() < 1e-4, "A fault of 3e-4 passes"),
        (lambda p, q: np.abs((p - q) / p).max() < 1e-3, "A fault of 3e-4 passes"),
        (lambda p, q: (p.round(3) == q.round(3)).all(), "A fault of 3e-4 passes"),
        (lambda p, q: np.allclose(p, q, rtol=0.01, atol=0.01), "A fault of 5e-3 or more passes"),
        (lambda p, q: np.abs(p - q).max() < 1e-15, "rounding alone"),
        (lambda p, q: np.linalg.norm(p - q) < 1e-6, "Right on all"),
    ],
)
def test_how_closely_two_orders_are_compared_is_told(close, words):
    def answer(naive, absorbed, x):
        return all(close(naive(x[:t]), absorbed(x[:t])) for t in range(1, len(x) + 1))

    assert words in EXERCISES["mla.naive_equals_absorbed"](answer).message


@pytest.mark.parametrize(
    ("close", "words"),
    [
        (np.array_equal, "compared exactly"),
        (lambda p, q: np.allclose(p, q, atol=1e-2), "differ by 1e-3 were taken for equal"),
        (lambda p, q: np.allclose(p, q, rtol=1e-3), "differ by 1e-3 were taken for equal"),
        (lambda p, q: np.linalg.norm(p - q) < 1e-3, "differ by 1e-3 were taken for equal"),
        (lambda p, q: (p.round(3) == q.round(3)).all(), "differ by 1e-3 were taken for equal"),
        (np.allclose, "Right on all"),
        (lambda p, q: np.abs(p - q).max() < 1e-12, "Right on all"),
    ],
)
def test_how_closely_heads_are_compared_is_told(close, words):
    def answer(wk, wv, H):
        heads = np.concatenate([w.reshape(H, -1) for w in (wk, wv)], axis=1)
        for K in range(1, H + 1):
            if H % K == 0 and all(close(heads[h], heads[h - h % (H // K)]) for h in range(H)):
                return K

    assert words in EXERCISES["mqa_gqa.fewest_kv_heads"](answer).message


@pytest.mark.parametrize("axis", [0, 1, 2, 3, (1, 2), (2, 3), (2, 4), (3, 4), (1, 2, 3), (2, 3, 4)])
def test_a_softmax_over_another_axis_is_told_that_weights_sum_to_1_over_the_keys(axis):
    def answer(q, k, v):
        (B, H, T, D), K = q.shape, k.shape[1]
        scores = np.einsum("bkgtd,bksd->bkgts", q.reshape(B, K, H // K, T, D), k) / np.sqrt(D)
        weights = np.exp(scores) / np.exp(scores).sum(axis=axis, keepdims=True)
        return np.einsum("bkgts,bksd->bkgtd", weights, v).reshape(B, H, T, D)

    assert "sum to 1 over the" in EXERCISES["mqa_gqa.grouped_attention"](answer).message


def spin(*_):
    while True:
        pass


def leave(*_):
    raise SystemExit


def stumble(*_):
    raise RuntimeError("something in here")


def dive(*args):
    return dive(*args)


# It may overflow in a callback of the garbage collector, of which pytest can only be told.
IN_CALLBACKS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
GARBAGE = {
    "None": None,
    "a number": 3,
    "a list": [1, 2],
    "a class": dict,
    "a module": np,
    "nothing returned": lambda *_: print(end=""),
    "the wrong shape": lambda *_: np.zeros((1, 2, 3, 4, 5, 6)),
    "NaN": lambda *_: float("nan"),
    "text": lambda *_: "hello",
    "an exception": stumble,
    "SystemExit": leave,
    "endless recursion": pytest.param(dive, marks=IN_CALLBACKS),
    "an object": lambda *_: object(),
    "an endless generator": lambda *_: itertools.count(),
    "an endless loop": spin,
}


@ALL
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_gets_a_calm_verdict(ex, garbage):
    start = time.perf_counter()
    verdict = ex(garbage)
    assert time.perf_counter() - start < 5
    assert verdict.status == "failed"
    assert verdict.message not in {message for message, _ in ex.mistakes}
    assert "Traceback" not in repr(verdict)


@ALL
def test_hints_come_one_at_a_time_and_then_point_to_the_solution(ex):
    ex._hints_given = 0
    for number, text in enumerate(ex.hints, 1):
        assert ex.hint() == f"Hint {number} of {len(ex.hints)}: {text}"
    assert f"checks.{ex.key}.solution()" in ex.hint()


# the framework itself, on an exercise made for the purpose


def pairs():
    return [(np.array([[1.0, 2.0, 4.0], [3.0, 5.0, 6.0]]),), (np.arange(6.0).reshape(3, 2),)]


@exercise(title="Row sums", difficulty="easy", minutes=1, cases=pairs, axes="T")
def row_sums(x):
    return x.sum(axis=1)


@row_sums.wrong("You summed the columns.")
def column_sums(x):
    return x.sum(axis=0)


@row_sums.property("The sums should add up to the whole.")
def adds_up(out, x):
    return np.isclose(out.sum(), x.sum())


def in_place(x):
    x *= 2
    return x.sum(axis=1) / 2


def wavering(x, calls=itertools.count()):  # noqa: B008
    return x.sum(axis=1) + next(calls)


def nearly(x):
    out = x.sum(axis=1)
    out[-1] += 0.5
    out[0] -= 0.5
    return out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x, r"Expected shape \(T\) = \(2,\), got \(2, 3\)"),
        (lambda x, y: x, r"1 arguments, row_sums\(x\); yours is \(x, y\)"),
        (in_place, "changes its input"),
        (wavering, "gave two answers"),
        (lambda x: x.sum(axis=1) + 1, "should add up to the whole"),
        (nearly, r"2 of 2 numbers differ; the first at \(T=0\): expected 7, yours 6.5"),
        (lambda x: x.sum(axis=1) * np.nan, "There is a NaN in your answer at"),
        (lambda x: x.sum(axis=7), "raised AxisError: axis 7 is out of bounds"),
        (lambda x: {"a": 1}, r"Expected an array of shape \(2,\), got a dict"),
        (row_sums.solve(np.ones((1, 1))), "takes the function itself"),
    ],
)
def test_an_unknown_mistake_is_told_what_was_seen_and_expected(answer, words):
    verdict = row_sums(answer)
    assert verdict.status == "failed"
    assert re.search(words, verdict.message), verdict.message


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: [sum(row) for row in x],
        lambda x: tuple(float(sum(row)) for row in x),
        lambda x: torch.einsum("tc->t", x),
        lambda x: torch.as_tensor(x).float().sum(1),
        lambda x: np.float32(1) * x.sum(1),
    ],
)
def test_lists_tensors_and_other_widths_of_float_are_right_answers(answer):
    assert row_sums(answer).status == "passed", row_sums(answer).message


def test_the_traceback_is_kept_for_who_asks():
    assert "something in here" in row_sums(stumble).traceback
    assert "stumble" in row_sums(stumble).traceback


def test_inputs_are_of_the_kind_that_the_answer_is_written_for():
    assert kind_of(lambda x: torch.sum(x)) == "torch"
    assert kind_of(lambda x: np.sum(x)) == "numpy"
    assert to_numpy([torch.ones(1), (torch.zeros(2, dtype=torch.bfloat16),)])[1][0].dtype == "f4"


def test_a_mistake_that_raises_is_known_in_torch_too():
    verdict = EXERCISES["warm_up.center_rows"](lambda x: x - torch.mean(x, dim=1))
    assert "`keepdims=True` gives (T, 1)" in verdict.message


@pytest.mark.parametrize(
    ("scores", "output", "words"),
    [
        ("bhtd,bhsd->bhts", "bhtd,bhsd->bhts", "That is MHA"),
        ("bkgtd,bksd->bkgts", "bkgts,bktd->bkgtd", "v runs over s: `bksd`"),
        ("bkgtd,bktd->bkgts", "bkgts,bksd->bkgtd", "k runs over s: `bksd`"),
        ("bkgtd,bksd->bkgts", "bksd,bkgts->bkgtd", "Keys and values come first"),
        ("bkgtd,bkgsd->bkgts", "bkgts,bksd->bkgtd", "k (B, K, S, D) has 4 axes; letters given: 5"),
        ("bgktd,bksd->bgkts", "bkgts,bksd->bkgtd", "K has the letter of G"),
        ("bkgtd,bksd->bkgtz", "bkgts,bksd->bkgtd", "a letter that no input has"),
        ("bkgtd,bksd->bkgtt", "bkgts,bksd->bkgtd", "a letter twice"),
        ("bkgtd bksd->bkgts", "bkgts,bksd->bkgtd", "one comma"),
        ("bkgtd,bksd->bkgts", "bkgts,bkvd->bkgtd", "the same letter in both?"),
    ],
)
def test_an_equation_that_does_not_fit_is_told_which_axis(scores, output, words):
    verdict = EXERCISES["mqa_gqa.grouped_einsum"](lambda s: scores if s == "scores" else output)
    assert verdict.status == "failed"
    assert words in verdict.message


def test_a_place_without_named_axes_is_told_in_numbers():
    said = where_they_differ(np.zeros((2, 3)), np.eye(2, 3), [], 1e-5)
    assert "2 of 6 numbers differ; the first at (0, 0): expected 0, yours 1." in said


def test_a_check_works_in_another_thread_where_there_is_no_alarm():
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(row_sums, lambda x: x.sum(1)).result().status == "passed"
        verdict = pool.submit(row_sums, spin).result(timeout=20)
    assert "out of time" in verdict.message


def test_what_an_answer_prints_is_shown_once(capsys):
    row_sums(lambda x: print("hello") or x.sum(1))
    assert capsys.readouterr().out == "hello\n"


def counts():
    return [({"a": 1, "b": 2},), ({"a": 3},)]


@exercise(title="Turn a dict around", difficulty="easy", minutes=1, cases=counts)
def in_pairs(d):
    return {(key, n): n for key, n in d.items()}


@pytest.mark.parametrize(
    "answer",
    [
        lambda d: Counter(in_pairs.solve(d)),
        lambda d: defaultdict(int, in_pairs.solve(d)),
        lambda d: OrderedDict(reversed(in_pairs.solve(d).items())),
        lambda d: {(key, n): np.int64(n) for key, n in d.items()},
    ],
)
def test_a_counter_in_any_order_is_as_good_as_a_dict(answer):
    assert in_pairs(answer).status == "passed", in_pairs(answer).message


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda d: list(in_pairs.solve(d).items()), "Expected a dict of length 2, got a list"),
        (lambda d: {("a", 1): 1}, r"\('b', 2\) is missing: expected 2 for it"),
        (lambda d: {**in_pairs.solve(d), "c": 0}, "'c' should not be there; yours gives it 0"),
        (lambda d: dict.fromkeys(in_pairs.solve(d), 1), r"For \('b', 2\) expected 2, got 1"),
        (lambda d: d.clear() or {}, "changes its input"),
    ],
)
def test_a_dict_is_told_which_key_is_wrong(answer, words):
    assert re.search(words, in_pairs(answer).message), in_pairs(answer).message


@pytest.mark.parametrize(
    ("expected", "got", "words"),
    [
        (["a", "b"], ["a"], "Expected ['a', 'b'], got ['a']."),
        (["a", "b"], "ab", "Expected a list of length 2, got the text 'ab'."),
        ("ab", b"ab", "Expected the text 'ab', got the bytes b'ab'."),
        (["a"] * 50, ["a"] * 49 + ["b"], "50 items, got 50; at [49] expected 'a', yours 'b'."),
        (["a"] * 50, ["a"] * 49, "50 items, got 49; at [49] expected 'a', yours no more."),
        ([("a", "b")], (["a", "b"],), ""),
        ("ab", np.str_("ab"), ""),
    ],
)
def test_texts_and_lists_are_compared_item_by_item(expected, got, words):
    said = ""
    if not same(expected, got, 1e-5):
        said = different_form(expected, got, []) or where_they_differ(expected, got, [], 1e-5)
    assert words in said
    assert bool(words) == bool(said)


def test_an_iterator_is_asked_to_become_a_list():
    assert (
        "something of type map, whose items come only once"
        in in_pairs(lambda d: map(str, d)).message
    )


def not_a_divisor(out, n):
    return (
        "" if isinstance(out, int) and 1 < out < n and n % out == 0 else f"{out} does not divide."
    )


@exercise(
    title="Any divisor",
    difficulty="easy",
    minutes=1,
    cases=lambda: [(12,), (35,), (30,)],
    judge=not_a_divisor,
)
def divisor(n):
    return next(d for d in range(2, n) if n % d == 0)


@divisor.wrong("Only even numbers were tried.")
def even_divisor(n):
    return next((d for d in range(2, n, 2) if n % d == 0), 2)


def test_where_many_outputs_are_right_the_judge_decides():
    assert divisor(lambda n: n // divisor.solve(n)).status == "passed"
    assert (
        divisor(lambda n: random.choice([d for d in range(2, n) if n % d == 0])).status == "passed"
    )
    assert "35 does not divide." in divisor(lambda n: 35).message
    assert divisor(lambda n: {12: 6, 35: 2, 30: 10}[n]).message == "Only even numbers were tried."


@exercise(
    title="A letter",
    difficulty="easy",
    minutes=1,
    options={"a": "No: that is the other way round.", "b": "Yes."},
)
def letter():
    return "b"


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ("b", "passed", "Yes."),
        (" (B) ", "passed", "Yes."),
        (lambda: "b", "passed", "Yes."),
        ("a", "failed", "other way round"),
        ("c", "failed", "one letter of a, b"),
        (None, "failed", "one letter of a, b; got None"),
        (spin, "failed", "one letter"),
        (..., "not attempted", "in place of"),
        (lambda: ..., "not attempted", "in place of"),
    ],
)
def test_each_letter_gets_its_own_explanation(answer, status, words):
    verdict = letter(answer)
    assert verdict.status == status
    assert words in verdict.message


# what is remembered


@pytest.fixture
def kept(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "progress.json"
    monkeypatch.setenv("BYTES_TO_LATENTS_PROGRESS", str(path))
    return path


def test_progress_is_remembered_and_a_pass_stays(kept):
    row_sums(column_sums)
    row_sums(column_sums)
    key = row_sums.key
    assert load()[key]["status"] == "failed"
    assert load()[key]["tries"] == 2
    row_sums(row_sums.solve)
    row_sums(column_sums)
    assert load()[key]["status"] == "passed"
    assert load()[key]["tries"] == 3


def test_a_stub_leaves_no_trace(kept):
    row_sums(...)
    assert not kept.exists()


def test_progress_shows_what_is_passed_and_what_is_left(kept):
    ex = EXERCISES["warm_up.center_rows"]
    ex(ex.solve)
    shown = repr(checks.progress("warm_up"))
    assert "1 of 4 exercises passed" in shown
    assert "✓ warm_up.center_rows" in shown
    assert "· warm_up.mean_bits" in shown
    assert "✓" in checks.progress()._repr_html_()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"warm_up.center_rows": 3}'])
def test_a_damaged_progress_file_does_no_harm(kept, text):
    kept.parent.mkdir()
    kept.write_text(text)
    ex = EXERCISES["warm_up.center_rows"]
    assert "0 of 4" in repr(checks.progress("warm_up"))
    assert ex(ex.solve).status == "passed"
    assert json.loads(kept.read_text())[ex.key]["status"] == "passed"


def test_a_place_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BYTES_TO_LATENTS_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert row_sums(row_sums.solve).status == "passed"


def test_progress_of_a_chapter_that_is_not_there_names_those_that_are():
    with pytest.raises(ValueError, match="no chapter named 'warm': there are warm_up"):
        checks.progress("warm")


# how a verdict shows itself


def test_a_verdict_reads_well_in_a_terminal_and_on_the_page():
    verdict = row_sums(column_sums)
    assert repr(verdict) == "✗ not yet · test_checks.row_sums\nYou summed the columns."
    assert "You summed the columns." in verdict._repr_html_()


def test_a_live_verdict_gives_hints_by_button_and_folds_the_solution():
    import ipywidgets

    ex = EXERCISES["warm_up.center_rows"]
    ex._hints_given = 0
    model = ex(...)._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]["model_id"]
    box = ipywidgets.widgets.widget._instances[model]
    _, button, hints, fold = box.children
    assert fold.selected_index is None
    assert "keepdims" in fold.children[0].value
    button.click()
    assert ex.hints[0] in hints.value
    button.click()
    assert "Hint 2" in hints.value


def test_a_passed_verdict_needs_no_hints():
    ex = EXERCISES["warm_up.center_rows"]
    assert "Hint" not in ex(ex.solve)._repr_html_()
    assert "application/vnd.jupyter.widget-view+json" not in ex(ex.solve)._repr_mimebundle_()
