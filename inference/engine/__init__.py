"""The decode engine: sessions of semantic ids by constrained beam search or sampling over an immutable catalogue."""
