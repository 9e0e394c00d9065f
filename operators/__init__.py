"""Operators: records in, records out, no I/O. The same code runs embedded and distributed."""
