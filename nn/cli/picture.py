"""Pictures that the scripts write, with matplotlib, which is optional."""

from __future__ import annotations

from pathlib import Path

from nn.cli.script import UsageError, check_writable


def check_picture(path: Path | None, flag: str) -> None:
    """Raise a UsageError, before the work, where the picture that a flag names could not be written."""
    if path is None:
        return
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(f"{flag}: pictures are drawn by matplotlib, which is not installed: "
                         f"pip install -e '.[pictures]'") from error
    known = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix[1:].lower() not in known:
        raise UsageError(f"{flag}: the name must end in one of .{' .'.join(known)}, got {str(path)!r}")
    check_writable(path, flag)
