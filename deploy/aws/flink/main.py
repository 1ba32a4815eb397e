"""Runs the output of `spate rules export --flink-sql --connector kinesis` as a Managed Flink application. README.md describes how to package it."""

import json
import os

from burst import SQL  # generated from the exported file
from pyflink.table import EnvironmentSettings, TableEnvironment

PROPERTIES = os.environ.get("SPATE_FLINK_PROPERTIES", "/etc/flink/application_properties.json")


def properties():
    """Returns the group "spate" of the application's properties."""
    with open(PROPERTIES, encoding="utf-8") as f:
        groups = json.load(f)
    return next((g["PropertyMap"] for g in groups if g["PropertyGroupId"] == "spate"), {})


def statements(sql):
    """Returns the statements without comments. Each statement ends with a semicolon at the end of a line, as spate writes them."""
    lines = [line for line in sql.splitlines() if not line.startswith("--")]
    return [s.strip() for s in ("\n".join(lines) + "\n").split(";\n") if s.strip()]


def main():
    given = properties()
    sql = SQL.rstrip() + "\n"
    for name, value in given.items():
        sql = sql.replace("${" + name + "}", value)
    if "${" in sql:
        raise SystemExit("the SQL has a placeholder ${name} that the property group spate does not define: " + sql)

    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    config = tables.get_config()
    config.set("table.local-time-zone", "UTC")
    for name, value in given.items():
        if "." in name:
            config.set(name, value)
    for statement in statements(sql):
        tables.execute_sql(statement)


if __name__ == "__main__":
    main()
