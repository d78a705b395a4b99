"""The commands of `python -m evaluation`; `evaluation.__main__` puts them together."""
