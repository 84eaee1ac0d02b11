"""Queues of GPUs in simulated time: how long jobs wait, by load, by the number of GPUs, and in one cell or several."""
