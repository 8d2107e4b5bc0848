"""The errors that leave this package.

::

    Eco2AIError
    ├── ConfigError   a setting is wrong; raised at construction, before any training, with the fix in the message
    │   └── TakenError   only because another process has what is set
    └── Unavailable   a reader or grid cannot work on this machine; the next candidate is tried

Nothing else is raised on purpose, and nothing at all once training has begun: what fails then is a `Failure` record, logged
once per cause and counted in `hf_training_monitoring_errors_total`.
"""


class Eco2AIError(Exception):
    """Root of the tree above."""


class ConfigError(Eco2AIError, ValueError):
    """A setting is unknown or wrong. The message names the setting, its unit and the nearest right one."""


class TakenError(ConfigError):
    """Another process has the port, or the folder, that this one is to have."""


class Unavailable(Eco2AIError):  # noqa: N818 - a state of the machine, not a mistake
    """A reader or grid cannot be used on this machine.

    `remedy` is what the user can do about it, or None where nothing can be done (no such hardware).
    """

    def __init__(self, reason: str, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
