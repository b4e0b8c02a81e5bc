"""The JSON schema of experiments, by an implementation of JSON Schema that is not ours: every experiment of the repository is valid, and
every wrong one of tests/data/wrong.yaml is not.

usage: schema.py     (pip install jsonschema ruamel.yaml, whose numbers are YAML 1.2's as those of editors are)
"""
import json
import sys
from pathlib import Path

from jsonschema import Draft7Validator
from ruamel.yaml import YAML

root = Path(__file__).resolve().parents[2]
schema = json.loads((root / "experiments/schema.json").read_text())
Draft7Validator.check_schema(schema)
validator = Draft7Validator(schema)
read = YAML(typ="safe", pure=True).load
failures = 0


def expect(name: str, text: str, is_valid: bool) -> None:
    """Judges a text, and says how."""
    global failures
    faults = [f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(read(text))]
    wrong = (not faults) != is_valid
    failures += wrong
    print(f"{'WRONG' if wrong else 'ok   '} {name}: {faults[0][:100] if faults else 'valid'}")


for path in sorted((root / "experiments").glob("*.yaml")):
    expect(path.name, path.read_text(), True)
cases = read((root / "tests/data/wrong.yaml").read_text())
expect("good", cases["good"], True)
for old, new in cases["wrong"]:
    assert old in cases["good"], old
    expect(f"{old} -> {new}", cases["good"].replace(old, new), False)
print(f"{failures} failures")
sys.exit(failures > 0)
