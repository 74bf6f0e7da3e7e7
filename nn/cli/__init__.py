"""What the scripts share: flags from a dataclass, and mistakes that end in one line."""
