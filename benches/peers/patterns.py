#!/usr/bin/env python3
"""MATCH_RECOGNIZE in Millstream and in Apache Flink, side by side on this machine.

Both look for `A B+ C` in event time, over many partitions whose rows are mixed, in the same Parquet
files; both take a checkpoint every second. Flink drops the matches, Millstream keeps them in a
view. One command, one table:

    cargo build --release
    python3 benches/peers/patterns.py --rows 8000000 --partitions 1000000

Needed: what nexmark.py beside it needs; the seconds and CPU seconds are taken as it says.
"""

import argparse
import json
import pathlib
import statistics

from nexmark import ROOT, Flink, run

SOURCE = """\
CREATE TABLE steps (p BIGINT, `at` TIMESTAMP(3), v INT, WATERMARK FOR `at` AS `at` - INTERVAL '1' SECOND)
WITH ('connector' = 'filesystem', 'path' = 'file://{files}', 'format' = 'parquet',
 'parquet.utc-timezone' = 'true', 'source.path.regex-pattern' = '.*parquet')"""

SINK = "CREATE TABLE sink (p BIGINT, n BIGINT, ended TIMESTAMP(3)) WITH ('connector' = 'blackhole')"

QUERY = """\
INSERT INTO sink SELECT p, n, ended FROM steps MATCH_RECOGNIZE (
 PARTITION BY p ORDER BY `at`
 MEASURES COUNT(B.v) AS n, LAST(C.`at`) AS ended
 ONE ROW PER MATCH AFTER MATCH SKIP PAST LAST ROW
 PATTERN (A B+ C) WITHIN INTERVAL '1' DAY
 DEFINE A AS A.v = 0, B AS B.v = 1, C AS C.v = 2)"""


def flink_run(flink, files, limit_seconds):
    """Seconds and CPU seconds of one job; None when it takes longer than it may."""
    return flink.run_statements("patterns", [SOURCE.format(files=files), SINK, QUERY], limit_seconds)


def millstream_run(binary, files, rows, partitions):
    answer = run(binary, "bench", "patterns", "--json", "--files", files, "--rows", rows,
                 "--partitions", partitions, "--workers", 2, capture_output=True)
    measured = json.loads(answer.stdout)
    # Every partition has one match.
    assert measured["matches"] == partitions, measured
    return measured


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rows", type=int, default=8_000_000)
    options.add_argument("--partitions", type=int, default=1_000_000)
    options.add_argument("--runs", type=int, default=1, help="the median counts")
    options.add_argument("--flink-memory", default="12g")
    options.add_argument("--flink-seconds", type=int, default=600, help="a run may take so long")
    options.add_argument("--binary", default=ROOT / "target" / "release" / "millstream")
    options.add_argument("--work", type=pathlib.Path, default=ROOT / "target" / "peers")
    chosen = options.parse_args()
    if chosen.rows % chosen.partitions or chosen.rows < 3 * chosen.partitions:
        raise SystemExit("--rows is a multiple of --partitions, at least three times as many")
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    files = work / "patterns" / f"{chosen.rows}-{chosen.partitions}"

    flink = Flink(work, chosen.flink_memory)
    flink.install()
    measure = lambda: millstream_run(chosen.binary, files, chosen.rows, chosen.partitions)
    measure()  # writes the files, warms the cache
    flink.start()
    try:
        ours, theirs = [], []
        # Flink's first run is its warm-up; if it is too slow for that, there is no second.
        if flink_run(flink, files, chosen.flink_seconds) is None:
            theirs.append(None)
        for _ in range(0 if theirs else chosen.runs):
            ours.append(measure())
            theirs.append(flink_run(flink, files, chosen.flink_seconds))
    finally:
        flink.stop()
    if None in theirs:
        raise SystemExit(f"Flink did not finish within {chosen.flink_seconds} s")
    print(f"A B+ C, {chosen.rows} rows of {chosen.partitions} partitions from Parquet files,"
          " a checkpoint every second\n")
    print("| system | s | CPU s | rows/s | times |")
    print("|---|---|---|---|---|")
    us, them = (
        {key: statistics.median(run[key] for run in runs) for key in ("seconds", "cpu_seconds")}
        for runs in (ours, theirs))
    for name, one, times in (("Millstream", us, them["seconds"] / us["seconds"]), ("Flink", them, 1)):
        print(f"| {name} | {one['seconds']:.2f} | {one['cpu_seconds']:.2f}"
              f" | {chosen.rows / one['seconds'] / 1e6:.2f} M | {times:.1f} |")


if __name__ == "__main__":
    main()
