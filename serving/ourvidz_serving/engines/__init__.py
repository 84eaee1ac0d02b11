"""Engines: child processes that hold a model, seen from the server that owns them and from inside."""
