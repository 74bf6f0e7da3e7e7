"""The jobs of train.py, one file each."""
