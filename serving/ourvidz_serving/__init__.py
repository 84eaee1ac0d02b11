"""What every server has: start and drain, calls, health, settings, logs, metrics, storage, rendering."""
