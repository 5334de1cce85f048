"""What a recommendation is deployed with: files that other programmes read."""
