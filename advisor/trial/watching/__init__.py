"""What others say while a trial runs: the servers' metrics and spans, and the machine itself."""
