"""turnwise: trace, evaluate and optimize Claude Code turns in a closed loop."""

__version__ = "0.1.0"
