"""Tests of the weights store."""
