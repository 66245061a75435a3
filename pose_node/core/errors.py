"""The one error of the package."""


class PoseNodeError(ValueError):
    """What was got, what was wanted and what to do, in a sentence a user can act on."""
