"""Compiled kernels of training on CPUs: norms, SwiGLU, attention, and whole branches with their products.

The model's own functions in torch stay the reference (`onerec.model.backend` says what may stand in for them).
`python -m trainer kernels` compiles the library where a compiler is found (`make install` does so); a trainer uses it
where it agrees with torch, and names it in its environment.
"""
