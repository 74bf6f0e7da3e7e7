"""The jobs of train.py, one file each, and what the scripts share."""
