"""Commands behind the Makefile: `python -m tools.notebooks`."""
