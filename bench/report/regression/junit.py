"""The result of the gate as JUnit XML, which CI systems show as tests."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from exitbench.models.printable import one_line
from exitbench.report.regression.text import GateReport, figures, flips_text


def to_junit(report: GateReport) -> bytes:
    """Return UTF-8 XML with a test case for each row's verdicts, each row's cost, the trust checks, and completeness."""
    cases: list[tuple[str, str | None, list[str]]] = []
    for row in report.judgement.rows:
        lost = f"{row.title}: {-row.points:.2f} points lost, p = {row.p_lost:.2g}" if row.status == "regression" else None
        cases.append((row.title, lost, [" ".join(figures(row)), *flips_text(row)]))
        if row.mmacs is not None:
            over = f"{row.title}: mean mmacs {100 * row.dearer:+.1f} %" if row.cost == "over" else None
            cases.append((f"{row.title}: mean mmacs", over, [f"{row.mmacs[0]:.4f} -> {row.mmacs[1]:.4f}"]))
    cases.append(("trust checks", "; ".join(report.judgement.failures) or None, []))
    cases.append(("finished", "; ".join(report.judgement.unfinished) or None, []))
    failed = sum(failure is not None for _, failure, _ in cases)
    counts = {"tests": str(len(cases)), "failures": str(failed), "errors": "0"}
    root = Xml.Element("testsuites", counts)
    suite = Xml.SubElement(root, "testsuite", {"name": one_line(f"bench check {report.subject}"), **counts})
    for name, failure, output in cases:
        case = Xml.SubElement(suite, "testcase", {"classname": one_line(report.now.title), "name": one_line(name)})
        said = "\n".join(map(one_line, output))
        if failure is not None:
            Xml.SubElement(case, "failure", {"message": one_line(failure), "type": "regression"}).text = said
        elif output:
            Xml.SubElement(case, "system-out").text = said
    Xml.indent(root)
    return bytes(Xml.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"
