import pytest

from lib import data
from lib.data import load_text, zipf_text
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
