"""Settings of every service: defaults < TOML file < environment < flags.

A table for each folder (`stream`, `trainer`, `inference`) and one for each thing they share. The environment
spells a key `ONEREC_TRAINER__LEARNING_RATE`; the TOML file is named by `ONEREC_CONFIG` or `--config`. An
unknown key or a contradiction is an error that names it.
"""

from __future__ import annotations

import os
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from onerec.errors import SettingsError

CONFIG_VARIABLE = "ONEREC_CONFIG"
OTHER_VARIABLES = ("ONEREC_CONFIG", "ONEREC_LOG", "ONEREC_BOOTSTRAP_SERVERS")
OTHER_PREFIXES = ("ONEREC_TEST_",)
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Table(BaseModel):
    """A table of settings: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(Table):
    """How to reach the broker and how topics are laid out."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="Brokers, host:port, comma-separated.")
    topic_prefix: str = Field("", description="Put before every topic name, so that systems can share a broker.")
    partitions: int = Field(4, ge=1, le=10_000, description="Partitions of every topic keyed by user_id.")
    replication_factor: int = Field(1, ge=1, description="Replicas of every topic.")
    retention_ms: int = Field(
        -1,
        ge=-1,
        description="Retention of topics that go by time; -1 keeps all. A replayed "
        "log carries the event times of its past: with a week's retention it is deleted at once.",
    )
    max_message_bytes: int = Field(
        2_097_152, ge=65_536, description="Largest record of a topic; dead-letters takes twice that, a record and why."
    )
    group_protocol: str = Field("classic", pattern="^(classic|consumer)$", description="consumer is KIP-848, Kafka 4.")
    group_prefix: str = Field("onerec-", description="Put before every consumer group's name.")
    schema_registry_url: str | None = Field(
        None, description="Confluent wire format with this registry; else Avro single-object encoding."
    )
    librdkafka: dict[str, str] = Field(
        default_factory=dict, description="Further librdkafka properties for every client, security among them."
    )
    broker_patience_s: float = Field(
        30.0, gt=0, description="A service ends with exit code 3 when no broker has answered for so long."
    )
    sasl_password: SecretStr | None = Field(None, description="sasl.password, kept out of logs.")


class StoreSettings(Table):
    """Where weights, codebooks, checkpoints and local state lie."""

    uri: str = Field("runs/store", description="Weights store: a folder or any fsspec URI.")
    state_dir: Path = Field(Path("runs/state"), description="Local state: RocksDB and checkpoints. One a process.")
    keep_versions: int = Field(200, ge=2, description="Versions kept in the store besides pinned ones and bases.")


class MetricsSettings(Table):
    """The Prometheus endpoint of a service."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65535, description="0 for any free port.")


class ModelSettings(Table):
    """Which model: a preset of onerec.model.presets."""

    name: str = Field("onerec", description="Key on model-versions and trainer-journal.")
    preset: str = Field("small", description="tiny, small, base or 1b.")


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
    transaction_events: int = Field(20_000, ge=1, description="A transaction ends after so many events")
    transaction_ms: int = Field(200, ge=1, description="or so much wall time.")
    instance: str = Field("0", pattern=r"^[A-Za-z0-9._-]+$", description="Makes the transactional id; one an instance.")
    static_member: bool = Field(
        True,
        description="Restarted, it gets its partitions back at once instead of after the session's timeout; a joiner "
        "that is taken away is missed only after that timeout, and by the embedded broker never.",
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


class SeedSettings(Table):
    """The first training, from histories (measured on KuaiRand: annealed, positives, newest sessions first)."""

    budget_s: float = Field(300.0, gt=0, description="Wall time; ignored where samples is set.")
    samples: int | None = Field(None, ge=1, description="Exactly so many samples: reproducible across runs.")
    threads: int = Field(2, ge=1, description="Threads while the seed trains: each takes a part of every batch.")
    batch: int = Field(128, ge=1, description="Samples a step.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak; it decays linearly.")
    final_share: Share = Field(0.05, description="Learning rate at the end, as a share of learning_rate.")
    warmup_share: Share = Field(0.1, description="Share of the budget over which the rate rises.")
    negative_weight: Share = Field(1.0, description="Loss weight of other exposures at first; falls to 0.")
    half_life: float = Field(2.0, gt=0, description="Sessions of a user after which one is half as likely, at first")
    final_half_life: float = Field(0.25, gt=0, description="and at the end of the budget.")
    reward_every: int = Field(2, ge=1, description="The reward model learns in every so many-th step.")
    settle_s: float = Field(1.0, ge=0, description="Histories and catalogue are complete when neither has grown.")
    wait_s: float = Field(60.0, ge=0, description="How long to wait for histories before a seed without any.")


class TrainOn(StrEnum):
    """Which exposures of a session the next-token loss covers."""

    POSITIVES = "positives"
    HIGH_QUALITY = "high_quality"
    ALL = "all"


class TrainerSettings(Table):
    """The continuous trainer."""

    random_seed: int = Field(17, description="Of initial weights and dropout: a function of it and the step.")
    threads: int = Field(1, ge=1, description="torch threads; part of what makes a version reproducible.")
    learning_rate: float = Field(1e-4, gt=0, description="Constant after warmup_steps: the stream has no end.")
    reward_learning_rate: float = Field(1e-3, gt=0, description="Of the reward model.")
    warmup_steps: int = Field(20, ge=0, description="Steps over which the rate rises from 0.")
    betas: tuple[float, float] = Field((0.9, 0.98), description="Of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Of AdamW.")
    clip_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    batch: int = Field(64, ge=1, description="Sessions a step, at most.")
    batch_wait_ms: int = Field(300, ge=0, description="A step starts after so long with what is there.")
    train_on: TrainOn = Field(
        TrainOn.POSITIVES, description="positives, high_quality or all: what next-token loss covers."
    )
    preference_loss: str = Field(
        "dpo",
        pattern="^(dpo|ipo|cdpo|rdpo|cpo|simpo|sdpo|none)$",
        description="dpo, ipo, cdpo, rdpo, cpo, simpo or sdpo; none to switch it off.",
    )
    preference_weight: float = Field(
        0.1,
        ge=0,
        description="lambda: NTP is the mean per token, this multiplies the "
        "mean over the step's pairs of the loss on summed log-probabilities.",
    )
    preference_beta: float = Field(0.1, gt=0, description="beta of the preference loss (tau of IPO).")
    preference_batch: int = Field(16, ge=0, description="Pairs a step, at most.")
    pair_window: int = Field(
        100_000, ge=1, description="Pair and session ids remembered, so that each is applied once."
    )
    expert_bias_rate: float = Field(1e-3, ge=0, description="u of the loss-free balancing rule.")
    publish_interval_s: float = Field(1.0, gt=0, description="A version at most so often, and only after a step.")
    full_every: int = Field(50, ge=1, description="Every so many versions a full one; deltas between.")
    publish_dtype: str = Field("bfloat16", pattern="^(bfloat16|float32)$", description="Of the published weights.")
    checkpoint_interval_s: float = Field(30.0, gt=0, description="Between checkpoints; a restart repeats at most this.")
    keep_checkpoints: int = Field(3, ge=1, description="Besides the seed's, which is kept for ever.")
    seed: SeedSettings = SeedSettings()


class DecodingSettings(Table):
    """Beam search of worker and sampler."""

    beam_width: int = Field(32, ge=1, le=4096, description="Beams a request; 10 are measurably too few.")
    later_beam_width: int | None = Field(
        None, ge=1, description="Beams from a session's second item on; none for beam_width throughout."
    )
    threads: int = Field(1, ge=1, description="torch threads.")

    @model_validator(mode="after")
    def _beams_do_not_grow(self) -> Self:
        if self.later_beam_width is not None and self.later_beam_width > self.beam_width:
            raise ValueError("later_beam_width cannot be above beam_width")
        return self


class WorkerSettings(Table):
    """Requests to recommendations."""

    max_batch: int = Field(8, ge=1, description="Requests decoded together.")
    max_wait_ms: float = Field(2.0, ge=0, description="How long a batch waits to fill.")
    deadline_ms: int = Field(2000, ge=1, description="Where the request names none.")
    session: bool = Field(True, description="Generate the session of m items; else only the ranked next items.")
    pin_version: int | None = Field(None, description="Serve this version whatever is published: a shadow worker.")
    output_topic: str = Field("recommendations", description="A shadow worker answers elsewhere.")
    group: str = Field("worker", description="Consumer group; a shadow worker has its own.")


class Candidates(StrEnum):
    """How the sampler makes its candidates."""

    BEAM = "beam"
    SAMPLE = "sample"


class RewardWeights(Table):
    """The scalar reward: a weighted sum of standardised objectives (the paper does not disclose the merge)."""

    swt: float = Field(1.0, description="Weight of session watch time.")
    vtr: float = Field(1.0, description="Weight of view-through.")
    wtr: float = Field(0.5, description="Weight of follows.")
    ltr: float = Field(1.0, description="Weight of likes.")


class SamplerSettings(Table):
    """Live requests to preference pairs."""

    share: Share = Field(0.01, description="Of live requests, by a hash of the request id.")
    candidates: int = Field(128, ge=2, description="N sessions a request.")
    method: Candidates = Field(
        Candidates.SAMPLE, description="beam or sample; sampling spreads rewards 2.4 times wider."
    )
    temperature: float = Field(1.0, gt=0, description="Of sampling; log-probabilities are always those at 1.")
    rewards: RewardWeights = RewardWeights()


class InferenceSettings(Table):
    """Everything in inference/."""

    decoding: DecodingSettings = DecodingSettings()
    worker: WorkerSettings = WorkerSettings()
    sampler: SamplerSettings = SamplerSettings()


class EvaluationSettings(Table):
    """The prequential evaluation and its baselines by visit."""

    visit_gap_ms: int = Field(1_800_000, ge=1, description="A visit ends when so much event time passes.")
    min_history: int = Field(3, ge=0, description="Headline figures are of users with so many earlier exposures.")
    popularity_half_life_ms: int = Field(21_600_000, ge=1, description="Counts of decayed popularity halve in this.")
    cooccurrence_last: int = Field(
        50, ge=1, description="A user's newest exposures, from which co-occurrence predicts."
    )
    cooccurrence_weight: float = Field(
        5.0, gt=0, description="A pair of exposures in the stream counts so many times one of the histories."
    )


class Settings(BaseSettings):
    """All tables. Build it with `load_settings`, which turns errors into sentences."""

    model_config = SettingsConfigDict(env_prefix="ONEREC_", env_nested_delimiter="__", extra="forbid", frozen=True)

    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()
    metrics: MetricsSettings = MetricsSettings()
    model: ModelSettings = ModelSettings()
    stream: StreamSettings = StreamSettings()
    trainer: TrainerSettings = TrainerSettings()
    inference: InferenceSettings = InferenceSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        worker = self.inference.worker
        if worker.pin_version is not None and worker.output_topic == "recommendations" and worker.group != "worker":
            raise ValueError("inference.worker.pin_version with its own group needs its own output_topic")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the framework's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the TOML file."""
        path = os.environ.get(CONFIG_VARIABLE)
        toml = (TomlConfigSettingsSource(settings_cls, Path(path)),) if path else ()
        return (init_settings, env_settings, *toml)


def _check_environment() -> None:
    """A misspelt table would be ignored by the framework: name it instead."""
    for name in os.environ:
        if not name.startswith("ONEREC_") or name in OTHER_VARIABLES or name.startswith(OTHER_PREFIXES):
            continue
        table = name.removeprefix("ONEREC_").split("__")[0].lower()
        if "__" not in name or table not in Settings.model_fields:
            tables = ", ".join(Settings.model_fields)
            raise SettingsError(
                f"The environment variable {name} names no setting.",
                f"Spell it ONEREC_<TABLE>__<KEY> with a table of {tables}; `onerec config` lists all keys.",
            )


def _flatten(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(str(part) for part in e['loc']) or 'settings'}: {e['msg']}" for e in error.errors())


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Read all sources; `flags` are tables as dicts and win.

    Raises SettingsError naming the key for an unknown one, a wrong value or a contradiction, and for a file
    that is missing or no TOML.
    """
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not Path(path).is_file():
        raise SettingsError(f"The configuration file {path} does not exist.", f"Mend --config or {CONFIG_VARIABLE}.")
    _check_environment()
    try:
        return Settings(**flags)
    except ValidationError as error:
        raise SettingsError(f"Settings are wrong: {_flatten(error)}.", "`onerec config` lists all keys.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}.", "Mend the file.") from error
