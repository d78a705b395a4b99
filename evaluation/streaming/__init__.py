"""Learning from the stream against a daily refresh, frozen weights and counts, on the same visits of the same log."""
