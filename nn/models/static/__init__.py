"""Models written on the static graph of `tape.lazy`."""
