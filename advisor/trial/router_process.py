"""The router of a trial, in a process of its own on a free port of this machine.

    python -m advisor.trial.router_process CONFIG.yaml PARENT_PID

It is the router that `advisor route` serves. It ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from advisor.errors import InputError
from advisor.router.config import RouterConfig
from advisor.trial.child import ServingChild
from advisor.trial.sandbox.parent import end_with_parent


class RouterProcess(ServingChild):
    """A running router; leaving its context ends it.

    Args:
        config: what it does.
        keys: values of environment variables for the router alone.

    Raises:
        InputError: it did not come up; the message carries its last line.
    """

    def __init__(self, config: RouterConfig, *, keys: Mapping[str, str] | None = None) -> None:
        folder = TemporaryDirectory(prefix="advisor-router-")
        path = Path(folder.name) / "router.yaml"
        path.write_text(config.to_yaml(), encoding="utf-8")
        super().__init__(
            [sys.executable, "-m", "advisor.trial.router_process", str(path), str(os.getpid())],
            named="the router",
            health="/healthz",
            environment={**os.environ, **(keys or {}), "OPENBLAS_NUM_THREADS": "1"},
            folder=folder,
        )
        self.wait()


def _serve(path: Path) -> None:
    from advisor.router.serving import server_for

    config = RouterConfig.load(path)
    server = server_for(config, host="127.0.0.1", port=0)
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it on, the second
    # part of an answer waits 40 ms for the client's delayed acknowledgement of the first.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        server.run(sockets=[listener])


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    try:
        _serve(Path(sys.argv[1]))
    except InputError as problem:
        sys.exit(f"{problem}")
