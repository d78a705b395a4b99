"""The continuous trainer: batches, step, journal, checkpoint, publish."""
