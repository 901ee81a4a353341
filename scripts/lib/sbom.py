#!/usr/bin/env python3
"""Prints the components of the box's programs as a CycloneDX 1.5 bill of materials.

    sbom.py --metadata FILE --tree FILE --lock Cargo.lock --rust VERSION --epoch SECONDS

The files are the output of `cargo metadata --filter-platform TARGET` and of `cargo tree --edges normal --target TARGET
--prefix none`. Lists only what is compiled in, without the dependencies of tests and build scripts. The same input gives the
same bytes.
"""

import argparse
import datetime
import json
import tomllib
import uuid


def linked(metadata, tree):
    """The ids of the packages in the programs. The metadata alone would list too many: it has the features that only the tests'
    dependencies turn on."""
    named = {tuple(line.split()[:2]) for line in tree.splitlines()}
    root = metadata["resolve"]["root"]
    found = {each["id"] for each in metadata["packages"] if (each["name"], f"v{each['version']}") in named}
    return root, found - {root}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    """A crate's entry. A procedural macro runs in the compiler, but is listed, because its output is compiled in."""
    entry = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package.get("license"):
        # Old crates write MIT/Apache-2.0; SPDX requires OR.
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum := checksums.get((package["name"], package["version"])):
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return entry


def bill(metadata, tree, lock, rust, epoch):
    """The bill of materials as a dict."""
    packages = {package["id"]: package for package in metadata["packages"]}
    checksums = {(each["name"], each["version"]): each.get("checksum") for each in lock["package"]}
    root, found = linked(metadata, tree)
    components = [component(packages[identity], checksums) for identity in found]
    # std contains the C library that it links, musl.
    components.append({"type": "library", "bom-ref": f"rust-std@{rust}", "name": "rust-std", "version": rust})
    components.sort(key=lambda each: each["bom-ref"])
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    dependencies = [
        {
            "ref": reference(packages[identity]),
            "dependsOn": sorted({reference(packages[each]) for each in nodes[identity]["dependencies"] if each in found}),
        }
        for identity in [root, *found]
    ]
    product = {**component(packages[root], {}), "type": "firmware"}
    timestamp = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    body = {
        "metadata": {"timestamp": timestamp.strftime("%Y-%m-%dT%H:%M:%SZ"), "component": product},
        "components": components,
        "dependencies": sorted(dependencies, key=lambda each: each["ref"]),
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(body, sort_keys=True))
    head = {"bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1}
    return head | body


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ["metadata", "tree", "lock", "rust"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--epoch", type=int, required=True)
    arguments = parser.parse_args()
    with open(arguments.metadata, encoding="utf-8") as file:
        metadata = json.load(file)
    with open(arguments.tree, encoding="utf-8") as file:
        tree = file.read()
    with open(arguments.lock, "rb") as file:
        lock = tomllib.load(file)
    print(json.dumps(bill(metadata, tree, lock, arguments.rust, arguments.epoch), indent=1))


if __name__ == "__main__":
    main()
