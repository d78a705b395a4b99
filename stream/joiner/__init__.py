"""Impressions and actions to sessions and histories, exactly once.

Read it in this order: `exposure`, `history`, `sessions`, `user` and `join` are the pure join, without Kafka;
`state` its bytes; `intake` brings events in, `transaction` takes results out in numbered steps, `restore` brings
state back, `partitions` holds what this process owns, `service` is the loop.
"""
