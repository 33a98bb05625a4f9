"""What tests/junit_readers.sh checks of the documents and of what their readers made of them.

usage: junit_readers.py DIR XSD
"""
import json
import sys
from pathlib import Path

import xunitparser
from junitparser import JUnitXml
from lxml import etree

work, schema = Path(sys.argv[1]), etree.XMLSchema(etree.parse(sys.argv[2]))
contract = json.loads((work / "out/contract.json").read_text())
summary = contract["summary"]
expected = {
    "tests": summary["tests"],
    "failures": summary["failed"],
    "errors": summary["errors"],
    "skipped": summary["ignored"],
}
assert all(expected.values()), f"the suite has some of everything: {expected}"


def same(found, what, wanted=expected):
    if found != wanted:
        sys.exit(f"not ok - {what}: {found}, expected {wanted}")
    print(f"ok - {what}")


for dialect in ["rich", "strict"]:
    for cases in ["all", "failed"]:
        name = f"{dialect}-{cases}"
        path = work / f"{name}.xml"
        document = etree.parse(path)
        if dialect == "strict" and not schema.validate(document):
            sys.exit(f"not ok - {name}: {schema.error_log}")
        listed = document.xpath("count(//testcase)")
        names = {(case.get("classname"), case.get("name")) for case in document.iter("testcase")}
        same(len(names), f"{name}: no two cases of one name", listed)
        if cases == "failed":
            # Passing tests are left out; nothing else is.
            with_text = sum(len(document.findall(f".//{it}")) for it in ["failure", "error", "skipped"])
            bad = summary["failed"] + summary["errors"] + summary["ignored"]
            same(with_text, f"{name}: lists all that did not pass", bad)
            same(int(document.getroot().get("tests")), f"{name}: counts what it lists", listed)
            continue
        same({
            "tests": int(listed),
            "failures": len(document.findall(".//failure")),
            "errors": len(document.findall(".//error")),
            "skipped": len(document.findall(".//skipped")),
        }, f"{name}: lxml")

        read = JUnitXml.fromfile(str(path))
        totals = [0, 0, 0, 0]
        for suite in read:
            for at, count in enumerate([suite.tests, suite.failures, suite.errors, suite.skipped]):
                totals[at] += count
        same(dict(zip(expected, totals)), f"{name}: junitparser")

        # xunitparser takes the properties of all suites for those of one and refuses a name that is
        # there twice: with several pairs it needs the strict dialect.
        if dialect == "strict":
            with open(path, encoding="utf-8") as file:
                suite, result = xunitparser.parse(file)
            same({
                "tests": suite.countTestCases(),
                "failures": len(result.failures),
                "errors": len(result.errors),
                "skipped": len(result.skipped),
            }, f"{name}: xunitparser")

        ctrf = json.loads((work / f"{name}.json").read_text())["results"]["summary"]
        same(
            (ctrf["tests"], ctrf["failed"], ctrf["skipped"]),
            f"{name}: junit-to-ctrf",
            (summary["tests"], summary["failed"] + summary["errors"], summary["ignored"]),
        )

        # The worst that names can hold comes out as text that people can read.
        texts = "".join(document.xpath("//testcase/@name"))
        for part in ["]]>", "<script>", "crab 🦀 and é", "tab\tline\nfeed", "red and bare \ufffd", "\"><img"]:
            if part not in texts:
                sys.exit(f"not ok - {name}: {part!r} is in no name")
        first = document.xpath("(//failure)[1]")[0]
        line = first.text.splitlines()[0]
        # The message is the cause where one is known; the text begins with value and bound.
        said = first.get("message") == line or f"cause: {first.get('message')}" in first.text
        if not said or " < " not in line:
            sys.exit(f"not ok - {name}: {line!r}, {first.get('message')!r}")
        print(f"ok - {name}: names and messages")
