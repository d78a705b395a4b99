"""Reads the topics afresh and says what is lost, double or wrong, sharing no code with the services.

Read it in this order: `findings` is what comes out, `log` reads partitions, `refusals` and `events` bring in what the
joiner was given and refused, `exposure` and `matching` say what became of one user's events, `grouping` which sessions
are missing, `published` and `user` hold that against sessions and histories, `joined` does so for a partition;
`journal`, `learned` and `versions` audit the trainer, `answered` requests and pairs; `auditor` puts it together.
"""

from audit.auditor import run
from audit.findings import Findings

__all__ = ["Findings", "run"]
