"""Hostile input by the million through the real readers: `python -m tests.hostile`, `make hostile`."""
