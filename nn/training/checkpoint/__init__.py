"""A model in one file: saving and loading it."""
