"""Quality: published evidence, labels, hard gates, confidence, and certified thresholds."""
