"""The join of a partition in C++ behind ctypes: events, users, timers and the bytes of what it gives out.

It does what `stream.joiner.plain` does in Python, which stays the reference and runs wherever this is not built:
the same records come out, byte for byte. `python -m stream compile` builds it where a compiler is found (`make install`
does so); `stream.joiner.choice` takes it where it is there and has passed its check.
"""
