"""How many brokers, partitions, joiners, trainers and workers a load takes: `python -m bench.sizing`."""
