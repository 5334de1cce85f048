"""The `advisor` command."""


def main() -> int:
    return 0
