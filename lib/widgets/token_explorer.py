"""Type any text and see its tokens, ids, bytes and merges, computed in the page."""

import itertools

import traitlets

from lib.tokenizer import GPT2_PATTERN, GPT4_PATTERN, BPETokenizer
from lib.widgets.piece import HERE, Piece, module

PATTERNS = {GPT2_PATTERN: "gpt2", GPT4_PATTERN: "gpt4"}  # those that bpe.js has, too


class TokenExplorer(Piece):
    """A text and all that encoding needs; `token_explorer(...)` makes one.

    `merges` is "left right left right ..." in ids, `made` the ids they make as runs [first, how
    many], `byte_ids` the ids of bytes 0 to 255. With a kernel, `text` is what the reader typed.
    """

    _esm = module("bpe") + module("token_explorer")
    _css = Piece._css + (HERE / "token_explorer.css").read_text(encoding="utf-8")
    text = traitlets.Unicode().tag(sync=True)
    pattern = traitlets.Unicode().tag(sync=True)
    special = traitlets.List(traitlets.Unicode()).tag(sync=True)
    byte_ids = traitlets.List(traitlets.Int()).tag(sync=True)
    made = traitlets.List(traitlets.List(traitlets.Int())).tag(sync=True)
    merges = traitlets.Unicode().tag(sync=True)


def token_explorer(tokenizer: BPETokenizer, *, text: str, alt: str) -> TokenExplorer:
    """A box to type into, filled with `text`, and under it what `tokenizer` makes of it.

    The page encodes by itself, with the same ids as `tokenizer`; special tokens are plain text.

    >>> tokenizer = BPETokenizer.train("low low low lower lowest", 259)
    >>> token_explorer(tokenizer, text="lowly", alt="lowly in tokens").merges
    '75 78 256 86 220 257'

    Raises:
        TypeError: no `BPETokenizer`.
        ValueError: a split pattern that is neither GPT-2's nor GPT-4's, or half a surrogate pair.
    """
    if not isinstance(tokenizer, BPETokenizer):
        raise TypeError(f"token_explorer shows a BPETokenizer, not a {type(tokenizer).__name__}")
    if tokenizer.pattern not in PATTERNS:
        raise ValueError(f"the page knows GPT2_PATTERN and GPT4_PATTERN, not {tokenizer.pattern!r}")
    tokenizer.encode(text, allowed_special="all")  # raises where `text` is no text
    ranks = tokenizer.ranks
    ids = [ranks[left + right] for left, right in tokenizer.merges]
    runs = itertools.groupby(enumerate(ids), key=lambda pair: pair[1] - pair[0])
    return TokenExplorer(
        alt,
        text=text,
        pattern=PATTERNS[tokenizer.pattern],
        special=list(tokenizer.special_tokens),
        byte_ids=[ranks[bytes([byte])] for byte in range(256)],
        made=[[run[0][1], len(run)] for run in (list(run) for _, run in runs)],
        merges=" ".join(str(ranks[part]) for pair in tokenizer.merges for part in pair),
    )
