"""Rendering: the engine process, and the gRPC service that runs any engine."""
