"""A trial's load: `schedules` say when, a `plan` what, `sender` sends it, `driver` runs it."""
