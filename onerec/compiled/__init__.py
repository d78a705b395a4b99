"""Libraries in C++ that stand beside Python, and the header that they share."""

from onerec.compiled.library import COMPILERS, FLAGS, Library

__all__ = ["COMPILERS", "FLAGS", "Library"]
