"""What the package raises on purpose.

AdvisorError
├── InputError        the user gave something that cannot be used
└── DoesNotFitError   a model, an accelerator and settings that exclude each other
"""


class AdvisorError(Exception):
    """Base of every error whose message is written for the user, in one line."""


class InputError(AdvisorError, ValueError):
    """Names the field, the value and what would be accepted; exit code 2."""


class DoesNotFitError(AdvisorError):
    """A deployment that cannot exist, with the shortfall in the message."""
