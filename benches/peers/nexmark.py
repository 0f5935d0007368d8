#!/usr/bin/env python3
"""The Nexmark queries in Millstream and in Apache Flink, side by side on this machine.

Both read the same Parquet files of generated events, take a checkpoint every second and put out
into a sink that drops everything. One command, one table:

    cargo build --release
    python3 benches/peers/nexmark.py --events 10000000

Needed: Java 17 with javac, pip and Maven, from which Flink and its Parquet format come.
Flink's seconds are those of its REST interface, from the job's start to its end; Millstream's are
from CREATE SINK until the sink has had everything. CPU seconds are user and system
time of Flink's task manager, and of Millstream's whole process.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
import zipfile

VERSION = "2.3.0"
HADOOP = "2.8.3-10.0"
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REST = "http://127.0.0.1:8081"

SOURCES = {
    "person": "id BIGINT, name STRING, email_address STRING, credit_card STRING, city STRING,"
    " state STRING, date_time TIMESTAMP(3), extra STRING",
    "auction": "id BIGINT, item_name STRING, description STRING, initial_bid BIGINT,"
    " reserve BIGINT, date_time TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT,"
    " category BIGINT, extra STRING",
    "bid": "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING,"
    " date_time TIMESTAMP(3), extra STRING",
}

CONFIG = """\
jobmanager.rpc.address: 127.0.0.1
jobmanager.bind-host: 127.0.0.1
taskmanager.bind-host: 127.0.0.1
taskmanager.host: 127.0.0.1
rest.address: 127.0.0.1
rest.bind-address: 127.0.0.1
jobmanager.memory.process.size: 1600m
taskmanager.memory.process.size: {memory}
taskmanager.memory.managed.size: 1g
taskmanager.numberOfTaskSlots: 2
parallelism.default: 2
execution.target: remote
execution.checkpointing.interval: 1s
execution.checkpointing.mode: EXACTLY_ONCE
execution.checkpointing.checkpoints-after-tasks-finish.enabled: false
execution.checkpointing.storage: filesystem
execution.checkpointing.dir: file://{state}
state.backend.type: hashmap
env.java.opts.all: --add-exports=java.base/sun.net.util=ALL-UNNAMED --add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED --add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED --add-opens=java.base/java.lang=ALL-UNNAMED --add-opens=java.base/java.net=ALL-UNNAMED --add-opens=java.base/java.io=ALL-UNNAMED --add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/sun.nio.ch=ALL-UNNAMED --add-opens=java.base/java.lang.reflect=ALL-UNNAMED --add-opens=java.base/java.text=ALL-UNNAMED --add-opens=java.base/java.time=ALL-UNNAMED --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.util.concurrent=ALL-UNNAMED --add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED --add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED
"""


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, text=True, **options)


class Flink:
    """A Flink of one job manager and one task manager, in a folder of its own."""

    def __init__(self, work, memory):
        self.home = work / "flink"
        self.work = work
        self.memory = memory
        self.environment = dict(os.environ, FLINK_HOME=str(self.home), FLINK_CONF_DIR=str(self.home / "conf"))

    def install(self):
        """Fetches the distribution out of the Python packages, and the Parquet format from Maven."""
        if (self.home / "runner.jar").exists():
            return
        shutil.rmtree(self.home, ignore_errors=True)
        wheels = self.work / "wheels"
        for package in ("apache-flink-libraries", "apache-flink"):
            run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", wheels,
                f"{package}=={VERSION}")
        unpacked = self.work / "unpacked"
        for wheel in wheels.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(unpacked)
        self.home.mkdir(parents=True)
        for part in ("bin", "conf", "lib"):
            shutil.move(unpacked / "pyflink" / part, self.home / part)
        for script in (self.home / "bin").iterdir():
            script.chmod(0o755)
        jars = [f"org.apache.flink:flink-sql-parquet:{VERSION}",
                f"org.apache.flink:flink-shaded-hadoop-2-uber:{HADOOP}"]
        for jar in jars:
            run("mvn", "-q", "dependency:copy", f"-Dartifact={jar}",
                f"-DoutputDirectory={self.home / 'lib'}")
        classes = self.work / "classes"
        run("javac", "-d", classes, "-cp", f"{self.home / 'lib'}/*", HERE / "flink" / "SqlRunner.java")
        run("jar", "cfe", self.home / "runner.jar", "SqlRunner", "-C", classes, ".")

    def start(self):
        state = self.work / "checkpoints"
        text = CONFIG.format(state=state, memory=self.memory)
        (self.home / "conf" / "config.yaml").write_text(text)
        (self.home / "log").mkdir(exist_ok=True)
        for service in ("jobmanager", "taskmanager"):
            run(self.home / "bin" / f"{service}.sh", "start", env=self.environment,
                stdout=subprocess.DEVNULL)
        for _ in range(120):
            try:
                if self.rest("/overview")["slots-total"] == 2:
                    return
            except OSError:
                pass
            time.sleep(0.5)
        raise SystemExit(f"Flink did not start; see {self.home / 'log'}")

    def stop(self):
        for service in ("taskmanager", "jobmanager"):
            subprocess.run([str(self.home / "bin" / f"{service}.sh"), "stop"],
                           env=self.environment, stdout=subprocess.DEVNULL, check=False)

    def rest(self, path):
        with urllib.request.urlopen(REST + path, timeout=10) as answer:
            return json.load(answer)

    def cpu_seconds(self):
        """User and system time of the task manager so far."""
        listed = run("jps", "-l", capture_output=True).stdout
        pid = next(line.split()[0] for line in listed.splitlines() if "TaskManagerRunner" in line)
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def measure(self, name, sink, select, files):
        statements = [
            f"CREATE TABLE {kind} ({columns}, WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND)"
            f" WITH ('connector' = 'filesystem', 'path' = 'file://{files}/{kind}',"
            " 'format' = 'parquet', 'parquet.utc-timezone' = 'true')"
            for kind, columns in SOURCES.items()
        ]
        statements.append(f"CREATE TABLE sink ({sink}) WITH ('connector' = 'blackhole')")
        statements.append(f"INSERT INTO sink {select}")
        return self.run_statements(name, statements)

    def run_statements(self, name, statements, limit_seconds=None):
        """Seconds and CPU seconds of one job; None when it fails, or takes longer than it may."""
        script = self.work / f"{name}.sql"
        script.write_text("".join(statement + ";\n" for statement in statements))
        before = self.cpu_seconds()
        done = {job["jid"] for job in self.rest("/jobs/overview")["jobs"]}
        try:
            answer = subprocess.run(
                [str(self.home / "bin" / "flink"), "run", str(self.home / "runner.jar"), str(script)],
                env=self.environment, capture_output=True, text=True, check=False,
                timeout=limit_seconds)
        except subprocess.TimeoutExpired:
            return None
        jobs = [job for job in self.rest("/jobs/overview")["jobs"] if job["jid"] not in done]
        if answer.returncode != 0 or not jobs or jobs[0]["state"] != "FINISHED":
            print(f"flink {name}: {answer.stderr[-2000:]}", file=sys.stderr)
            return None
        return {"seconds": jobs[0]["duration"] / 1e3, "cpu_seconds": self.cpu_seconds() - before}


def millstream(binary, query, events, files, workers):
    answer = run(binary, "bench", "nexmark", "--json", "--queries", query, "--events", events,
                 "--workers", workers, "--checkpoint-interval", "1s", "--files", files,
                 "--output", "blackhole",
                 capture_output=True)
    return json.loads(answer.stdout)


def flink_queries():
    """name -> (columns of the sink, query)"""
    text = (HERE / "flink" / "queries.sql").read_text()
    found = re.split(r"^-- (q\d+) \((.*)\)$", text, flags=re.M)[1:]
    return {found[i]: (found[i + 1], found[i + 2].strip()) for i in range(0, len(found), 3)}


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--events", type=int, default=10_000_000)
    options.add_argument("--queries", default="all", help="q0,q4,... or all")
    options.add_argument("--runs", type=int, default=1, help="the median counts")
    options.add_argument("--flink-memory", default="12g")
    options.add_argument("--binary", default=ROOT / "target" / "release" / "millstream")
    options.add_argument("--work", type=pathlib.Path, default=ROOT / "target" / "peers")
    chosen = options.parse_args()
    work = chosen.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    files = work / "events"
    queries = flink_queries()
    names = list(queries) if chosen.queries == "all" else chosen.queries.split(",")

    flink = Flink(work, chosen.flink_memory)
    flink.install()
    millstream(chosen.binary, "q0", chosen.events, files, 2)  # writes the files, warms the cache
    flink.start()
    ratios = []
    try:
        flink.measure("warm-up", *queries["q0"], files)
        print(f"{chosen.events} events from Parquet files, a checkpoint every second; seconds\n")
        print("| query | Millstream s | CPU s | events/s | Flink s | CPU s | events/s | times |")
        print("|---|---|---|---|---|---|---|---|")
        for name in names:
            ours, theirs = [], []
            for _ in range(chosen.runs):
                ours.append(millstream(chosen.binary, name, chosen.events, files, 2))
                theirs.append(flink.measure(name, *queries[name], files))
            if None in theirs:
                continue
            us, them = (
                {key: statistics.median(run[key] for run in runs) for key in ("seconds", "cpu_seconds")}
                for runs in (ours, theirs))
            ratio = them["seconds"] / us["seconds"]
            ratios.append(ratio)
            print(f"| {name} | {us['seconds']:.2f} | {us['cpu_seconds']:.2f}"
                  f" | {chosen.events / us['seconds'] / 1e6:.2f} M"
                  f" | {them['seconds']:.2f} | {them['cpu_seconds']:.2f}"
                  f" | {chosen.events / them['seconds'] / 1e6:.2f} M | {ratio:.1f} |", flush=True)
    finally:
        flink.stop()
    if ratios:
        print(f"\nGeometric mean {statistics.geometric_mean(ratios):.1f} times, least {min(ratios):.1f}.")


if __name__ == "__main__":
    main()
