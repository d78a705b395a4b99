"""Hosting of Faust services."""
