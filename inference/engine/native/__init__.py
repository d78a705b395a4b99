"""Kernels of the decode engine for x86-64 processors, in C++ behind ctypes.

They do what `inference.engine.decoder` and a step of `inference.engine.beams` do in torch, which stays the reference
and the path for every other machine. `python -m inference kernels` compiles them where a compiler is found (`make
install` does so); the engine takes them where they are there, have passed their check against torch, and the model's
shapes fit. Two kinds of processor: AVX-512 with bfloat16 (products multiply bfloat16), and AVX2, where products
multiply 16-bit integers with a scale for each row and column, or float32 where log-probabilities must be the
trainer's own.
"""
