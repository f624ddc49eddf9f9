"""Run every benchmark of this folder, or those named: `python -m benchmarks tokenizer`.

A benchmark is a module `bench_<name>.py` with a function `main()` that prints its table.
"""

import importlib
import platform
import sys
from pathlib import Path


def main(names: list[str]) -> None:
    there = sorted(p.stem.removeprefix("bench_") for p in Path(__file__).parent.glob("bench_*.py"))
    if unknown := set(names) - set(there):
        raise SystemExit(f"No benchmark {', '.join(unknown)}. There are: {', '.join(there)}")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    for name in names or there:
        print(f"\n{name}")
        importlib.import_module(f"benchmarks.bench_{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
