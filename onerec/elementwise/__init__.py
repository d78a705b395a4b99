"""What a training step computes element by element, compiled for CPUs: each kernel passes over memory once.

The model's own functions in torch stay the reference. `python -m trainer kernels` compiles the library where a compiler
is found (`make install` does so); a trainer uses it where it agrees with torch, and says so in its environment.
"""
