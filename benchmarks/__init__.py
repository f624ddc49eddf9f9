"""Side-by-side measurements against other implementations: `make bench`. Not part of the tests."""
