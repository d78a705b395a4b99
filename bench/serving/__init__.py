"""Request latency: the worker's queue and engine in one process, and the worker behind Kafka."""
