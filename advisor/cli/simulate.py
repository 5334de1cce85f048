"""`advisor simulate`: percentiles of one deployment, or of an architecture, at the busiest hour."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.cli.arguments import Verbs, add_json, add_task, engine_arguments, read_task
from advisor.cli.output import print_json, print_text, say, writing
from advisor.errors import InputError

if TYPE_CHECKING:
    from advisor.simulation import SimulationResult

RESOLUTION_S = 1.0

DESCRIPTION = """\
Simulate the task's busiest hour on one deployment (--model with --accelerator), or on
an architecture that a recommendation chose (--architecture). Exits with 1 where the load
cannot be served, or a latency bound of the task is missed."""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "simulate",
        help="latency percentiles of one deployment or architecture",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_task(parser)
    one = parser.add_argument_group("one deployment")
    one.add_argument("--model", metavar="M", help="name, alias or path of a config.json")
    one.add_argument("--accelerator", metavar="A", help="name, alias or path of a YAML file")
    one.add_argument("--tensor-parallel", type=int, metavar="T", help="accelerators a replica (1)")
    one.add_argument("--weights-dtype", metavar="D", help="bf16, fp8, int4 … (as published)")
    one.add_argument("--kv-dtype", metavar="D", help="format of the KV cache (16 bit)")
    one.add_argument(
        "--replicas", type=int, metavar="N", help="equal engines behind a balancer (1)"
    )
    one.add_argument(
        "--engine-args", metavar="NAME=VALUE,…", help="vLLM settings, e.g. max_num_seqs=64"
    )
    several = parser.add_argument_group("an architecture")
    several.add_argument(
        "--architecture", metavar="FILE.json", help="a recommendation, or its `chosen` object"
    )
    several.add_argument(
        "--escalation-rate",
        type=float,
        metavar="E",
        help="share of requests that the large model gets (as projected)",
    )
    load = parser.add_argument_group("load")
    load.add_argument("--requests", type=int, metavar="N", help="how many (20000; a trace: all)")
    load.add_argument("--seed", type=int, default=0, metavar="S", help="of the random draws (0)")
    load.add_argument(
        "--trace",
        metavar="FILE",
        help="CSV or JSONL with arrival, input and output tokens of each request",
    )
    load.add_argument(
        "--series", type=Path, metavar="OUT.csv", help="also write queues, batches … over time"
    )
    load.add_argument("--resolution", type=float, metavar="S", help="of the series, seconds (1)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Simulate and print.

    Raises:
        InputError, DoesNotFitError: as `advisor.simulation.simulate`.
    """
    deployment = {
        name: getattr(arguments, name)
        for name in ("tensor_parallel", "weights_dtype", "kv_dtype", "replicas", "engine_args")
        if getattr(arguments, name) is not None
    }
    _check_together(arguments, deployment)
    if "engine_args" in deployment:
        deployment["engine_args"] = engine_arguments(deployment["engine_args"])
    resolution_s = RESOLUTION_S if arguments.resolution is None else arguments.resolution
    task = read_task(arguments)

    from advisor.simulation import simulate

    result = simulate(
        task,
        model=arguments.model,
        accelerator=arguments.accelerator,
        architecture=Path(arguments.architecture) if arguments.architecture else None,
        requests=arguments.requests,
        seed=arguments.seed,
        trace=arguments.trace,
        series_every_s=resolution_s if arguments.series else None,
        escalation_rate=arguments.escalation_rate,
        announce=say,
        **deployment,
    )
    if arguments.series:
        _write_series(result, arguments.series)
    if arguments.json:
        print_json(result)
    else:
        from advisor.cli.simulation_text import simulation_text

        print_text(simulation_text(result))
    return 0 if result.meets_requirements else 1


def _check_together(arguments: argparse.Namespace, deployment: Mapping[str, Any]) -> None:
    """Refuse options that need or rule out others, before anything is read or simulated."""
    if arguments.architecture and deployment:
        option = next(iter(deployment)).replace("_", "-")
        raise InputError(f"--{option} is for one deployment; the architecture states its own")
    if arguments.escalation_rate is not None and not arguments.architecture:
        raise InputError("--escalation-rate is for an architecture (--architecture FILE.json)")
    if not arguments.architecture and not (arguments.model and arguments.accelerator):
        raise InputError("--model M with --accelerator A, or --architecture FILE.json, is expected")
    if arguments.resolution is not None and not arguments.series:
        raise InputError("--resolution is of the time series (--series OUT.csv)")
    if arguments.series and not arguments.series.absolute().parent.is_dir():
        raise InputError(f"--series {arguments.series}: there is no folder of that name")


def _write_series(result: SimulationResult, path: Path) -> None:
    """One row a tier and moment."""
    from advisor.serving.series import LoadSeries

    with writing(path, option="--series") as file:
        writer = csv.writer(file)
        writer.writerow(["tier", *LoadSeries.model_fields])
        for role, part in result.series.items():
            columns = part.model_dump().values()
            writer.writerows((role, *row) for row in zip(*columns, strict=True))
    say(f"written: {path}")
