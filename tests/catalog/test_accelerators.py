"""Accelerators, what they hold, and what an hour of them costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.catalog import AcceleratorSpec, load_catalog
from advisor.catalog.fits import calibration_for, load_fits
from advisor.errors import InputError

CATALOG = load_catalog()

MINE = """
id: My-GPU
vendor: nvidia
arch: hopper
memory_gb: 64
mem_bw_gbps: 2000
bf16_tflops_dense: 500
fp8_tflops_dense: null
int8_tops_dense: 1000
fp4_tflops_dense: null
interconnect_gbps_unidir: 64
interconnect: "PCIe5 x16"
tdp_w: 300
confidence: "sourced"
source: "datasheet"
usd_per_gpu_hour: {mycloud: 1.5, vast: 0.9}
note: "ours"
"""


def test_twenty_three_accelerators() -> None:
    assert len(CATALOG.accelerators) == 23


def test_memory_is_what_the_driver_shows_where_known() -> None:
    """143,771 MiB of an H200 are 150.75e9 bytes, not the 141e9 on the box."""
    assert CATALOG.accelerator("H200-SXM").memory_bytes == 143_771 * 1_048_576
    assert CATALOG.accelerator("MI325X").memory_bytes == 256e9


@pytest.mark.parametrize("spec", CATALOG.accelerators.values(), ids=lambda spec: spec.id)
def test_figures_are_within_reason(spec: AcceleratorSpec) -> None:
    """Usable memory lies between the decimal and the binary reading of the box, less 5 %."""
    assert 0.95 * spec.memory_gb * 1e9 <= spec.memory_bytes <= 1.001 * spec.memory_gb * 2**30
    narrower = (spec.fp8_tflops_dense, spec.int8_tops_dense, spec.fp4_tflops_dense)
    assert all(rate >= spec.bf16_tflops_dense for rate in narrower if rate)
    assert spec.source and spec.as_of


def test_a_format_without_units_is_computed_in_the_next_wider_one() -> None:
    ampere, hopper = CATALOG.accelerator("A100-80GB-SXM"), CATALOG.accelerator("H100-SXM")
    assert ampere.peak_flops("fp8") == ampere.peak_flops("bf16") == 312e12
    assert not ampere.computes("fp8") and ampere.computes("int8")
    assert hopper.peak_flops("fp4") == hopper.peak_flops("fp8") == 1979e12
    assert not hopper.computes("int4") and hopper.peak_flops("int4") == 989e12


@pytest.mark.parametrize(
    ("name", "accelerator"),
    [("h200", "H200-SXM"), ("l4", "L4"), ("NVIDIA H100 80GB HBM3", "H100-SXM"), ("t4", "T4")],
)
def test_names_people_and_drivers_use(name: str, accelerator: str) -> None:
    assert CATALOG.accelerator(name).id == accelerator


def test_h100_alone_is_ambiguous() -> None:
    with pytest.raises(InputError, match="'h100' can mean H100-SXM, H100-PCIe, H100-NVL"):
        CATALOG.accelerator("h100")


def test_a_short_prefix_is_not_another_card() -> None:
    with pytest.raises(InputError, match="did you mean"):
        CATALOG.accelerator("L400")


@pytest.mark.parametrize(
    "wrap",
    [
        "{}",
        "gpus:\n  - {}",
        "price_date: '2026-05-01'\ngpus:\n  - {}",
        "price_date: 2026-05-01\ngpus:\n  - {}",
    ],
)
def test_a_path_serves_as_a_name(tmp_path: Path, wrap: str) -> None:
    file = tmp_path / "mine.yaml"
    indent = "\n    " if "- " in wrap else "\n"
    file.write_text(wrap.format(MINE.strip().replace("\n", indent)))
    spec = CATALOG.accelerator(str(file))
    assert (spec.id, spec.memory_bytes, spec.peak_flops("fp8")) == ("My-GPU", 64e9, 500e12)
    grown = CATALOG.including(accelerators=[spec])
    assert [price.usd_per_hour for price in grown.gpu_prices("My-GPU")] == [1.5]
    assert [price.usd_per_hour for price in grown.gpu_prices("My-GPU", marketplace=True)] == [
        *(0.9, 1.5)
    ]
    if "price_date" in wrap:
        assert grown.gpu_prices("My-GPU")[0].as_of == "2026-05-01"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (MINE.replace("memory_gb: 64", "memory_gb: lots"), "memory_gb = 'lots'"),
        (MINE.replace("vendor", "vendr"), "'vendor' is missing|unknown key 'vendr'"),
        (MINE + "as_of: yesterday", "as_of = 'yesterday'"),
        ("gpus: []", "gpus must list exactly one accelerator"),
        ("- 1", "a mapping of keys to values was expected"),
    ],
)
def test_a_wrong_accelerator_file_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=complaint):
        CATALOG.accelerator(str(file))


def test_prices_come_cheapest_first_and_without_marketplaces() -> None:
    prices = CATALOG.gpu_prices("H100-SXM")
    assert [(price.provider, price.usd_per_hour) for price in prices] == [
        ("runpod", 2.69),
        ("scaleway", 3.58),
        ("datacrunch", 3.7),
        ("lambda", 3.99),
        ("digitalocean", 4.41),
    ]
    assert CATALOG.gpu_prices("H100-SXM", marketplace=True)[0].provider == "vast"
    assert [price.usd_per_hour for price in CATALOG.gpu_prices("H100-SXM", clouds=["Lambda"])] == [
        3.99
    ]
    assert CATALOG.gpu_prices("TPU-v5e") == ()


def test_every_price_names_an_accelerator_a_date_and_a_source() -> None:
    assert len(CATALOG.prices) == 51
    for price in CATALOG.prices:
        assert price.accelerator in CATALOG.accelerators
        assert price.as_of.startswith("2026-") and price.source


def test_a_users_price_replaces_the_listed_one_of_that_provider() -> None:
    listed = CATALOG.gpu_prices("L4", clouds=["runpod"])[0]
    mine = listed.model_copy(update={"usd_per_hour": 0.1, "source": "our contract"})
    assert CATALOG.including(prices=[mine]).gpu_prices("L4", clouds=["runpod"]) == (mine,)


def test_a_file_of_ones_own_brings_its_own_coefficients(tmp_path: Path) -> None:
    """What `calibrate run` leaves: an accelerator file that names the fit measured on it."""
    shipped = load_fits()
    measured = shipped.accelerators["H100-SXM"]
    own = shipped.model_copy(update={"accelerators": {"MyChip": measured}})
    (tmp_path / "my.fits.json").write_text(own.model_dump_json(), encoding="utf-8")
    path = tmp_path / "my.yaml"
    path.write_text(
        "{id: MyChip, vendor: nvidia, arch: hopper, memory_gb: 80, mem_bw_gbps: 3350, "
        "bf16_tflops_dense: 989, interconnect_gbps_unidir: 450, fits: my.fits.json}"
    )
    accelerator = load_catalog().accelerator(str(path))
    assert calibration_for(accelerator).label == "calibrated"
    assert "MyChip" in calibration_for(accelerator).basis

    path.write_text(path.read_text().replace("my.fits", "lost.fits"))
    accelerator = load_catalog().accelerator(str(path))
    with pytest.raises(InputError, match=r"lost\.fits\.json"):
        calibration_for(accelerator)
