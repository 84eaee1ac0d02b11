"""The whole service on one machine: what `ourvidz up` keeps running, and where it keeps its data.

It starts the servers as programs and imports none of them, so that the client stays free of what servers need.
"""
