"""What a reader has to know about a report, in sentences for the page and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignvlm.evaluation.reporting.estimates import FEWEST
from alignvlm.evaluation.reporting.tables import PROMPTS

__all__ = ["method", "notes"]


def notes(content: Mapping[str, Any]) -> list[str]:
    """What is to be kept in mind before any number is read."""
    settings, said = content["settings"], []
    with_paper = any(not row["ours"] for table in content["tables"] for row in table["rows"])
    if with_paper and settings["dialect"] != settings["paper_dialect"]:
        said.append(
            f"The scores are of the dialect {settings['dialect']}. The paper's rows were made with "
            f"the toolkit that {settings['paper_dialect']} agrees with."
        )
    remarks = [remark for one in content["results"] for remark in one["remarks"]]
    if any(remark.startswith(PROMPTS) for remark in remarks):
        said.append("A benchmark was put to the runs in different prompts: see the remarks.")
    for run in content["runs"]:
        if run["unfinished"]:
            said.append(
                f"{run['label']} has not finished {', '.join(run['unfinished'])}, which is left "
                "out: `alignvlm eval` with the same folder goes on."
            )
    few = [one for one in content["results"] if one["num_questions"] != one["num_expected"]]
    if few := [one for one in few if one["num_expected"] is not None]:
        names = ", ".join(dict.fromkeys(one["title"] for one in few))
        said.append(
            f"Not all questions were asked of {names}: these scores are not the benchmark's."
        )
    return said


def method(content: Mapping[str, Any]) -> list[str]:
    """How the numbers were made."""
    settings = content["settings"]
    return [
        f"Scores are of the dialect {settings['dialect']}, or of a measure's only one where it "
        "lacks that; each metric's full name is under Scores.",
        f"Intervals are 95 % percentile bootstrap intervals over {settings['bootstrap']:,} "
        "resamples. Questions are drawn with replacement; for F1 pooled over documents (DeepForm, "
        "KLC) whole documents are drawn; where a score is the mean of its groups' scores, as many "
        "questions of each group as there are. Questions about one page are drawn as if they were "
        "independent, and training a second time is not in the interval. "
        f"Sets of fewer than {FEWEST} have no interval.",
        "For averages each benchmark is drawn by itself.",
        "Differences are paired: the same questions are drawn for both runs. Tests are two-sided. "
        "Scores of 0 and 1 are tested by McNemar's exact test; others by a permutation test that "
        "swaps the two runs' answers question by question (document by document for pooled F1), "
        "all ways of it where at most 14 differ, else "
        f"{settings['bootstrap']:,} drawn ones.",
        "p, Holm: corrected by Holm's method for all comparisons of single benchmarks in this "
        "report.",
        "Rows of the paper are as printed. Most of its averages are cut after two decimals, not "
        "rounded, and Fuyu-8B's (22.97) is not the mean of its row (27.98).",
        f"Seed {settings['seed']}, alignvlm {settings['alignvlm']}: the same runs give the same "
        "report, bit for bit.",
    ]
