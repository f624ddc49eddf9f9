"""The implementations that the chapters share. Each file is opened by the chapter that teaches it.

Reading order:

    tokenizer   text to integers: words, characters, bytes, byte pair encoding
    reference   the equations in NumPy, one at a time: what everything else must agree with
    positions   how order enters: none, learned, sinusoidal, T5, ALiBi, RoPE and its extensions
    cache       what is kept of the tokens already read
    attention   masks, weights, attention, blockwise attention, the layer
    mla         latent attention: one small row a token, two orders of the same products
    config      what a model is, as one record, and real models
    transformer blocks on a residual stream, and models of them
    training    the loop that trains every model here
    generate    from logits to text, with and without a cache
    accounting  parameters, bytes of cache, arithmetic, from a config alone
    data        the course's own texts, and synthetic texts, tasks and a language
    figures     the pictures of the chapters: one palette, SVG that follows the reader's theme
    widgets     the interactive pieces, alive in JupyterLab and on the static page
    checks      the exercises: checks that name the mistake, hints, solutions, progress

Axis letters, the same in code, comments, figures and prose:

    B batch    T new tokens (queries)    S visible tokens (keys), S >= T    V vocabulary
    C d_model  H query heads             K key/value heads                  G = H // K
    D head_dim F feed-forward width      L layers
    R kv_lora_rank                       P qk_rope_head_dim
"""
