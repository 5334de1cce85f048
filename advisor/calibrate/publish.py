"""`python -m advisor.calibrate.publish`: fit the shipped coefficients again and score them."""

from __future__ import annotations

from advisor.calibrate.ablation import ablations
from advisor.calibrate.board import DEFAULT_BOARD, board_of, write_board
from advisor.calibrate.fit import fit_coefficients
from advisor.calibrate.fitted import fit_file, write_fit
from advisor.calibrate.measurements import PUBLIC_TABLE, read_measurements
from advisor.calibrate.problem import harness_overheads
from advisor.calibrate.scoreboard import splits_of, text_of
from advisor.catalog import load_catalog
from advisor.catalog.fits import DEFAULT_FITS, load_fits


def main() -> None:
    """Write the coefficients and the scoreboard that belongs to them; takes minutes."""
    catalog = load_catalog()
    fit = fit_coefficients(read_measurements((PUBLIC_TABLE,)), catalog)
    for reason, count in fit.sample.left_out.items():
        print(f"{count:4d} rows left out: {reason}")
    write_fit(fit_file(fit))
    print(f"{len(fit.sample.rows)} rows fitted; {DEFAULT_FITS}", flush=True)
    file = load_fits(DEFAULT_FITS)
    splits = splits_of(fit, file, catalog, _report)
    overhead_s = harness_overheads(fit.problem, fit.solution.theta)
    board = board_of(splits, ablations(fit, _report), overhead_s=overhead_s, as_of=file.as_of)
    write_board(board)
    print(f"{text_of(board)}\n{DEFAULT_BOARD}")


def _report(step: str) -> None:
    print(f"scoring: {step}", flush=True)


if __name__ == "__main__":
    main()
