"""Kernels of the decode engine for x86-64 processors, in C++ behind ctypes.

They do what `inference.engine.decoder` does in torch, which stays the reference and the path for every other
machine. `python -m inference kernels` compiles them where a compiler is found (`make install` does so); the engine
takes them where they are there, have passed their check against torch, and the model's shapes fit. Two kinds of
processor: AVX-512 with bfloat16 (elements are bfloat16), AVX2 (elements are float32).
"""
