"""Which version is to be served: the newest, unless a directive on model-versions says otherwise."""

from __future__ import annotations

from schemas.records import ModelVersion, VersionStatus


class ServingChoice:
    """Fed by the records of one model in the order of the topic; says which version readers are to serve."""

    def __init__(self) -> None:
        self.newest: int = 0
        self.directive: ModelVersion | None = None
        self._rolled_back_at = 0

    def apply(self, record: ModelVersion) -> None:
        """Take a published version or a directive."""
        if record.status is VersionStatus.PUBLISHED:
            self.newest = max(self.newest, record.version)
            return
        self.directive = None if record.status is VersionStatus.UNPINNED else record
        self._rolled_back_at = self.newest

    @property
    def version(self) -> int | None:
        """The version to serve; None where none has been published."""
        return self.pinned or self.rolled_back or self.newest or None

    @property
    def pinned(self) -> int | None:
        """The version that is served until it is unpinned."""
        pinned = self.directive is not None and self.directive.status is VersionStatus.PINNED
        return self.directive.version if self.directive is not None and pinned else None

    @property
    def rolled_back(self) -> int | None:
        """The version that is served until a newer one than any known at the rollback is published."""
        directive = self.directive
        if directive is None or directive.status is not VersionStatus.ROLLED_BACK:
            return None
        return directive.version if self.newest <= self._rolled_back_at else None
