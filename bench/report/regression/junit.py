"""The result of the gate as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from exitbench.models.printable import one_line
from exitbench.report.regression.text import GateReport, figures, flips_text

Case = tuple[str, str | None, Sequence[str]]
"""A test case: its name, why it failed (None if it did not), and the lines of its text."""


def to_junit(report: GateReport) -> bytes:
    """Return UTF-8 XML with a test case for each row's verdicts, each row's cost, the trust checks, and completeness."""
    cases: list[Case] = []
    for row in report.judgement.rows:
        lost = f"{row.title}: {-row.points:.2f} points lost, p = {row.p_lost:.2g}" if row.status == "regression" else None
        cases.append((row.title, lost, [" ".join(figures(row)), *flips_text(row)]))
        if row.mmacs is not None:
            over = f"{row.title}: mean mmacs {100 * row.dearer:+.1f} %" if row.cost == "over" else None
            cases.append((f"{row.title}: mean mmacs", over, [f"{row.mmacs[0]:.4f} -> {row.mmacs[1]:.4f}"]))
    cases.append(("trust checks", "; ".join(report.judgement.failures) or None, []))
    cases.append(("finished", "; ".join(report.judgement.unfinished) or None, []))
    return junit_of(f"bench check {report.subject}", report.now.title, cases, report.judgement.doubts)


def junit_of(suite_name: str, class_name: str, cases: Sequence[Case], output: Sequence[str] = ()) -> bytes:
    """Return UTF-8 XML of one suite of test cases; characters that XML cannot hold, or that rewrite a line, are shown escaped.

    Args:
        suite_name: Name of the suite.
        class_name: Class of every case.
        cases: The cases.
        output: Lines of text of the whole suite.
    """
    failed = sum(failure is not None for _, failure, _ in cases)
    counts = {"tests": str(len(cases)), "failures": str(failed), "errors": "0"}
    root = Xml.Element("testsuites", counts)
    suite = Xml.SubElement(root, "testsuite", {"name": one_line(suite_name), **counts})
    for name, failure, lines in cases:
        case = Xml.SubElement(suite, "testcase", {"classname": one_line(class_name), "name": one_line(name)})
        text = "\n".join(map(one_line, lines))
        if failure is not None:
            Xml.SubElement(case, "failure", {"message": one_line(failure), "type": "regression"}).text = text
        elif lines:
            Xml.SubElement(case, "system-out").text = text
    if output:
        Xml.SubElement(suite, "system-out").text = "\n".join(map(one_line, output))
    Xml.indent(root)
    return bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
