"""One dial from MHA to MQA: wiring, cache, parameters and measured speed as `n_kv_heads` moves.

The cache and the parameters are computed in the page as `lib.accounting` computes them, in two
bytes a number. Speeds are measured elsewhere, on a small shape of their own, and handed in. Left
out: mixtures of experts, latent attention, encoders.
"""

import math
from numbers import Integral, Real

import traitlets

from lib.accounting import param_count
from lib.config import ModelConfig
from lib.widgets.piece import HERE, Piece, module

_SENT = ("n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim", "qkv_bias", "bias", "window",
         "n_global_layers", "max_seq_len")  # fmt: skip
_SPEED = ("n_kv_heads", "context", "milliseconds")


class KvHeadsDial(Piece):
    """Query heads wired to key and value heads, and what it costs; `kv_heads_dial(...)` makes one.

    `at` is where it stands: the number of the `model`, its `n_kv_heads`, the `context`, and the
    query `head` that is pointed at, counted from 0.
    """

    _esm = module("plane") + module("controls") + module("kv_heads_dial")
    _css = Piece._css + (HERE / "kv_heads_dial.css").read_text(encoding="utf-8")
    models = traitlets.List(traitlets.Dict()).tag(sync=True)
    speeds = traitlets.List(traitlets.Dict()).tag(sync=True)
    measured = traitlets.Unicode().tag(sync=True)
    at = traitlets.Dict().tag(sync=True)


def kv_heads_dial(
    models: dict[str, ModelConfig], *, alt: str, context=4096, speeds=(), measured=""
) -> KvHeadsDial:
    """Models by name, the first one shown with its own `n_kv_heads`; the dial goes from 1 to H.

    `speeds` are rows {"n_kv_heads", "context", "milliseconds"} of one small shape. Its MHA, the row
    with the most key heads, is what the others are compared with. `measured` says what was timed,
    on what; without speeds that part is left out.

    >>> config = ModelConfig(vocab_size=32000, n_layers=2, d_model=64, n_heads=8, n_kv_heads=2)
    >>> dial = kv_heads_dial({"small": config}, alt="from 8 key heads to 1")
    >>> dial, dial.at["n_kv_heads"]
    (KvHeadsDial: from 8 key heads to 1, 2)

    Raises:
        ValueError: no models, or one with experts, latent attention or no cache; a context below 1;
            speeds that are no such rows, that lack one for a number of heads and a context, or that
            come without `measured`.
    """
    if not isinstance(models, dict) or not models:
        raise ValueError(
            f"models must be a dictionary, config by name, of one or more: got {models!r}"
        )
    if not _is_whole(context):
        raise ValueError(f"context must be an integer, 1 or more: got {context!r}")
    rows = [_row(name, config) for name, config in models.items()]
    K, head = rows[0]["n_kv_heads"], rows[0]["n_heads"] // 3  # one with a whole group around it
    at = {"model": 0, "n_kv_heads": K, "head": head, "context": int(context)}
    speeds = _speeds(list(speeds))
    return KvHeadsDial(alt, models=rows, at=at, speeds=speeds, measured=_caption(speeds, measured))


def _row(name, config):
    """What the page needs of a config; `rest` are the parameters that the dial does not move."""
    for field in ("n_experts", "kv_lora_rank"):
        if value := getattr(config, field):
            raise ValueError(f"{name}: {field} cannot be shown: got {value}, leave it out")
    if not config.causal:
        raise ValueError(f"{name}: causal=False keeps no cache, leave it out")
    parts = param_count(config)
    rest = sum(parts.values()) - parts["attention"]
    return {"name": name, "rest": rest} | {field: getattr(config, field) for field in _SENT}


def _speeds(rows):
    """The rows, checked: whole heads that divide the most, and a time for each at each context."""
    for row in rows:
        if not isinstance(row, dict) or set(row) != set(_SPEED):
            raise ValueError(f"a row of speeds must be a dict of {_SPEED}: got {row!r}")
        for name in _SPEED[:2]:
            if not _is_whole(row[name]):
                raise ValueError(f"speeds: {name} must be an integer, 1 or more: got {row[name]!r}")
        took = row["milliseconds"]
        if not isinstance(took, Real) or not 0 < took < math.inf:
            raise ValueError(f"speeds: milliseconds must be a number above 0: got {took!r}")
    heads, contexts = ({row[name] for row in rows} for name in _SPEED[:2])
    if uneven := [n for n in heads if max(heads) % n]:
        raise ValueError(f"speeds: {uneven[0]} key heads must divide the most, {max(heads)}")
    if len(heads) == 1:
        raise ValueError(f"speeds: there must be two numbers of key heads or more: got {heads}")
    for place in ((n, s) for n in heads for s in contexts):
        found = sum((row["n_kv_heads"], row["context"]) == place for row in rows)
        if found != 1:
            raise ValueError(f"speeds: one row for {place}, (n_kv_heads, context): got {found}")
    return [dict(zip(_SPEED, (int(r["n_kv_heads"]), int(r["context"]), float(r["milliseconds"]))))
            for r in rows]  # fmt: skip


def _caption(speeds, measured):
    if bool(speeds) != bool(measured.strip()):
        need = "say what was timed, on what" if speeds else "there are no speeds to explain"
        raise ValueError(f"measured: {need}: got {measured!r}")
    return measured


def _is_whole(n) -> bool:
    return isinstance(n, Integral) and not isinstance(n, bool) and n >= 1
