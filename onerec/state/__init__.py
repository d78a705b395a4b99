"""Local state of a service: a RocksDB folder a partition, restored from compacted topics."""
