"""Live trial: real load on real endpoints, and a verdict beside the projection."""
