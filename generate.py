"""Continue a text with a trained model; --help says how. The script is nn/scripts/generate.py."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)       # Ctrl-C during the imports ends in silence

from nn.scripts.generate import Flags, main, parser

__all__ = ["Flags", "main", "parser"]

if __name__ == "__main__":
    sys.exit(main())
