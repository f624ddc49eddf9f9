"""The pictures of the chapters: one palette, and SVG that follows the reader's theme.

One colour has one meaning in figures, interactive pieces and prose (`PALETTE`, from Okabe and Ito's
colours for all eyes, https://jfly.uni-koeln.de/color/). A function here takes and returns an axes;
`picture(ax, alt)` turns it into an inline SVG whose ink is the page's own text colour, so that it
reads in light and dark, and whose text form is the alternative text. `source(...)` quotes code
live. Left out: raster images, 3-D, and everything that matplotlib already does well.
"""

import ast
import hashlib
import html
import inspect
import io
import re
import textwrap
import unicodedata

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

# role: (on a light page, on a dark page); at least 3:1 against the page, by test
PALETTE = {
    "query": ("#005aa0", "#5aaeea"),
    "key": ("#d55e00", "#f58a45"),
    "value": ("#008a64", "#2fc79b"),
    "output": ("#946800", "#e9b44c"),
    "latent": ("#a8478a", "#e39ac6"),
    "position": ("#3a9bd9", "#8fd3f7"),
    "muted": ("#767b84", "#9aa0aa"),
}
INK = "#1b1b1d"  # becomes currentColor
COLORS = {"ink": INK, **{role: light for role, (light, _) in PALETTE.items()}}

WIDEST_ON_A_PHONE = 520  # pixels; a wider picture scrolls in itself there, rather than shrink
PICTURE_HINT = "A wide picture; it scrolls sideways on a narrow screen"

FONT = ["DejaVu Sans", "Verdana", "Segoe UI", "sans-serif"]
matplotlib.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "bytes-to-latents", "font.sans-serif": FONT,
    "font.size": 10, "axes.titlesize": 10.5, "axes.titlelocation": "left", "legend.fontsize": 9,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "lines.linewidth": 2, "grid.color": PALETTE["muted"][0],
    "grid.alpha": 0.35, "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=[light for light, _ in PALETTE.values()]),
})  # fmt: skip


def _theme() -> str:
    """The palette as CSS variables, for the static page and for JupyterLab, light and dark."""
    light = "".join(f"--b2l-{role}:{colours[0]};" for role, colours in PALETTE.items())
    dark = "".join(f"--b2l-{role}:{colours[1]};" for role, colours in PALETTE.items())
    lab = {"k": "keyword", "kn": "keyword", "ow": "keyword", "s2": "string", "s1": "string",
           "sd": "string", "c1": "comment", "mi": "number", "mf": "number"}  # fmt: skip
    code = "".join(
        f".jp-OutputArea .b2l .{k}{{color:var(--jp-mirror-editor-{v}-color)}}"
        for k, v in lab.items()
    )
    return (
        f":root{{{light}}}html[data-theme=dark],[data-jp-theme-light=false]{{{dark}}}"
        ".b2l svg{display:block;max-width:100%;height:auto;margin:.4rem auto}"
        ".b2l-wide{overflow-x:auto}.b2l-wide svg{min-width:32rem}"
        ".b2l text{font-family:'DejaVu Sans',Verdana,'Segoe UI',sans-serif!important}"
        ".b2l pre{overflow-x:auto;font-size:.85em}"
        ".b2l summary{cursor:pointer;display:list-item;padding:.3rem 0;"
        "list-style:disclosure-closed inside}.b2l details[open]>summary{list-style-type:"
        "disclosure-open}"
        ".b2l td{text-align:left!important;padding:.15rem .6rem}"
        ".b2l-verdict{border-left:.3rem solid var(--b2l-muted);padding:.4rem .9rem;margin:.5rem 0}"
        ".b2l-verdict p{margin:.35rem 0}.b2l-passed{border-color:var(--b2l-value)}"
        ".b2l-failed{border-color:var(--b2l-key)}" + code
    )


THEME = _theme()


def styled(body: str) -> str:
    """An HTML fragment that carries the theme along, for outputs of a cell."""
    return f'<style>{THEME}</style><div class="b2l">{body}</div>'


class Picture:
    """An inline SVG; `repr` is its alternative text, which is what a notebook stores."""

    def __init__(self, svg: str, alt: str):
        self.svg, self.alt = svg, alt

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"

    def _repr_html_(self) -> str:
        width = int(re.search(r'width="(\d+)"', self.svg)[1])
        if width <= WIDEST_ON_A_PHONE:
            return styled(self.svg)
        scroller = f'<div class="b2l-wide" tabindex="0" role="group" aria-label="{PICTURE_HINT}">'
        return styled(f"{scroller}{self.svg}</div>")


def panel(n: int = 1, *, width: float = 4.8, height: float = 2.8, **subplots):
    """New axes in the house style, sizes in inches: one axes for n = 1, else an array of n.

    4.8 inches stay legible on a phone; 6.5 is the widest that fits the page's text column.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure.subplots(1, n, **subplots)


def picture(ax, alt: str) -> Picture:
    """The figure that `ax` (an axes, an array of them, or a figure) belongs to, as a `Picture`.

    `alt` says in one or two sentences what is to be seen, for readers who do not see it.

    Raises:
        ValueError: `alt` is empty.
    """
    if not alt or not alt.strip():
        raise ValueError("a picture needs alternative text: say in a sentence what is to be seen")
    first = ax if isinstance(ax, Figure) else np.ravel(np.asarray(ax, dtype=object))[0]
    figure = first if isinstance(first, Figure) else first.figure
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    return Picture(_tidy(buffer.getvalue(), alt), alt)


def _tidy(svg: str, alt: str) -> str:
    """matplotlib's SVG, made fit to stand in a page: theme colours, no metadata, ids of its own."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg, flags=re.S)
    for role, (light, _) in PALETTE.items():
        svg = re.sub(light, f"var(--b2l-{role})", svg, flags=re.I)
    svg = re.sub(INK, "currentColor", svg, flags=re.I)
    svg = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), svg)
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    mark = "f" + hashlib.sha256((svg + alt).encode()).hexdigest()[:8]
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{mark}{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r"(url\(#|href=\"#)", rf"\g<1>{mark}", svg)
    width, height = (round(float(n) * 4 / 3) for n in re.findall(r'="([\d.]+)pt"', svg)[:2])
    head = f'<svg role="img" aria-label="{html.escape(alt)}" width="{width}" height="{height}"'
    view = re.search(r'viewBox="[^"]*"', svg)[0]
    return re.sub(r"<svg[^>]*>", lambda _: f"{head} {view}>", svg, count=1)


def matrix(
    values, rows="", cols="", *, row_names=None, col_names=None, role="value", title="", ax=None
):
    """A matrix (n, m) with its numbers, tinted by size; `rows` and `cols` name the axes.

    Negative numbers are hatched, so that the sign does not hang on colour alone.
    """
    values = np.atleast_2d(np.asarray(values))
    n, m = values.shape
    ax = panel(width=0.62 * m + 1.3, height=0.42 * n + 0.9) if ax is None else ax
    top = np.abs(values[np.isfinite(values)]).max(initial=0) or 1
    for i, j in np.ndindex(n, m):
        v = values[i, j]
        tint = 0.06 + 0.5 * abs(v) / top if np.isfinite(v) else 0
        ax.add_patch(matplotlib.patches.Rectangle((j, i), 1, 1, lw=0, fc=COLORS[role], alpha=tint))
        ax.add_patch(
            matplotlib.patches.Rectangle(
                (j, i), 1, 1, fill=False, ec=COLORS["muted"], lw=0.7, hatch="///" if v < 0 else None
            )
        )
        ax.text(j + 0.5, i + 0.5, number(v), ha="center", va="center")
    ax.set(xlim=(0, m), ylim=(n, 0), aspect="auto", title=title)
    ax.set_xticks(np.arange(m) + 0.5, col_names or [str(j) for j in range(m)])
    ax.set_yticks(np.arange(n) + 0.5, row_names or [str(i) for i in range(n)])
    ax.set_xlabel(cols)
    ax.set_ylabel(rows)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def heat(values, ax, *, role="output", top=1.0, rows="T", cols="S", title=""):
    """A map (n, m) of weights from 0 to `top` as tints of one colour, too large for numbers.

    Zeros are left blank, so that a mask shows; tints go in ten steps to keep the picture small.
    """
    values = np.asarray(values, dtype=float)
    colour = matplotlib.colors.to_rgb(COLORS[role])
    tints = matplotlib.colors.ListedColormap([(*colour, a) for a in np.linspace(0.08, 0.95, 10)])
    seen = np.ma.masked_equal(values, 0)
    ax.pcolormesh(seen, cmap=tints, vmin=0, vmax=top, edgecolors="none", linewidth=0)
    ax.set(aspect="equal", title=title, xlabel=cols, ylabel=rows)
    ax.set(xlim=(0, values.shape[1]), ylim=(values.shape[0], 0))
    ax.spines[:].set_visible(True)
    return ax


def number(v) -> str:
    """A number as a figure prints it: at most two decimals, a true minus, -inf as a word.

    >>> number(-0.504), number(3.0), number(float("-inf"))
    ('−0.5', '3', '−∞')
    """
    if not np.isfinite(v):
        return {np.inf: "∞", -np.inf: "−∞"}.get(float(v), "NaN")
    text = f"{float(v):.2f}".rstrip("0").rstrip(".")
    return ("0" if text == "-0" else text).replace("-", "−")


def shapes(*steps, ax=None):
    """Shapes step by step: a bar for each (label, axes), as ("view", {"T": 4, "H": 8, "D": 64}).

    A segment is as long as the logarithm of its size, so a bar of the same length holds as many
    numbers, and splitting an axis of 512 into 8 x 64 is seen to fit exactly.
    """
    ax = panel(width=5.2, height=0.62 * len(steps) + 0.2) if ax is None else ax
    longest = max(sum(np.log2(max(s, 1.6)) for s in axes.values()) for _, axes in steps)
    roles = [role for role in PALETTE if role != "muted"]
    letters = list(dict.fromkeys(letter for _, axes in steps for letter in axes))
    for row, (label, axes) in enumerate(steps):
        x = 0.0
        ax.text(-0.02, row + 0.4, label, ha="right", va="center", family="monospace", size=10)
        for letter, size in axes.items():
            w = np.log2(max(size, 1.6)) / longest
            role = COLORS[roles[letters.index(letter) % len(roles)]]
            ax.add_patch(matplotlib.patches.Rectangle((x, row), w, 0.8, fc=role, alpha=0.22, lw=0))
            ax.add_patch(matplotlib.patches.Rectangle((x, row), w, 0.8, fill=False, ec=role, lw=1))
            ax.text(x + w / 2, row + 0.4, f"{letter} {size}", ha="center", va="center", size=10.5)
            x += w
    ax.set(xlim=(-0.55, 1.01), ylim=(len(steps), -0.1))
    ax.axis("off")
    return ax


# Characters that leave no mark of their own, as the ones that stand for them.
MARKS = {i: chr(0x2400 + i) for i in range(32)} | str.maketrans(" \n\t", "·⏎⇥")


def visible(token: str | bytes) -> str:
    r"""A token as a figure prints it: white space has marks, part of a character is its bytes.

    >>> visible(" low\n"), visible(b" \xf0\x9f")
    ('·low⏎', '·F0 9F')
    """
    if isinstance(token, bytes):
        token = token.decode("utf-8", "surrogateescape")  # what is not UTF-8 becomes \udc80-\udcff
    return re.sub(
        r"[\udc80-\udcff]+",
        lambda cut: cut[0].encode("utf-8", "surrogateescape").hex(" ").upper(),
        token.translate(MARKS),
    )


def tokens(pieces, *, ids=None, note="") -> Picture:
    """Tokens (strings or bytes) as a line of boxes in two tints, wrapped into rows of 460 pixels.

    `ids` stand under the boxes, `note` above them. Arabic and Hebrew run from right to left.
    """
    labels, below = [visible(piece) for piece in pieces], list(map(str, ids or []))
    to_left, step, boxes = _runs_to_left(pieces), 47 if below else 30, []
    x, y = 1.0, 24 if note else 2
    for i, label in enumerate(labels):
        if cells(label) > 50:
            label = label[:24] + "…"
        id_width = 7.5 * len(below[i]) if below else 0
        width = max(8.5 * cells(label), id_width) + 7
        if x + width > 459 or (i and labels[i - 1].endswith("⏎")):
            x, y = 1.0, y + step
        left = 460 - x - width if to_left else x
        look = f'"var(--b2l-{("output", "position")[i % 2]})"'
        boxes.append(
            f'<rect x="{left:g}" y="{y}" width="{width:g}" height="24" rx="4" stroke={look} '
            f'fill={look} fill-opacity=".16"/>' + _mono(left + width / 2, y + 17, 14, label)
        )
        if below:
            boxes.append(_mono(left + width / 2, y + 38, 12, below[i]))
        x += width + 3
    alt = f"{note}: " * bool(note) + f"{len(labels)} tokens: {' | '.join(labels)}"
    alt += f"; ids {', '.join(below)}" if below else ""
    head = f'<text x="1" y="14" font-size="13" fill="currentColor">{html.escape(note)}</text>'
    size = f'width="460" height="{y + step}" viewBox="0 0 460 {y + step}"'
    svg = f'<svg role="img" aria-label="{html.escape(alt)}" {size}>{head}{"".join(boxes)}</svg>'
    return Picture(svg, alt)


def cells(text: str) -> int:
    """How many columns of a monospaced font `text` takes: 2 for wide characters, 0 for marks."""
    marks = [unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text]
    wide = [unicodedata.east_asian_width(c) in "WF" for c in text]
    return sum(0 if m else 1 + w for m, w in zip(marks, wide))


def _runs_to_left(pieces) -> bool:
    """Whether the first letter, put together from its bytes, is Arabic, Hebrew or their kin."""
    joined = b"".join(p if isinstance(p, bytes) else p.encode() for p in pieces)
    kinds = map(unicodedata.bidirectional, joined.decode("utf-8", "ignore"))
    return next((kind for kind in kinds if kind in ("L", "R", "AL")), "L") != "L"


def _mono(x: float, y: float, size: int, text: str) -> str:
    """Monospaced SVG text around `x`; the theme's font is `!important`, so this must be, too."""
    style = "font-family:'DejaVu Sans Mono',Menlo,Consolas,monospace!important"
    style += ";direction:rtl" if _runs_to_left([text]) else ""
    return (
        f'<text x="{x:g}" y="{y}" font-size="{size}" text-anchor="middle" fill="currentColor" '
        f'style="{style}">{html.escape(text)}</text>'
    )


class Code(str):
    """Python source that shows itself highlighted; with a summary, folded until asked for."""

    summary: str

    def __new__(cls, text: str, summary: str = ""):
        self = super().__new__(cls, text)
        self.summary = summary
        return self

    def __repr__(self) -> str:
        return f"{self.summary} (folded; print() shows it)" if self.summary else str(self)

    def _repr_html_(self) -> str:
        code = highlight(self, PythonLexer(), HtmlFormatter(nowrap=True))
        body = f'<div class="highlight"><pre tabindex="0">{code}</pre></div>'
        if self.summary:
            body = f"<details><summary>{html.escape(self.summary)}</summary>{body}</details>"
        return styled(body)


def source(*objects, doc: bool = True) -> Code:
    """The source of functions or classes as it stands in `lib/` now: quoted, never pasted.

    With `doc=False` the docstrings are left out, where the chapter has just said the same.
    """
    parts = [textwrap.dedent(inspect.getsource(o)).rstrip() for o in objects]
    return Code("\n\n\n".join(parts if doc else map(without_docstrings, parts)))


def without_docstrings(code: str) -> str:
    """Python source without its docstrings, otherwise untouched, comments included.

    >>> print(without_docstrings('def f():' + chr(10) + '    "says so"' + chr(10) + '    return 1'))
    def f():
        return 1
    """
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            first = node.body[0]
            for i in range(first.lineno - 1, first.end_lineno):
                lines[i] = None
    return "\n".join(line for line in lines if line is not None)
