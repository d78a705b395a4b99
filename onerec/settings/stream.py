"""Settings of stream/: joiner, tokenizer, replay."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from onerec.settings.table import Share, Table


class LabelSettings(Table):
    """When a view counts as a long view: KuaiRand's own rule, which its flag `long_view` follows without exception."""

    long_view_ms: int = Field(18_000, ge=0, description="Watched at least this long, or")
    short_video_share: Share = Field(1.0, description="this share of an item whose length is known,")
    clock_ms: int = Field(1_000, ge=1, description="the length counted in whole steps of this: 7.6 s is 7 s.")

    def is_long_view(self, watch_ms: int, duration_ms: int) -> bool:
        """Whether a view of `watch_ms` of an item of `duration_ms` (0: unknown) is a long one."""
        whole_ms = duration_ms // self.clock_ms * self.clock_ms
        return watch_ms >= self.long_view_ms or (whole_ms > 0 and watch_ms >= self.short_video_share * whole_ms)


class HighQualityRule(Table):
    """The paper's high-quality session (section 3.1); the paper names the criteria but no values."""

    min_watched: int = Field(5, ge=0, description="Items with a long view.")
    min_total_watch_ms: int = Field(60_000, ge=0, description="Total watch time of the session.")
    need_interaction: bool = Field(True, description="A like, follow, comment or share.")
    combine: str = Field("any", pattern="^(any|all)$", description="Whether one criterion is enough.")


class JoinerSettings(Table):
    """Impressions and actions to sessions and histories."""

    session_items: int = Field(5, ge=1, le=64, description="m: a session closes at so many items.")
    session_gap_ms: int = Field(600_000, ge=1, description="or when so much event time passes without one.")
    feedback_window_ms: int = Field(120_000, ge=1, description="Event time an impression waits for its actions.")
    allowed_lateness_ms: int = Field(0, ge=0, description="How far the watermark stays behind the newest event.")
    idle_close_s: float = Field(
        60.0, gt=0, description="Wall time without input after which a partition's windows close."
    )
    history_items: int = Field(50, ge=1, le=100_000, description="n: exposures kept a user.")
    max_future_ms: int = Field(3_600_000, ge=0, description="Events further ahead of the wall clock are refused.")
    max_watch_ms: int = Field(86_400_000, ge=1, description="Longer watch times are refused.")
    known_items_only: bool = Field(True, description="Refuse events on items that have no semantic id.")
    transaction_events: int = Field(100_000, ge=1, description="A transaction ends after so many events")
    transaction_ms: int = Field(100, ge=1, description="or so much wall time.")
    instance: str = Field("0", pattern=r"^[A-Za-z0-9._-]+$", description="Makes the transactional id; one an instance.")
    static_member: bool = Field(
        True,
        description="Restarted, it gets its partitions back at once instead of after the session's timeout; a joiner "
        "that is taken away is missed only after that timeout, and by the embedded broker never.",
    )
    compiled: bool = Field(
        True, description="Join by the compiled join where it is built; Python gives the same results, more slowly."
    )
    labels: LabelSettings = LabelSettings()
    high_quality: HighQualityRule = HighQualityRule()


class StoredCodes(StrEnum):
    """Which codes the items keep that a codebook was fitted on."""

    ARGMIN = "argmin"
    BALANCED = "balanced"


class TokenizerSettings(Table):
    """Item embeddings to semantic ids."""

    codebook: int | None = Field(None, ge=1, description="Version of the codebook; None for the newest.")
    max_batch: int = Field(512, ge=1, description="Items tokenised together.")
    stored: StoredCodes = Field(
        StoredCodes.ARGMIN, description="argmin: the nearest, as later items get; balanced: the cluster that took them."
    )
    max_sweeps: int = Field(50, ge=1, description="Of the balanced K-means, a level: it settles slowly at the end.")
    seed: int = Field(0, ge=0, description="Chooses the first centroids.")


class ReplaySettings(Table):
    """Publishing a log."""

    speed: float = Field(0.0, ge=0.0, description="Event time per wall time; 0 for as fast as it goes.")
    shuffle_ms: int = Field(0, ge=0, description="Events are displaced by up to so much event time.")
    late_share: Share = Field(0.0, description="Share of actions sent after their window has closed.")
    ask_ahead_ms: int = Field(
        0, ge=0, description="Requests are sent so much event time early, so that answers are there when needed."
    )
    max_unanswered: int = Field(0, ge=0, description="Pause while so many requests have no answer; 0 never pauses.")
    await_shadow: bool = Field(
        False, description="A request counts as answered once the shadow worker has answered it, too."
    )
    answer_timeout_s: float = Field(30.0, gt=0, description="A request without an answer is then given up.")
    view_report_ms: int | None = Field(
        None,
        ge=0,
        description="A view is reported when it ends or after so long, with the watch time until then; 0 waits for "
        "the end. None is one second less than the joiner's feedback window, after which a report comes too late.",
    )
    seed: int = Field(0, description="Of the injected disorder, so that it can be repeated.")


class StreamSettings(Table):
    """Everything in stream/."""

    joiner: JoinerSettings = JoinerSettings()
    tokenizer: TokenizerSettings = TokenizerSettings()
    replay: ReplaySettings = ReplaySettings()
