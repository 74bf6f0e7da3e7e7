"""Train a Transformer; --help says how, and --list what. The script is nn/scripts/train.py."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)       # Ctrl-C during the imports ends in silence

from nn.scripts.train import DEFAULT, JOBS, main, parser

__all__ = ["DEFAULT", "JOBS", "main", "parser"]

if __name__ == "__main__":
    sys.exit(main())
