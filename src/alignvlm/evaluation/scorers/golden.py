"""Names under which the official results were recorded, and the metrics that give them."""

from __future__ import annotations

from typing import NamedTuple

from alignvlm.evaluation.scorers.registry import MEASURES


class Recorded(NamedTuple):
    """Where a recorded result is found here.

    Attributes:
        metric: for `score`.
        part: of `Score.parts` that holds the result, or "value".
    """

    metric: str
    part: str = "value"


_TOOLKITS = {
    "vlmevalkit_legacy": "vlmevalkit-2025.05",
    "vlmevalkit": "vlmevalkit-2026.08",
    "lmms_eval": "lmms-eval",
    "official": "official",
}


def _toolkits(prefix: str, measure: str, part: str = "value") -> dict[str, Recorded]:
    return {
        f"{prefix}_{name}": Recorded(f"{measure}@{dialect}", part)
        for name, dialect in _TOOLKITS.items()
        if dialect in MEASURES[measure]
    }


_PIPED = "vlmevalkit-2026.08+pipeline"

GOLDEN_NAMES: dict[str, Recorded] = {
    **_toolkits("anls", "anls"),
    "anls_due": Recorded("anls@due"),
    "anls_pix2struct": Recorded("anls@pix2struct"),
    "anls_mmf_stvqa": Recorded("anls@mmf"),
    "anls_pypi_anls": Recorded("anls@anls-0.0.2"),
    "anls_star_pypi": Recorded("anls@anls_star-1.0.1"),
    **_toolkits("relaxed_accuracy", "relaxed_accuracy"),
    "relaxed_accuracy_pix2struct": Recorded("relaxed_accuracy@pix2struct"),
    "relaxed_accuracy_docowl": Recorded("relaxed_accuracy@docowl"),
    **_toolkits("vqa_soft_accuracy", "vqa_soft_accuracy"),
    "vqa_soft_accuracy_mmf": Recorded("vqa_soft_accuracy@mmf"),
    "vqa_soft_accuracy_vqa_official": Recorded("vqa_soft_accuracy@official"),
    **_toolkits("vqa_normaliser", "vqa_soft_accuracy", "normalised_prediction"),
    "vqa_normaliser_evalai_lmms": Recorded("vqa_soft_accuracy@lmms-eval", "normalised_prediction"),
    "vqa_normaliser_evalai_mmf": Recorded("vqa_soft_accuracy@mmf", "normalised_prediction"),
    **_toolkits("wtq_denotation", "wtq_denotation"),
    "wtq_denotation_due": Recorded("wtq_denotation@due"),
    "due_f1": Recorded("due_f1@due"),
    "due_mean_f1": Recorded("due_mean_f1@due"),
    "exact_accuracy_docowl": Recorded("exact_accuracy@docowl"),
    **_toolkits("exact_match", "exact_match"),
    **_toolkits("tablevqa_wtq", "tablevqa_wtq"),
    "tablevqa_wtq_vlmevalkit_pipeline": Recorded(f"tablevqa_wtq@{_PIPED}"),
    **_toolkits("tablevqa_tabfact", "tablevqa_tabfact"),
    **_toolkits("fintabnet_relieved", "fintabnet_relieved"),
    **_toolkits("fintabnet_exact", "fintabnet_exact"),
    "fintabnet_normalize": Recorded(
        "fintabnet_relieved@vlmevalkit-2026.08", "normalised_prediction"
    ),
    **_toolkits("yorn_extraction", "pope", "extracted"),
    **_toolkits("pope_accuracy", "pope"),
    **_toolkits("pope_corpus", "pope_corpus", "report"),
    **_toolkits("mcq_extract", "seed_choice", "extracted"),
    **_toolkits("mcq_hit", "seed_choice"),
    "seed_lmms_eval": Recorded("seed_choice@lmms-eval"),
    **_toolkits("mmmu_mcq", "mmmu_choice"),
    **_toolkits("mmmu_open", "mmmu_open"),
    "mmmu_open_full_list": Recorded("mmmu_open@official"),
    **_toolkits("mmvet_judge_parse", "mmvet_judge_parse"),
    **_toolkits("vcr_exact_match", "vcr_exact_match"),
    **_toolkits("vcr_jaccard", "vcr_jaccard"),
    "vlmevalkit_xlsx_roundtrip_anls": Recorded(f"anls@{_PIPED}"),
    "vlmevalkit_xlsx_roundtrip_relaxed_accuracy": Recorded(f"relaxed_accuracy@{_PIPED}"),
    "vlmevalkit_xlsx_roundtrip_vqa_score": Recorded(f"vqa_soft_accuracy@{_PIPED}"),
}
"""Names of recorded results, to the metric and the part of its score that must equal them."""
