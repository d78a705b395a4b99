"""`python -m onerec.health`: exit code 0 when the service on this machine is ready, for health checks.

A service that is ready and goes on without something, such as its weights store, is named so, with exit code 0: to
start it again would mend nothing.
"""

from __future__ import annotations

import sys

from onerec.errors import ExitCode, OneRecError
from onerec.metrics import read_metrics
from onerec.settings import load_settings


def main() -> int:
    """Read the service's own metrics endpoint; 4 while it is not ready or does not answer."""
    try:
        metrics = load_settings().metrics
    except OneRecError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    samples = read_metrics(metrics.port, host=metrics.host.replace("0.0.0.0", "127.0.0.1"))  # noqa: S104
    ready = samples.get("onerec_ready", {})
    if ready and all(ready.values()):
        for labels, lacking in samples.get("onerec_degraded", {}).items():
            if lacking:
                sys.stderr.write(f"ready, but without its {dict(labels)['lacks']}: see its log\n")
        return int(ExitCode.DONE)
    sys.stderr.write("not ready\n" if ready else f"nothing answers on port {metrics.port}\n")
    return int(ExitCode.CHECK_FAILED)


if __name__ == "__main__":
    sys.exit(main())
