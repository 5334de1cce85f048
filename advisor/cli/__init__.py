"""The `advisor` command."""

from advisor.cli.command import main

__all__ = ["main"]
