"""Reads an exported savepoint with pyarrow alone, as docs/FORMAT.md says, and prints its rows."""
import collections
import io
import json
import os
import struct
import sys

import pyarrow
import pyarrow.parquet

root = sys.argv[1]


def path(name):
    return os.path.join(root, name)


def text_object(name):
    with open(path(name), encoding="utf-8") as file:
        return json.loads(file.read().split("\n", 1)[1])


def read(name):
    with open(path(name), "rb") as file:
        return file.read()


def rows_of(data, form):
    if form in ("stream", "arrows"):
        return pyarrow.ipc.open_stream(io.BytesIO(data)).read_all()
    if form == "arrow":
        return pyarrow.ipc.open_file(io.BytesIO(data)).read_all()
    return pyarrow.parquet.read_table(io.BytesIO(data))


def count(counter, table, weights):
    for row, weight in zip(table.to_pylist(), weights):
        counter[json.dumps(row, default=str, sort_keys=True)] += weight


newest = sorted(os.listdir(path("manifest")))[-1]
manifest = text_object("manifest/" + newest)
names = {o["id"]: o["name"] for o in text_object(manifest["catalog"]["name"])["objects"]}
contents = {}

for table, files in manifest["tables"].items():
    counter = collections.Counter()
    for file in files:
        rows = rows_of(read(file["name"]), file["name"].rsplit(".", 1)[1])
        weights = [1] * rows.num_rows
        if "millstream_weight" in rows.column_names:
            weights = rows["millstream_weight"].to_pylist()
            rows = rows.drop_columns(["millstream_weight"])
        count(counter, rows, weights)
    contents[names[int(table)]] = counter

for view, state in manifest["views"].items():
    came, went = {}, set()
    for file in state["files"]:
        data = read(file["name"])
        assert data[:8] == data[-8:] == b"MSSTATE2"
        length = struct.unpack("<Q", data[-16:-8])[0]
        for section in json.loads(data[-16 - length:-16]):
            if section["operator_name"] != "materialize":
                continue
            at = section["offset"] + section["bytes"]
            for (gone,) in struct.iter_unpack("<Q", data[at:at + 8 * section["deleted"]]):
                went.add((section["worker"], gone))
            if not section["rows"]:
                continue
            rows = rows_of(data[section["offset"]:at], section["format"])
            ids = rows["millstream_row_id"].to_pylist()
            weights = rows["millstream_weight"].to_pylist()
            shown = rows.drop_columns(["millstream_row_id", "millstream_weight"]).to_pylist()
            for row_id, weight, row in zip(ids, weights, shown):
                came[section["worker"], row_id] = (row, weight)
    counter = collections.Counter()
    for row_id, (row, weight) in came.items():
        if row_id not in went:
            counter[json.dumps(row, default=str, sort_keys=True)] += weight
    contents[names[int(view)]] = counter

for name in sorted(contents):
    for row, copies in sorted(contents[name].items()):
        for _ in range(copies):
            print(name, row)
