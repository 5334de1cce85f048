"""Result files of other load tools, read into the measurement format."""

from advisor.calibrate.importers.files import FORMATS, import_results, write_measurements

__all__ = ["FORMATS", "import_results", "write_measurements"]
