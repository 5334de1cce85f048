"""Property tests here have no deadline: how long an example takes says nothing about its truth."""

from hypothesis import settings

settings.register_profile("quality", deadline=None, max_examples=60)
settings.load_profile("quality")
