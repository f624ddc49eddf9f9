"""Decoding one token after another, beside other models with caches: one process, one thread.

    python -m benchmarks decode                     4096 tokens, some three minutes
    python -m benchmarks.bench_decode --write       and into chapters/results/decode_peers.csv
    python -m benchmarks.bench_decode --quick       a short context, to see that it runs

One model for all, in Llama's form: 6 layers, 12 heads of 64, the same random weights, so that their
logits can be compared. All read the same prompt, then take the same steps in turns, so that all see
the same machine; the best step of each counts, in CPU seconds, which other work disturbs least. On
one thread of a quiet machine they are those of the clock.

    Hugging Face         LlamaForCausalLM with its DynamicCache and its StaticCache
    llms-from-scratch    the cached Llama of Raschka's book, left out where it is not installed

A window forgets and int8 rounds: their logits differ by design.
"""

import sys
import time

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from experiments import write_table
from experiments.decode import processor
from lib.cache import Cache, Int8Cache, PagedCache, PagePool, SlidingWindowCache
from lib.config import ModelConfig
from lib.transformer import Transformer, from_llama

CONFIG = ModelConfig(
    vocab_size=1024, n_layers=6, d_model=768, n_heads=12, d_ff=2048, max_seq_len=4096
)
OURS = "ours, Cache"
GOALS = {"llms-from-scratch": 1.2, "Hugging Face, StaticCache": 0.9}  # their time over ours
WINDOW = 1024


def their_model():
    """Hugging Face's Llama of the same sizes, randomly initialised."""
    c = CONFIG
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=c.vocab_size, hidden_size=c.d_model, intermediate_size=c.d_ff,
        num_hidden_layers=c.n_layers, num_attention_heads=c.n_heads, rms_norm_eps=c.norm_eps,
        max_position_embeddings=c.max_seq_len, initializer_range=0.02,
    )).eval()  # fmt: skip


def ours(state, context):
    """Our model and its ways to remember: name -> a step, ids (1, T) -> logits."""
    model = Transformer(CONFIG).eval()
    model.load_state_dict(from_llama(state, CONFIG))
    kinds = {
        OURS: lambda: Cache(context),
        f"ours, window of {WINDOW}": lambda: SlidingWindowCache(WINDOW, sinks=4),
        "ours, int8": lambda: Int8Cache(context),
        "ours, pages of 16": lambda: PagedCache(PagePool(-(-context // 16), 16)),
    }
    return {name: cached(model, [kind() for _ in model.blocks]) for name, kind in kinds.items()}


def cached(model, caches):
    return lambda ids: model(ids, caches=caches)


def hugging_face(model, context):
    caches = {"DynamicCache": DynamicCache(config=model.config)}
    caches["StaticCache"] = StaticCache(config=model.config, max_cache_len=context)

    def step(ids, cache):
        return model(ids, past_key_values=cache).logits

    return {
        f"Hugging Face, {name}": lambda ids, cache=cache: step(ids, cache)
        for name, cache in caches.items()
    }


def raschka(state, context):
    """The cached Llama of `llms-from-scratch`, which takes Hugging Face's weights as they are."""
    try:
        from llms_from_scratch.kv_cache.llama3 import KVCache, Llama3Model
    except ImportError:
        print("llms-from-scratch is not installed, so it is left out: `make bench` brings it.")
        return {}
    c = CONFIG
    model = Llama3Model({
        "vocab_size": c.vocab_size, "context_length": context, "emb_dim": c.d_model,
        "n_heads": c.n_heads, "n_layers": c.n_layers, "hidden_dim": c.d_ff,
        "n_kv_groups": c.n_kv_heads, "rope_base": c.theta, "dtype": torch.float32,
        "rope_freq": None,
    }).eval()  # fmt: skip
    names = {
        "model.embed_tokens.": "tok_emb.", "model.norm.": "final_norm.", "lm_head.": "out_head.",
        "model.layers.": "trf_blocks.", "self_attn.q_proj": "att.W_query",
        "self_attn.k_proj": "att.W_key", "self_attn.v_proj": "att.W_value",
        "self_attn.o_proj": "att.out_proj", "mlp.gate_proj": "ff.fc1", "mlp.up_proj": "ff.fc2",
        "mlp.down_proj": "ff.fc3", "post_attention_layernorm": "norm2", "input_layernorm": "norm1",
    }  # fmt: skip
    renamed = {}
    for name, weight in state.items():
        for theirs, here in names.items():
            name = name.replace(theirs, here)
        renamed[name] = weight
    model.load_state_dict(renamed)
    cache = KVCache(n_layers=c.n_layers)
    return {"llms-from-scratch": lambda ids: model(ids, cache=cache)}


def decode(ways, ids, steps):
    """All read the prompt, then single tokens in turns -> best CPU seconds, last logits of each."""
    prompt, best, logits = ids[:, :-steps], dict.fromkeys(ways, float("inf")), {}
    for step in ways.values():
        for chunk in prompt.split(512, 1):
            step(chunk)
    for t in range(prompt.shape[1], ids.shape[1]):
        for name, step in ways.items():
            start = time.process_time()
            logits[name] = step(ids[:, t : t + 1])[:, -1]
            best[name] = min(best[name], time.process_time() - start)
    return best, logits


def table(best, logits):
    """The best step of each beside ours, and how far its last logits are from ours."""
    lines = ["who | a step | tokens a second | over ours | goal | met? | logits apart"]
    lines.append(" | ".join(["---"] * 7))
    for name, seconds in best.items():
        ratio, goal = seconds / best[OURS], GOALS.get(name)
        met = "" if goal is None else "yes" if ratio >= goal else "no"
        apart = (logits[name] - logits[OURS]).abs().max().item()
        same = apart < 1e-4 or name.startswith(("ours, window", "ours, int8"))
        note = "" if same else ": OUTPUTS DIFFER"
        cells = (
            name, f"{seconds * 1e3:.1f} ms", f"{1 / seconds:.1f}", f"{ratio:.2f}", goal or "", met,
            f"{apart:.0e}{note}",
        )  # fmt: skip
        lines.append(" | ".join(map(str, cells)))
    return "\n".join(lines)


def main(quick=False, write=False):
    if quick and write:
        raise SystemExit("--write publishes 4,096 tokens of context: leave out --quick")
    started, threads = time.time(), torch.get_num_threads()
    torch.set_num_threads(1)
    context, steps = (256, 8) if quick else (4096, 80)
    theirs = their_model()
    state = theirs.state_dict()
    with torch.no_grad():
        ways = ours(state, context) | hugging_face(theirs, context) | raschka(state, context)
        ids = torch.randint(CONFIG.vocab_size, (1, context))
        print(f"context {context}, the last {steps} tokens one by one")
        best, logits = decode(ways, ids, steps)
    print(table(best, logits))
    if write:
        case = {"machine": processor(), "context": context}
        rows = [case | {"who": who, "ms": round(s * 1e3, 2)} for who, s in best.items()]
        write_table("decode_peers", rows, started, script="benchmarks.bench_decode --write")
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main("--quick" in sys.argv, "--write" in sys.argv)
