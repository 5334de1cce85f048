"""`advisor app`: the Streamlit app, on this machine only unless told otherwise."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from advisor.cli.arguments import Verbs
from advisor.cli.output import say
from advisor.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERY_ADDRESS = ("0.0.0.0", "::")


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser("app", help="open the app in a browser", description=__doc__)
    parser.add_argument("--port", type=int, default=8501, help="port to listen on (8501)")
    parser.add_argument(
        "--host", default=LOOPBACK[0], help="address to listen on (127.0.0.1: this machine only)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Become the Streamlit server.

    Raises:
        InputError: a port that does not exist.
    """
    if not 0 < arguments.port < 65536:
        raise InputError(f"--port {arguments.port}: 1 to 65535 is expected")
    say(f"Advisor listens on http://{_in_url(arguments.host)}:{arguments.port} (Ctrl-C stops it)")
    sys.stdout.flush()
    command = [sys.executable, "-m", *_streamlit(arguments.host, arguments.port)]
    os.execv(sys.executable, command)


def _streamlit(host: str, port: int) -> Iterator[str]:
    """Streamlit's command line; the look and the rest are in .streamlit/config.toml beside app.py.

    What concerns other machines is given here too, where no other configuration can undo it.
    """
    from advisor.catalog.locations import APP

    yield from ("streamlit", "run", str(APP))
    yield from ("--server.address", host, "--server.port", str(port))
    # Without a name to print, Streamlit asks a server on the internet for this machine's address.
    yield from ("--browser.serverAddress", "localhost" if host in EVERY_ADDRESS else host)
    yield from ("--browser.gatherUsageStats", "false", "--server.showEmailPrompt", "false")
    yield from ("--server.headless", "false" if _has_browser() else "true")
    allowed = ("*",) if host in EVERY_ADDRESS else dict.fromkeys((host, *LOOPBACK))
    for name in allowed:
        yield from ("--server.allowedHosts", _in_url(name))


def _has_browser() -> bool:
    """Whether somebody sits at this machine, at a terminal and a screen."""
    screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    return screen and sys.stdout.isatty()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
