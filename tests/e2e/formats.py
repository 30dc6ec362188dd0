"""Checks audit lines against their JSON Schema, and their OCSF events against the published schema of class 6003.

Run by formats.rs as: formats.py SCHEMA LINES EVENTS. Prints how many of each event it saw, as JSON; complains and ends with 1
at the first that does not fit.
"""

import collections
import json
import sys

import jsonschema
import ocsf_json_schema

OCSF_VERSION = "1.8.0"


def ocsf_validator():
    schema = ocsf_json_schema.get_ocsf_schema(OCSF_VERSION)
    embedded = ocsf_json_schema.OcsfJsonSchemaEmbedded(schema)
    name = embedded.lookup_class_name_from_uid(6003)
    assert name == "api_activity", name
    wanted = embedded.get_class_schema(name, ["security_control"])
    # The class's own list of what must be there, so that a package without it could not pass for the schema.
    assert {"activity_id", "actor", "api", "src_endpoint", "time", "type_uid"} <= set(wanted["required"])
    return jsonschema.Draft202012Validator(wanted)


def lines_of(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        text = file.read()
    assert text.endswith("\n"), "the last line has an end"
    return [json.loads(line) for line in text[:-1].split("\n")]


def check(validator, value):
    faults = sorted(validator.iter_errors(value), key=lambda fault: list(fault.absolute_path))
    if faults:
        where = "/".join(map(str, faults[0].absolute_path))
        sys.exit(f"{where}: {faults[0].message}\nin {json.dumps(value)}")


def main(schema_path, lines_path, events_path):
    with open(schema_path, encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    own, ocsf = jsonschema.Draft202012Validator(schema), ocsf_validator()
    records, events = lines_of(lines_path), lines_of(events_path)
    assert len(records) == len(events), (len(records), len(events))
    seen, members = collections.Counter(), set()
    for record, event in zip(records, events):
        check(own, record)
        check(ocsf, event)
        assert event["metadata"]["uid"] == record["hash"]
        assert event["type_uid"] == 600300 + event["activity_id"]
        seen[record["event"]] += 1
        members |= set(record)
        # Neither schema takes what it does not know.
        assert not own.is_valid({**record, "surprise": 1})
        assert not ocsf.is_valid({**event, "surprise": 1})
        assert not ocsf.is_valid({name: v for name, v in event.items() if name != "api"})
    # A member that no record has is not proven.
    print(json.dumps({"events": seen, "unseen": sorted(set(schema["properties"]) - members)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
