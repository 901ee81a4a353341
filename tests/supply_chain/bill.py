#!/usr/bin/env python3
"""Is the bill of materials what CycloneDX's own schema asks for, and does it say of each crate what it must?

bill.py FILE
"""

import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
if fault := JsonStrictValidator(SchemaVersion.V1_5).validate_str(text):
    sys.exit(f"{sys.argv[1]}: {fault}")
components = json.loads(text)["components"]
for each in components:
    # The standard library comes with the compiler, from no registry.
    if each["name"] != "rust-std" and not (each.get("licenses") and each.get("hashes")):
        sys.exit(f"{sys.argv[1]}: {each['name']} lacks its licence or its checksum")
print(f"{len(components)} components, as CycloneDX 1.5 wants them")
