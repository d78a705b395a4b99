"""The sides of the training benches: the trainer's step, and transformers' T5."""
