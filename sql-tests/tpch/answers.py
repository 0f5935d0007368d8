"""Writes answers-SCALE.txt: what DuckDB says to the 22 queries over tables that tpch_data wrote.

    pip install duckdb==1.5.6
    python3 sql-tests/tpch/answers.py FOLDER SCALE
"""

import pathlib
import re
import sys

import duckdb

folder, scale = pathlib.Path(sys.argv[1]), sys.argv[2]
root = pathlib.Path(__file__).parent
source = (root.parent.parent / "src/bench/tpch.rs").read_text()
source = re.sub(r"\\\n\s*|//.*\n", "", source)
tables = re.findall(r'\(\s*"([a-z]+)",\s*"([a-z]+_[a-z]+ [^"]+)",?\s*\)', source)
assert len(tables) == 8, [name for name, _ in tables]

database = duckdb.connect()
for name, columns in tables:
    database.execute(f"CREATE TABLE {name} ({columns})")
    path = folder / f"{name}.tbl"
    database.execute(f"COPY {name} FROM '{path}' (DELIMITER '|', HEADER false, QUOTE '')")

out = []
for number in range(1, 23):
    sql = (root.parent.parent / f"src/bench/tpch/q{number}.sql").read_text()
    sql = sql.replace("0.0001", f"{0.0001 / float(scale):.10f}")
    out.append(f"# q{number}")
    for row in database.execute(sql).fetchall():
        out.append("|".join("NULL" if value is None else str(value) for value in row))
    out.append("")
(root / f"answers-{scale}.txt").write_text("\n".join(out))
