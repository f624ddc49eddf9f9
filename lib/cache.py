"""What a layer remembers of the tokens it has seen, so that they need not be computed again.

    Cache                 everything, up to a length that is set aside once
    SlidingWindowCache    the last few tokens and, as sinks, the first ones
    Int8Cache             everything, a byte a number
    PagedCache            everything, in pages from a PagePool that many sequences share

One cache per layer, passed to `forward` by whoever generates. A cache stores rows and never learns
which attention it serves: how much memory a variant takes is what it appends. It is also the only
counter of positions, and says which rows a query may see. Left out: gradients, which do not flow
through a cache, and the kernels that would read codes and pages where they lie.
"""

import math
from numbers import Integral

import torch


class Cache:
    """Room for `max_seq_len` tokens, allocated when the first ones come.

    `append` writes any tensors (..., T, width) behind those it holds, along axis -2, and returns
    everything so far: keys and values, or a latent, or whatever a layer wants back next time. That
    is a writable view: writing to it changes the cache. `length` counts the tokens; set back, in
    this cache or in int8, it forgets the last ones. `nbytes` is the memory set aside, whether
    filled or not. One that began under `torch.inference_mode` goes on there only.

    >>> cache = Cache(max_seq_len=8)
    >>> k, v = cache.append(torch.ones(1, 2, 5, 4), torch.ones(1, 2, 5, 4))
    >>> k, v = cache.append(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4))
    >>> tuple(k.shape), cache.length, cache.nbytes  # 2 tensors · 2 · 8 · 4 numbers of 4 bytes
    ((1, 2, 6, 4), 6, 512)
    """

    max_seq_len = math.inf  # of the caches below that have no limit of their own

    def __init__(self, max_seq_len):
        _check_size("max_seq_len", max_seq_len)
        self.max_seq_len = max_seq_len
        self.length = 0
        self._kinds = []  # what the tensors of an append look like, apart from T
        self._held = []  # tensors (..., max_seq_len, width), of which the first `length` rows count

    @property
    def positions(self):
        """The position of every row that the last append returned, (S,)."""
        return torch.arange(self.length, device=self._held[0].device if self._held else None)

    def visible(self, q_positions):
        """Which of these rows queries at positions (T,) may see: boolean (T, S)."""
        return self.positions <= q_positions[:, None]

    @property
    def nbytes(self):
        return sum(held.nbytes for held in self._held)

    def append(self, *new):
        """Tensors (..., T, width) -> a tuple of all so far (..., S, width), to read, not to keep.

        Raises ValueError, and changes nothing, if there is no room left, or if a tensor differs
        from what is held in more than T.
        """
        T = self._check(new)
        everything = self._store(T, [x.detach() for x in new])  # or each step would grow one graph
        if not self._kinds:
            self._kinds += map(_kind, new)
        self.length += T
        return everything

    def _store(self, T, new):
        """Write T rows of each tensor and return all: where the kinds of cache differ."""
        end = self.length + T
        self._set_aside(new, self.max_seq_len)
        for held, x in zip(self._held, new):
            held[..., self.length : end, :] = x
        return tuple(held[..., :end, :] for held in self._held)

    def _set_aside(self, new, *rows):
        if not self._held:
            self._held += [x.new_empty(*x.shape[:-2], *rows, x.shape[-1]) for x in new]

    def _check(self, new):
        """Return T, the number of new tokens, or say what does not fit."""
        if not new or not all(isinstance(x, torch.Tensor) and x.ndim >= 2 for x in new):
            got = ", ".join(str(tuple(getattr(x, "shape", [type(x).__name__]))) for x in new)
            raise ValueError(f"append takes tensors (..., T, width): got {got or 'none'}")
        lengths = [x.shape[-2] for x in new]
        if len(set(lengths)) > 1:
            raise ValueError(f"all tensors must bring the same number of tokens: got {lengths}")
        if self._kinds and len(new) != len(self._kinds):
            raise ValueError(f"the cache holds {len(self._kinds)} tensors: got {len(new)}")
        for kind, x in zip(self._kinds, new):
            if kind != _kind(x):
                raise ValueError(f"the cache holds {kind}: got {_kind(x)}")
        if self.length + lengths[0] > self.max_seq_len:
            raise ValueError(
                f"the cache is full: {self.length} tokens held and {lengths[0]} new are more than "
                f"its max_seq_len {self.max_seq_len}; make it longer, or stop here"
            )
        return lengths[0]


class SlidingWindowCache(Cache):
    """The last `window` tokens and the first `sinks`: memory that never grows, and is never full.

    A query sees itself, the window - 1 tokens before it, and the sinks, whatever the chunks they
    came in. Sinks are the first tokens of a row, padding included: pad nothing. Tokens keep their
    true positions, since keys were rotated before they came here; StreamingLLM counts positions
    within the cache instead. A new token takes the place of one that left, so that rows stand in no
    order: `positions` has it.

    A rolling buffer: Jiang et al. 2023 (Mistral), section 2, https://arxiv.org/abs/2310.06825;
    sinks: Xiao et al. 2023 (StreamingLLM), https://arxiv.org/abs/2309.17453

    >>> cache = SlidingWindowCache(window=3, sinks=1)
    >>> for token in torch.randn(9, 1, 1, 4):
    ...     (rows,) = cache.append(token)
    >>> cache.length, cache.positions
    (9, tensor([0, 7, 8, 6]))
    """

    def __init__(self, window, sinks=0):
        _check_size("window", window)
        _check_size("sinks", sinks, least=0)
        self.window, self.sinks, self.length = window, sinks, 0
        self._kinds, self._held = [], []  # tensors (..., sinks + window, width)
        self._positions = torch.arange(0)

    @property
    def positions(self):
        return self._positions

    def visible(self, q_positions):
        back = q_positions[:, None] - self.positions
        return (back >= 0) & ((back < self.window) | (self.positions < self.sinks))

    def _store(self, T, new):
        rows, end = self.sinks + self.window, self.length + T
        at = torch.arange(self.length, end, device=new[0].device)  # (T,)
        if not self._held:
            self._at = at.new_empty(rows, 1)  # the position of every row held
        self._set_aside(new, rows)
        held, new = [*self._held, self._at], [*new, at[:, None]]  # positions go where rows go
        if T != 1:  # the first of several queries still sees what the last ones push out
            everything = [torch.cat((h[..., : self.length, :], x), -2) for h, x in zip(held, new)]
        stay = (at < self.sinks) | (at >= end - self.window)
        place = torch.where(at < self.sinks, at, self.sinks + (at - self.sinks) % self.window)
        for h, x in zip(held, new):
            h[..., place[stay], :] = x[..., stay, :]
        if T == 1:  # what it pushes out it does not see: nothing is copied
            everything = [h[..., :end, :] for h in held]
        *everything, positions = everything
        self._positions = positions[:, 0].clone()
        return tuple(everything)


class Int8Cache(Cache):
    """`max_seq_len` tokens in int8: a byte a number, and a scale for each row of each tensor.

    No number is off by more than half a step, but for rounding; one outlier makes the steps of its
    row coarse. `append` returns numbers of the type that came. Turning all of them back at every
    step costs time: what is saved here is memory.

    Dettmers et al. 2022 (LLM.int8()), section 2.1, https://arxiv.org/abs/2208.07339

    >>> Int8Cache(8).append(torch.tensor([[1.27, 0.013, -0.5]]))[0]
    tensor([[ 1.2700,  0.0100, -0.5000]])

    Raises TypeError for other than floating point numbers, ValueError for a row with inf or NaN, or
    without a number.
    """

    def _store(self, T, new):
        coded = [part for x in new for part in to_int8(x)]
        back = super()._store(T, coded)  # codes and scales, taking turns
        pairs = zip(back[::2], back[1::2], new)
        return tuple((codes * scale).to(x.dtype) for codes, scale, x in pairs)


def to_int8(x):
    """Rows x (..., width) -> codes (..., width), -127 to 127, and scale (..., 1), the step.

    Codes times scale is x to within half a step; a row of zeros stays zeros. The scale is float32
    or wider: in float16 it could round to 0.
    """
    if not x.is_floating_point():
        raise TypeError(f"only floating point numbers can be rounded to int8: got {x.dtype}")
    if x.shape[-1:] == (0,):
        raise ValueError(f"a row needs a number to set its scale: got shape {tuple(x.shape)}")
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = wide.abs().amax(-1, keepdim=True) / 127
    if not (finite := scale.isfinite()).all():
        worst = scale[~finite][0].item()
        raise ValueError(f"the largest number of a row sets its scale, be it finite: got {worst}")
    scale = scale.clamp(min=torch.finfo(wide.dtype).tiny)  # not 0 / 0
    return (wide / scale).round().to(torch.int8), scale


class PagePool:
    """Memory for `n_pages` pages of `page_size` tokens, shared by the sequences of one layer.

    A sequence takes a page when it needs one: what is wasted is the rest of its last page, however
    long it might have become. `uses` counts for each page in how many tables it stands; `free` is
    the number of pages in none.
    """

    def __init__(self, n_pages, page_size):
        _check_size("n_pages", n_pages)
        _check_size("page_size", page_size)
        self.page_size, self.uses = page_size, [0] * n_pages
        self._kinds, self._held = [], []  # tensors (..., n_pages, page_size, width)

    @property
    def free(self):
        return self.uses.count(0)

    nbytes = Cache.nbytes  # the whole pool

    def take(self, n):
        """The numbers of `n` free pages, now in use; ValueError if there are fewer."""
        self.check(n)
        pages = [page for page, uses in enumerate(self.uses) if uses == 0][:n]
        for page in pages:
            self.uses[page] = 1
        return pages

    def check(self, n):
        """Raises ValueError if fewer than `n` pages are free."""
        if n > self.free:
            have = f"{self.free} of {len(self.uses)} are free"
            raise ValueError(f"the pool is full: {n} pages needed, {have}; release a sequence")


class PagedCache(Cache):
    """One sequence in a pool: `table` lists its pages in order, wherever in the pool they lie.

    It may begin with all that another sequence of the pool holds, its `prefix`. Both then have the
    same pages in their tables, and the page that is only started is copied when one of them writes
    to it (copy on write). `release` gives the pages back. `append` lays all rows side by side, a
    copy at every step. `nbytes` counts whole pages, shared ones too.

    Kwon et al. 2023 (vLLM), section 4, https://arxiv.org/abs/2309.06180; a page is a *block* there,
    and one block table serves all layers, where ours has one a layer.

    >>> pool = PagePool(n_pages=8, page_size=4)
    >>> one = PagedCache(pool)
    >>> (rows,) = one.append(torch.randn(1, 10, 2))
    >>> two = PagedCache(pool, prefix=one)
    >>> (rows,) = two.append(torch.randn(1, 1, 2))
    >>> one.table, two.table, pool.free
    ([0, 1, 2], [0, 1, 3], 4)

    Raises ValueError, too, for a pool with too few pages, a prefix elsewhere, use after release.
    """

    def __init__(self, pool, prefix=None):
        if not isinstance(pool, PagePool):
            raise TypeError(f"pool must be a PagePool: got {type(pool).__name__}")
        self.pool, self.table, self.length = pool, [], 0
        self._kinds, self._held = pool._kinds, pool._held  # the pool's own lists, one for all
        if prefix is not None:
            if getattr(prefix, "pool", None) is not pool:
                got = f"{type(prefix).__name__}, of another pool or released"
                raise ValueError(f"prefix must be a PagedCache on the same pool: got {got}")
            self.table, self.length = list(prefix.table), prefix.length
        for page in self.table:
            pool.uses[page] += 1

    @property
    def nbytes(self):
        return len(self.table) * self.pool.nbytes // len(self.pool.uses) if self.table else 0

    def release(self):
        """Give the pages back: each is free when it stands in no table any more.

        A cache that is merely dropped keeps them.
        """
        for page in self.table:
            self.pool.uses[page] -= 1
        self.pool, self.table, self.length = None, [], 0

    def _store(self, T, new):
        pool, size, end = self.pool, self.pool.page_size, self.length + T
        started = T > 0 and self.length % size > 0  # the last page gets the first new rows
        copy = started and pool.uses[self.table[-1]] > 1  # but another sequence reads it, too
        n_fresh = math.ceil(end / size) - len(self.table) + copy
        pool.check(n_fresh)  # before memory is set aside; taken after it: that may fail, too
        self._set_aside(new, len(pool.uses), size)
        fresh = pool.take(n_fresh)
        if copy:
            theirs, self.table[-1] = self.table[-1], fresh.pop(0)
            pool.uses[theirs] -= 1
            for held in self._held:
                held[..., self.table[-1], :, :] = held[..., theirs, :, :]
        self.table += fresh
        table = torch.tensor(self.table, dtype=torch.long, device=new[0].device)
        at = torch.arange(self.length, end, device=new[0].device)  # (T,)
        for held, x in zip(self._held, new):
            held[..., table[at // size], at % size, :] = x
        pages = [held.index_select(-3, table) for held in self._held]  # (..., pages, size, width)
        return tuple(p.flatten(-3, -2)[..., :end, :] for p in pages)

    def _check(self, new):
        if self.pool is None:
            raise ValueError("this cache was released, others may have its pages: make a new one")
        return super()._check(new)


def _kind(x):
    """Everything about a tensor that must not change from one append to the next."""
    shape = ", ".join(map(str, (*x.shape[:-2], "T", x.shape[-1])))
    return f"({shape}) of {x.dtype} on {x.device}"


def _check_size(name, n, least=1):
    if not isinstance(n, Integral) or isinstance(n, bool) or n < least:
        raise ValueError(f"{name} must be an integer, {least} or more: got {n!r}")
