"""Settings of every service; `load_settings` reads them. One file a folder that they belong to."""

from onerec.settings.evaluation import EvaluationSettings
from onerec.settings.inference import (
    Candidates,
    DecodingSettings,
    InferenceSettings,
    RewardWeights,
    SamplerSettings,
    WorkerSettings,
)
from onerec.settings.kafka import KafkaSettings
from onerec.settings.sources import CONFIG_VARIABLE, OTHER_PREFIXES, OTHER_VARIABLES, Settings, load_settings
from onerec.settings.store import MetricsSettings, StoreSettings
from onerec.settings.stream import (
    HighQualityRule,
    JoinerSettings,
    LabelSettings,
    ReplaySettings,
    StoredCodes,
    StreamSettings,
    TokenizerSettings,
)
from onerec.settings.table import Table
from onerec.settings.trainer import ModelSettings, SeedSettings, TrainerSettings, TrainOn

__all__ = [
    "CONFIG_VARIABLE",
    "OTHER_PREFIXES",
    "OTHER_VARIABLES",
    "Candidates",
    "DecodingSettings",
    "EvaluationSettings",
    "HighQualityRule",
    "InferenceSettings",
    "JoinerSettings",
    "KafkaSettings",
    "LabelSettings",
    "MetricsSettings",
    "ModelSettings",
    "ReplaySettings",
    "RewardWeights",
    "SamplerSettings",
    "SeedSettings",
    "Settings",
    "StoreSettings",
    "StoredCodes",
    "StreamSettings",
    "Table",
    "TokenizerSettings",
    "TrainOn",
    "TrainerSettings",
    "WorkerSettings",
    "load_settings",
]
