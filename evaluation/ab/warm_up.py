"""What is learned from before the run: logged exposures of users who are not in it."""

from __future__ import annotations

import logging
import time

import numpy as np

from evaluation.simulator.fit import is_fitted
from onerec.kafka.writer import RecordWriter
from onerec.service import Stop
from onerec.settings import Settings
from schemas.topics import REQUESTS, id_key
from stream.replay.command import disorder_of
from stream.replay.log import Exposures
from stream.replay.messages import event, event_rows
from stream.replay.schedule import schedule
from stream.replay.visits import visits_of

LOG = logging.getLogger(__name__)
FLUSH_S = 60.0


def warm_exposures(exposures: Exposures, count: int) -> Exposures:
    """The first `count` exposures of the half of the users that the simulator was fitted on."""
    return exposures.rows(np.flatnonzero(is_fitted(exposures.user_ids))[:count])


def send_warm_up(settings: Settings, exposures: Exposures, stop: Stop) -> int:
    """Publish impressions and actions as the replay does, but no requests; how many records."""
    visits, disorder = visits_of(exposures), disorder_of(settings)
    writer, sent = RecordWriter(settings.kafka), 0
    plan = schedule(exposures, visits, disorder)
    for _, kind, row in event_rows(exposures, visits, plan, disorder.view_report_ms):
        topic, record = event(kind, row, time.time_ns() // 1_000_000)
        if topic is REQUESTS:
            continue
        if stop.is_set():
            break
        writer.send(topic, id_key(row[1]), record, timestamp_ms=row[3])
        sent += 1
    writer.flush(FLUSH_S)
    LOG.info("warm-up: %d exposures, %d records", len(exposures), sent)
    return sent
