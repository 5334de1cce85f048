"""`advisor route`: the router as an OpenAI-compatible server."""

from __future__ import annotations

import argparse
from pathlib import Path

from advisor.cli.arguments import Verbs
from advisor.cli.output import say
from advisor.errors import InputError

BAD_INPUT = 2

DESCRIPTION = """\
Serve a router configuration: OpenAI-compatible, small model first, large model where a
gate or the certified threshold asks for it. /v1/chat/completions, /v1/completions,
/v1/models, /healthz, /readyz, /metrics. Listens on this machine only unless told
otherwise; elsewhere clients need a key (server.api_keys_env). SIGTERM drains."""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "route",
        help="serve a router configuration, OpenAI-compatible",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.yaml", help="router configuration")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8080, help="port to listen on (8080)")
    parser.add_argument(
        "--check", action="store_true", help="check the configuration and its environment, and stop"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, then serve until stopped.

    Raises:
        InputError: a port that does not exist or is taken, or a file that cannot be read.
    """
    from advisor.router.config import ConfigurationError, RouterConfig

    if not 0 < arguments.port < 65536:
        raise InputError(f"--port {arguments.port}: 1 to 65535 is expected")
    try:
        config = RouterConfig.load(arguments.config)
        config.check_environment(host=arguments.host)
    except ConfigurationError as error:
        for problem in error.problems:
            say(f"advisor: {problem}")
        return BAD_INPUT
    from advisor.router.serving import serve, server_for

    if arguments.check:
        server_for(config, host=arguments.host, port=arguments.port)
        say(f"{arguments.config}: nothing is wrong")
        return 0
    serve(config, host=arguments.host, port=arguments.port, say=say)
    return 0
