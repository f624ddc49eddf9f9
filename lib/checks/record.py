"""What a reader has done, kept in one small file from one day to the next.

The file is `.progress.json` beside `lib/`; the environment variable BYTES_TO_LATENTS_PROGRESS moves
it, and set to nothing it switches keeping off, as every build and test of the book does.
"""

import contextlib
import datetime
import html
import json
import os
import tempfile
from pathlib import Path

from lib.figures import styled

DEFAULT = Path(__file__).resolve().parents[2] / ".progress.json"


def place() -> Path | None:
    """Where progress is kept, or None where it is not."""
    setting = os.environ.get("BYTES_TO_LATENTS_PROGRESS")
    if setting is None:
        return DEFAULT
    return Path(setting).expanduser() if setting else None


def load() -> dict[str, dict]:
    """Exercise key -> {"status", "tries", "day"}; empty where nothing readable is kept."""
    path = place()
    try:
        kept = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in kept.items() if isinstance(v, dict)} if isinstance(kept, dict) else {}


def record(verdict) -> None:
    """Keep a verdict. What was passed once stays passed; a file that can't be written is let be."""
    path, key = place(), verdict.exercise.key
    if path is None or verdict.status == "not attempted":
        return
    kept = load()
    entry = kept.get(key, {})
    if entry.get("status") != "passed":
        today = datetime.date.today().isoformat()
        tries = entry.get("tries", 0) if isinstance(entry.get("tries"), int) else 0
        kept[key] = {"status": verdict.status, "tries": tries + 1, "day": today}
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8"
            ) as file:
                json.dump(kept, file, indent=1)
            os.replace(file.name, path)  # whole or not at all


class Progress:
    """The exercises of one or all chapters, with what has been done of them."""

    def __init__(self, exercises, kept):
        self.exercises, self.kept = list(exercises), kept

    def status(self, key: str) -> str:
        return self.kept.get(key, {}).get("status", "not attempted")

    def rows(self) -> list[tuple[str, str, str]]:
        """(sign, key, details), an exercise each."""
        signs = {"passed": "✓", "failed": "✗"}
        return [
            (
                signs.get(self.status(e.key), "·"),
                e.key,
                f"{e.title} ({e.difficulty}, {e.minutes} min)",
            )
            for e in self.exercises
        ]

    def summary(self) -> str:
        done = sum(self.status(e.key) == "passed" for e in self.exercises)
        left = sum(e.minutes for e in self.exercises if self.status(e.key) != "passed")
        rest = f"about {left} minutes to go" if left else "all done"
        return f"{done} of {len(self.exercises)} exercises passed, {rest}"

    def __repr__(self) -> str:
        width = max((len(key) for _, key, _ in self.rows()), default=0)
        lines = [f"{sign} {key:<{width}}  {details}" for sign, key, details in self.rows()]
        return "\n".join([self.summary(), *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{s}</td><td><code>{k}</code></td><td>{html.escape(d)}</td></tr>"
            for s, k, d in self.rows()
        )
        return styled(f"<p>{self.summary()}</p><table><tbody>{rows}</tbody></table>")
