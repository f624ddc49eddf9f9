"""The book's own Sphinx extension: what a build must do that no setting says.

- The execution cache is keyed by a notebook's code alone. When anything under ``lib/`` or
  ``experiments/`` changes (code, JavaScript, a text) or a table in ``chapters/results/``, the
  outputs would go stale: cache and doctrees are dropped.
- A build never reads or writes a reader's progress.
- Docstrings are plain text with `code` in backticks; here they become reStructuredText.
- Every page gets the palette of `lib/figures.py` as CSS variables, for drawings and prose, and no
  script that would load anything from elsewhere.
"""

import hashlib
import os
import shutil
from pathlib import Path

from lib.figures import THEME

ROOT = Path(__file__).resolve().parent.parent


def fingerprint() -> str:
    """One hash over the files that a chapter's output can depend on, other than its own cells."""
    folders = ("lib", "experiments", "chapters/results")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*")]
    files = sorted(f for f in files if f.is_file() and "__pycache__" not in f.parts)
    digest = hashlib.sha256((ROOT / "constraints.txt").read_bytes())
    for file in files:
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def drop_stale_outputs(build: Path) -> None:
    """Forget every executed notebook if ``lib/`` is not what it was when they ran."""
    stamp, now = build / ".lib-fingerprint", fingerprint()
    if stamp.exists() and stamp.read_text() == now:
        return
    for folder in (".jupyter_cache", ".doctrees"):
        shutil.rmtree(build / folder, ignore_errors=True)
    (build / ".doctrees").mkdir(parents=True)
    stamp.write_text(now)


def to_restructured_text(app, what, name, obj, options, lines):
    """Code in single backticks, literal stars, and indented blocks, as Sphinx writes them."""
    made = []
    for before, line in zip(["", *lines], lines):
        indented = line.startswith("    ")
        if indented and not before and not (made[-2:-1] or [""])[0].startswith((" ", ">")):
            made += ["::", ""]  # a block of its own: shown as it stands
        if not indented and not line.startswith(">>>"):
            parts = line.split("`")
            parts[::2] = [part.replace("*", r"\*") for part in parts[::2]]
            line = "``".join(parts)
        made.append(line)
    lines[:] = made


def mend_head(app, pagename, templatename, context, doctree):
    """The palette in; out with sphinx-thebe's scripts, which Jupyter Book adds to every page."""
    context["metatags"] = context.get("metatags", "") + f"<style>{THEME}</style>"
    scripts = context.get("script_files", [])
    context["script_files"] = [s for s in scripts if "thebe" not in f"{s}{vars(s)}"]


def setup(app):
    os.environ["BYTES_TO_LATENTS_PROGRESS"] = ""
    app.connect("html-page-context", mend_head, priority=900)
    app.connect("autodoc-process-docstring", to_restructured_text, priority=400)
    drop_stale_outputs(Path(app.doctreedir).parent)
    return {"version": "1", "parallel_read_safe": True}
