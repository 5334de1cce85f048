"""Turn a GPU host's raw results into points, coefficients and measurement rows.

python calibration/gpu_host/fit.py RAW.jsonl --plan PLAN --accelerator H200-SXM --output DIR
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from advisor.calibrate.bench.recorded import fit_recorded, kernel_ratios, read_raw
from advisor.calibrate.bench.session import comparison_of
from advisor.catalog import Catalog, load_catalog
from advisor.errors import InputError
from advisor.physics.deployment import Deployment


def main() -> None:
    """Fit every model of the plan that has results, and print how loads compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("raw", type=Path)
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--accelerator", required=True)
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    plan = json.loads((chosen.plan / "plan.json").read_text(encoding="utf-8"))
    catalog = load_catalog()
    for model in plan["models"]:
        try:
            belief, points = fit_recorded(
                chosen.raw,
                model=model["name"],
                accelerator=chosen.accelerator,
                folder=chosen.plan / model["folder"],
                arguments=model["arguments"],
                weights_dtype=model["weights_dtype"],
                output=chosen.output / f"{model['folder']}.jsonl",
                catalog=catalog,
            )
        except InputError as error:
            print(f"{model['name']}: {error}")
            _print_kernels(chosen.raw, model, catalog, chosen.accelerator)
            continue
        print(f"{model['name']}: {len(belief.points)} step times, median {belief.median_error:.1%}")
        for point in points:
            if point.shape.kind == "load":
                errors = comparison_of(point).errors
                shown = ", ".join(f"{name} {value:+.0%}" for name, value in errors.items())
                print(f"  {point.shape.title}: predicted before {shown}")


def _print_kernels(raw: Path, model: dict[str, Any], catalog: Catalog, accelerator: str) -> None:
    """What torch alone took beside the shipped law; nothing is fitted to it."""
    deployment = Deployment(
        model=catalog.model(model["name"]),
        accelerator=catalog.accelerator(accelerator),
        weights_dtype=model["weights_dtype"],
    )
    for told, kernel, seconds, law_s in kernel_ratios(
        read_raw(raw), model=model["name"], deployment=deployment
    ):
        print(
            f"  not vLLM, {kernel}: {told}: {1e3 * seconds:.3f} ms, the law's {1e3 * law_s:.3f} ms "
            f"({law_s / seconds - 1:+.0%})"
        )


if __name__ == "__main__":
    main()
