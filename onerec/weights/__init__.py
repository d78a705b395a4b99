"""Weights store: versions of the model as safetensors, full or as lossless deltas, on any fsspec file system."""
