"""The implementations that the chapters share. Each file is opened by the chapter that teaches it.

Reading order:

    tokenizer   text to integers: words, characters, bytes, byte pair encoding
    reference   the equations in NumPy, one at a time: what everything else must agree with
    positions   how order enters: so far, the scheme that adds none
    cache       what is kept of the tokens already read
    attention   masks, weights, attention, blockwise attention, the layer
    data        the course's own texts, and synthetic ones
    figures     the pictures of the chapters: one palette, SVG that follows the reader's theme
    widgets     the interactive pieces, alive in JupyterLab and on the static page
    checks      the exercises: checks that name the mistake, hints, solutions, progress

Axis letters, the same in code, comments, figures and prose:

    B batch    T new tokens (queries)    S visible tokens (keys), S >= T    V vocabulary
    C d_model  H query heads             K key/value heads                  G = H // K
    D head_dim F feed-forward width      L layers
"""
