"""`python -m chaos`: see `--help`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from chaos.driver import Options, run
from chaos.faults import FAULTS


def main() -> int:
    """Runs the chaos and prints the report; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="chaos",
        description="Real processes on real servers under load, faults all the time, an oracle at the end.",
        epilog=f"Faults: {', '.join(FAULTS)}.",
    )
    parser.add_argument("--log", choices=["kafka", "redis"], default="kafka")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long load and faults last")
    parser.add_argument("--executions", type=int, default=2000, help="how many are submitted in that time")
    parser.add_argument("--every", type=float, default=3.0, metavar="SECONDS", help="between faults, on average")
    parser.add_argument("--seed", type=int, default=random.randrange(2**16), help="chooses load and faults")
    parser.add_argument("--only", default="", metavar="A,B*", help="only these faults")
    parser.add_argument("--without", default="", metavar="A,B*", help="not these faults")
    parser.add_argument("--lose-log", action="store_true", help="Kafka also loses all its data")
    parser.add_argument("--twice", action="store_true", help="every record is sent twice")
    parser.add_argument("--no-fail-points", action="store_true", help="no process dies by itself")
    parser.add_argument("--keep", type=Path, help="directory for data, logs and report (default: a new one in /tmp)")
    given = parser.parse_args()
    options = Options(
        log=given.log,
        minutes=given.minutes,
        executions=given.executions,
        every=given.every,
        seed=given.seed,
        only=tuple(filter(None, given.only.split(","))),
        without=tuple(filter(None, given.without.split(","))),
        lose_log=given.lose_log,
        twice=given.twice,
        fail_points=not given.no_fail_points,
    )
    directory = given.keep or Path(tempfile.mkdtemp(prefix="wf-chaos-"))
    directory.mkdir(parents=True, exist_ok=True)
    outcome = asyncio.run(run(options, directory))
    sys.stdout.write(f"\n{outcome.text}\n")
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
