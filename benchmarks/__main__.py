"""`python -m benchmarks SUITE [SECTION ...] [--quick] [--json FILE] [--markdown FILE]`."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

import torch

from benchmarks import (
    audit,
    batch,
    coverage,
    earlier,
    evaluation,
    features,
    heatmaps,
    interpretable,
    medical,
    perturbation,
    report,
    runtime,
    studio,
    tasks,
    trust,
    video,
)
from benchmarks.timing import machine, source_digest

_SUITES = {
    "heatmaps": heatmaps,
    "perturbation": perturbation,
    "features": features,
    "interpretable": interpretable,
    "video": video,
    "coverage": coverage,
    "trust": trust,
    "batch": batch,
    "audit": audit,
    "evaluation": evaluation,
    "runtime": runtime,
    "studio": studio,
    "tasks": tasks,
    "earlier": earlier,
    "medical": medical,
}


def main() -> int:
    """Run a suite, show its tables as they come, write the reports that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Pellucid beside its rivals.")
    parser.add_argument("suite", choices=_SUITES)
    names = "; ".join(f"of {name}: {', '.join(suite.SECTIONS)}" for name, suite in _SUITES.items())
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"only these ({names})")
    parser.add_argument("--quick", action="store_true", help="less work and fewer rounds")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in every process (default 1)")
    parser.add_argument("--json", metavar="FILE", help="write all figures here")
    parser.add_argument("--markdown", metavar="FILE", help="put the tables into this page, in place of older ones")
    parser.add_argument("--rows", metavar="FILE", help="of coverage and trust: keep rows here and go on from there")
    options = parser.parse_args()
    suite = _SUITES[options.suite]
    if unknown := [name for name in options.sections if name not in suite.SECTIONS]:
        parser.error(f"{options.suite} has no section {unknown[0]!r}; it has {', '.join(suite.SECTIONS)}")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for the children
    torch.set_num_threads(options.threads)
    facts, source = machine(options.device), source_digest()
    done = []
    command = " ".join(["python -m benchmarks", options.suite, *options.sections, *["--quick"] * options.quick])
    size = suite.QUICK if options.quick else suite.FULL
    if options.rows:
        if suite not in (coverage, trust):
            parser.error("--rows is for coverage and trust")
        size = replace(size, rows=options.rows)
    for name in options.sections or suite.SECTIONS:
        for section in suite.SECTIONS[name](size, options.device):
            report.show(section)
            done = [each for each in done if each.title != section.title] + [section]  # one that has grown
            facts |= {"load after": machine().get("load before", "unknown")}
            same = source_digest() == source
            facts["source"] = source if same else f"{source}, CHANGED while it was measured: run again"
            if options.json:
                report.write(options.json, report.to_json(facts, done))
            if options.markdown:
                report.update(options.markdown, options.suite, suite.TITLE, facts, done, command)
    missed = sum(row.reached is False for section in done for row in section.rows)
    print(f"{missed} targets missed." if missed else "All targets reached.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
