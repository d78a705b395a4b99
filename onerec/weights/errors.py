"""What can be wrong with a weights store or with a version in it."""

from __future__ import annotations

from onerec.errors import CheckFailedError, DependencyMissingError, SettingsError


class StoreUnreachableError(DependencyMissingError):
    """The file system of the store does not answer; try again later."""


class VersionMissingError(SettingsError):
    """The store has no such version, or an ancestor that its delta needs is gone."""


class CorruptWeightsError(CheckFailedError):
    """A manifest or file is torn, or not what its manifest or checksum says. Nothing of it was handed out."""


class WrongSignatureError(CheckFailedError):
    """A version is not signed, or not with the key that is trusted here. Nothing of it was handed out."""


class OutsideStoreError(CheckFailedError):
    """A URI names something outside the configured store."""


class IncompatibleWeightsError(CheckFailedError):
    """Names, dtypes or shapes differ from those of the parent or of the model."""
