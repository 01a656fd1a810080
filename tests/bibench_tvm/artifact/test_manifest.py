"""The manifest's types, its file and its published schema say the same."""

import json
from pathlib import Path

import msgspec
import pytest

from bibench_tvm.artifact.artifact import Artifact
from bibench_tvm.artifact.manifest import Manifest, encode, read

SCHEMA = Path(__file__).parents[3] / "docs" / "manifest.schema.json"


def test_the_schema_in_the_docs_is_that_of_the_types(request: pytest.FixtureRequest) -> None:
    schema = json.loads(json.dumps(msgspec.json.schema(Manifest)))  # tuples become lists
    if request.config.getoption("--renew-golden"):
        SCHEMA.write_text(json.dumps(schema, indent=1) + "\n")
    assert json.loads(SCHEMA.read_text()) == schema


def test_what_is_written_is_read(artifact: Artifact) -> None:
    assert read(artifact.folder) == artifact.record
    assert (artifact.folder / "manifest.json").read_bytes() == encode(artifact.record)
    assert json.loads(encode(artifact.record)) == artifact.manifest
