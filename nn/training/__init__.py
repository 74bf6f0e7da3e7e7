"""Optimisers, schedules, the training loop and checkpoints."""
