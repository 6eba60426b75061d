"""Every error that users see: each names the thing, the value found and the next step."""


class AnomalyError(Exception):
    """Base class: an expected failure, shown without a traceback, a line for each argument."""

    def __str__(self) -> str:
        """The lines."""
        return "\n".join(map(str, self.args))


class SettingsError(AnomalyError):
    """A setting has a value that is not allowed."""


class DatabaseError(AnomalyError):
    """The database cannot be reached, is not migrated, or refuses the role."""


class RefusedError(DatabaseError):
    """The database refuses what is asked, and will until somebody has changed something."""


class SourceError(AnomalyError):
    """The meter table does not look like the settings say."""


class IngestError(AnomalyError):
    """A file cannot be loaded; nothing of it was."""


class RecordError(AnomalyError):
    """A record handed in to be judged cannot be read; none was judged."""


class WindowError(AnomalyError):
    """A time range is empty, reversed, naive or not yet due."""


class NoModelError(AnomalyError):
    """No model version is in force for the readings to be scored."""


class MachineError(AnomalyError):
    """A machine is not known, or what the database says of it makes no sense."""


class SiteError(AnomalyError):
    """A site is not known, or its price or shifts make no sense."""


class LabelError(AnomalyError):
    """An acknowledgement names an incident that is not there, or is over."""


class KeyNameError(AnomalyError):
    """A key of the API is not there, or its name is taken or no name."""


class AlertError(AnomalyError):
    """A route, a template or a silence makes no sense, or names what is not there."""


class TrainingError(AnomalyError):
    """The training window does not hold enough readings."""


class ArtefactError(AnomalyError):
    """A model file is missing, changed or of an unknown format; it was not opened."""


class FolderTakenError(ArtefactError):
    """The folder of a new version is there already; nothing was written."""


class PromotionError(AnomalyError):
    """A version cannot be put in force, or was refused by the judge."""


class StaleAttemptError(AnomalyError):
    """A newer attempt has published an overlapping window; this one was not written."""
