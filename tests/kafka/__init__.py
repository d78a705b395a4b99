"""Tests of the Kafka seam."""
