"""The calls of the contracts, as values: what is sent, and how its answer is read.

Nothing here does I/O, so that the clients that wait and those that do not have all of it in common.
"""
