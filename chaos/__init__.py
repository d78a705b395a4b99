"""Faults on the running system, and the oracle after each: nothing lost, nothing twice, the same weights."""
