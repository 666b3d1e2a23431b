"""A check as JUnit XML, the form in which CI systems read test results."""

from __future__ import annotations

from xml.etree import ElementTree

from bench.report.check.verdicts import Check
from bench.report.tables.text import clean
from bench.tools.groups import group


def render(check: Check) -> bytes:
    """One suite per reference and method, one case per number.

    What fails the check is a failure; a number that could not be compared and does not fail is skipped, never
    passed.
    """
    root = ElementTree.Element("testsuites", name=f"bench check {clean(check.study)}")
    for (against, method), own in group(check.results, lambda r: (r.against, r.method)).items():
        skipped = [result for result in own if not result.fails and result.verdict == "not comparable"]
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=clean(f"{against}: {method}"),
            tests=str(len(own)),
            failures=str(sum(result.fails for result in own)),
            errors="0",
            skipped=str(len(skipped)),
        )
        for result in own:
            case = ElementTree.SubElement(suite, "testcase", classname=clean(against), name=clean(result.title))
            said = clean(
                f"{result.verdict}: expected {result.expected}, measured {result.measured}; {result.reason}"
            )
            if result.fails:
                ElementTree.SubElement(case, "failure", message=said)
            elif result.verdict == "not comparable":
                ElementTree.SubElement(case, "skipped", message=said)
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"
