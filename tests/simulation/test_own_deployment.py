"""A deployment that was measured itself is simulated with what its points and its server showed."""

import json
from pathlib import Path

import numpy as np
import pytest

from advisor import TaskProfile
from advisor.catalog import load_catalog
from advisor.catalog.fits import DEFAULT_FITS, OwnSteps, calibration_for, load_fits
from advisor.catalog.locations import PROFILES
from advisor.physics.deployment import Deployment
from advisor.physics.own_steps import calibration_with_own, identity_of
from advisor.serving.cascade import SelfHosted
from advisor.serving.deployed import overhead_s
from advisor.serving.workload import workload_of
from advisor.simulation.tiers import DeployedTier, deploy

TASK = TaskProfile.load(PROFILES / "tasks" / "intent-classification.yaml")
CATALOG = load_catalog()
MODEL = "Qwen/Qwen3-1.7B"

SERVED = {
    "factor": 1.5, "step_s": 1e-3, "sequence_s": 1e-4, "newcomer_s": 2e-3, "request_s": 0.02,
}  # fmt: skip
OWN = {"points": 40, "log_sd": 0.05, "tokens": [1, 8], "extra_s": [0.0, 1e-3], "served": SERVED}


MEASURED = Deployment(
    model=CATALOG.model(MODEL), accelerator=CATALOG.accelerator("L40S"), weights_dtype="bf16"
)


@pytest.fixture
def accelerator(tmp_path: Path) -> str:
    """A file of the accelerator, and beside it the shipped fit had the deployment been measured."""
    fit = json.loads(DEFAULT_FITS.read_text(encoding="utf-8"))
    fit["deployments"] = {identity_of(MEASURED): OWN}
    (tmp_path / "own.fits.json").write_text(json.dumps(fit), encoding="utf-8")
    own = MEASURED.accelerator.model_dump(mode="json", exclude_none=True)
    path = tmp_path / "own.yaml"
    path.write_text(json.dumps(own | {"fits": "own.fits.json"}), encoding="utf-8")
    return str(path)


def deployed(accelerator: str, model: str = MODEL) -> DeployedTier:
    requests = workload_of(TASK).draw(count=200, seed=0)
    return deploy(
        TASK, CATALOG, requests, model=model, accelerator=accelerator, weights_dtype="bf16"
    )


def serving(tier: DeployedTier) -> SelfHosted:
    assert isinstance(tier.serving, SelfHosted)
    return tier.serving


def test_its_steps_its_overhead_and_its_doubt_are_its_own(accelerator: str) -> None:
    before, after = deployed("L40S"), deployed(accelerator)

    assert (before.calibration, after.calibration) == ("transferred", "measured")
    assert after.basis == f"40 points of this deployment of {load_fits().as_of}"
    assert after.log_sd == 0.05 < before.log_sd
    assert serving(after).request_overhead_s == 0.02
    law, own = serving(before).step, serving(after).step
    assert own.token_s[8] == pytest.approx(1.5 * (law.token_s[8] + 1e-3) + 1e-3)
    assert own.token_s[1] == pytest.approx(1.5 * law.token_s[1] + 1e-3)
    assert own.sample_s[8] == pytest.approx(1.5 * law.sample_s[8] + 8e-4)
    assert own.mixed_s == pytest.approx(1.5 * law.mixed_s + 2e-3)


def test_other_models_on_that_accelerator_stay_as_they_were(accelerator: str) -> None:
    before, after = (deployed(one, "Qwen/Qwen3-8B") for one in ("L40S", accelerator))

    assert after.calibration == before.calibration
    assert serving(after).request_overhead_s == serving(before).request_overhead_s
    assert np.array_equal(serving(after).step.token_s, serving(before).step.token_s)


def test_a_deployment_measured_in_process_keeps_the_assumed_overhead(accelerator: str) -> None:
    calibration = calibration_for(CATALOG.accelerator(accelerator))
    own = OwnSteps.model_validate(OWN | {"served": None})
    calibration = calibration.model_copy(update={"deployments": {identity_of(MEASURED): own}})

    assert overhead_s(calibration_with_own(calibration, MEASURED), 0.5) == 0.5
