"""Libraries in C++ that stand beside Python, and the header that they share."""

from onerec.compiled.shared_object import COMPILERS, FLAGS, INCLUDE, Library

__all__ = ["COMPILERS", "FLAGS", "INCLUDE", "Library"]
