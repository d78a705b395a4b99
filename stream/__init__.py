"""Producers and stream processing: log replay, tokenizer and joiner."""
