"""Curves of cost against size: `python -m bench.growth` measures, fits exponents, and writes JSON and PNG."""
