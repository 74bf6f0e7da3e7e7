"""The two scripts: tape-train and tape-generate, in a clone train.py and generate.py."""
