"""Workers and joiners in one consumer group: `python -m bench.scaling` shows 1, 2 and 4 processes on this machine."""
