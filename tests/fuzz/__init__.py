"""Coverage-guided fuzzing of every decoder: one file a target (`python -m tests.fuzz NAME`, `make fuzz`)."""
