"""Tests of everything, in the folders of what they test."""
