"""Tests what the bill of materials must and must not list. Run: python3 -m unittest discover -s scripts/lib"""

import copy
import json
import unittest

import sbom


def package(name, version="1.0.0", license="MIT"):
    return {"id": f"registry#{name}@{version}", "name": name, "version": version, "license": license}


def node(name, *dependencies):
    deps = [{"pkg": f"registry#{each}@1.0.0", "dep_kinds": [{"kind": kind}]} for each, kind in dependencies]
    return {"id": f"registry#{name}@1.0.0", "deps": deps, "dependencies": [each["pkg"] for each in deps]}


METADATA = {
    "packages": [package(name) for name in ["root", "linked", "deep", "tested", "built", "featured"]],
    "resolve": {
        "root": "registry#root@1.0.0",
        "nodes": [
            node("root", ("linked", None), ("tested", "dev"), ("built", "build")),
            # featured: a feature that is on only because `tested` needs it.
            node("linked", ("deep", None), ("featured", None)),
            node("deep"),
            node("tested"),
            node("built"),
            node("featured"),
        ],
    },
}
TREE = "root v1.0.0 (/somewhere)\nlinked v1.0.0\ndeep v1.0.0\ndeep v1.0.0 (*)\n"
LOCK = {"package": [{"name": "root", "version": "1.0.0"}, {"name": "deep", "version": "1.0.0", "checksum": "ab" * 32}]}


def bill(metadata=METADATA, epoch=1700000000):
    return sbom.bill(metadata, TREE, LOCK, "1.88.0", epoch)


class Bill(unittest.TestCase):
    def test_it_lists_what_is_linked_and_nothing_else(self):
        names = [each["name"] for each in bill()["components"]]
        self.assertEqual(names, ["deep", "linked", "rust-std"])

    def test_a_crate_has_its_name_version_licence_and_checksum(self):
        deep = bill()["components"][0]
        self.assertEqual(deep["purl"], "pkg:cargo/deep@1.0.0")
        self.assertEqual(deep["licenses"], [{"expression": "MIT"}])
        self.assertEqual(deep["hashes"], [{"alg": "SHA-256", "content": "ab" * 32}])

    def test_who_needs_what_is_said(self):
        needs = {each["ref"]: each["dependsOn"] for each in bill()["dependencies"]}
        self.assertEqual(needs["pkg:cargo/root@1.0.0"], ["pkg:cargo/linked@1.0.0"])
        self.assertEqual(needs["pkg:cargo/linked@1.0.0"], ["pkg:cargo/deep@1.0.0"])

    def test_the_order_of_the_input_does_not_matter(self):
        turned = copy.deepcopy(METADATA)
        turned["packages"].reverse()
        turned["resolve"]["nodes"].reverse()
        for each in turned["resolve"]["nodes"]:
            each["deps"].reverse()
            each["dependencies"].reverse()
        self.assertEqual(json.dumps(bill(turned)), json.dumps(bill()))

    def test_the_serial_number_changes_with_the_content(self):
        self.assertNotEqual(bill(epoch=1)["serialNumber"], bill(epoch=2)["serialNumber"])

    def test_an_old_licence_is_written_as_spdx(self):
        metadata = copy.deepcopy(METADATA)
        metadata["packages"][1]["license"] = "MIT/Apache-2.0"
        self.assertEqual(bill(metadata)["components"][1]["licenses"], [{"expression": "MIT OR Apache-2.0"}])


if __name__ == "__main__":
    unittest.main()
