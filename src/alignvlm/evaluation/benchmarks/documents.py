"""The nine document benchmarks of the paper's Tables 1 and 2."""

from __future__ import annotations

from typing import Final

from alignvlm.evaluation.benchmarks.docowl import DEEPFORM_KEYS, KLC_KEYS, DocOwlHome
from alignvlm.evaluation.benchmarks.hub_home import HubHome
from alignvlm.evaluation.benchmarks.readers import ShortAnswer, TableQuestion
from alignvlm.evaluation.benchmarks.record import Benchmark, PromptRule
from alignvlm.evaluation.benchmarks.tsv_home import TsvHome

__all__ = ["DOCUMENTS", "VLMEVALKIT_URL", "both_versions", "short_answer"]

VLMEVALKIT_URL: Final = "https://opencompass.openxlab.space/utils/VLMEval/"

_SHORT: Final = "\nAnswer the question using a single word or phrase."
_NO_LIMIT: Final = (
    "the number of tokens: VLMEvalKit leaves it to each model's wrapper, 128 to 4096 in practice"
)
_LMMS_NO_LIMIT: Final = "the number of tokens: lmms-eval's task sets none, most models take 1024"


def both_versions(rule: PromptRule) -> dict[str, PromptRule]:
    """VLMEvalKit's prompt, which did not change between the two versions."""
    return {"vlmevalkit-2025.05": rule, "vlmevalkit-2026.08": rule}


def short_answer(lmms_eval: PromptRule) -> dict[str, PromptRule]:
    """VLMEvalKit's default prompt for short answers, and lmms-eval's."""
    rule = PromptRule(template="{question}" + _SHORT, max_new_tokens=128, unverified=_NO_LIMIT)
    return both_versions(rule) | {"lmms-eval": lmms_eval}


def _lmms_eval(max_new_tokens: int, template: str = "{question}" + _SHORT) -> PromptRule:
    return PromptRule(template=template, max_new_tokens=max_new_tokens, stop=("\n\n",))


_DOCOWL: Final = {
    "docowl": PromptRule(
        template="{question}",
        max_new_tokens=512,
        unverified="whether the paper put the data's own questions: it names VLMEvalKit, which "
        "lacks this benchmark",
    )
}

_TABLES: Final = {
    "vwtq": (
        "Answer a question about the table in the image, in one word if that is enough.\n"
        "Put || between several answers, as in Oslo||Lima||Cairo.\n\n"
        "Question: in which year was the bridge opened?\nAnswer: 1932\n"
        "Question: which river is listed last?\nAnswer: Tagus\n\n"
        "Question: {question}\nAnswer:"
    ),
    "vtabfact": (
        "Is a statement about the table in the image true?\n"
        "You should only answer True or False.\n\n"
        "Statement: the visitors score 3 goal in april\nAnswer: True\n"
        "Statement: no club be found before 1900\nAnswer: False\n\n"
        "Statement: {question}\nAnswer:"
    ),
    "fintabnetqa": (
        "Answer a question about the table in the image in a few words.\n"
        "Give the unit where it is known, such as $, % or million.\n\n"
        "Question: What was the net income in 2011?\nAnswer: $1,207 million\n"
        "Question: What share of sales came from services in 2009?\nAnswer: 12.5%\n\n"
        "Question: {question}\nAnswer:"
    ),
}
_TABLES["vwtq_syn"] = _TABLES["vwtq"]
_OWN_WORDS: Final = (
    "the words: the toolkit's few-shot templates (several answers joined by ||, True or False, "
    "units) are told in our own, so predictions differ from its"
)


def _tables(template: str) -> PromptRule:
    return PromptRule(
        template=_TABLES["vwtq"],
        by_group=_TABLES | {"vtabfact": template},
        max_new_tokens=128,
        unverified=_OWN_WORDS,
    )


DOCVQA = Benchmark(
    name="docvqa",
    title="DocVQA",
    column="DocVQA",
    table=1,
    split="validation",
    num_expected=5349,
    num_source="evalscope's documentation",
    measures=("anls",),
    prompts=short_answer(_lmms_eval(32)),
    homes=(
        TsvHome(
            url=f"{VLMEVALKIT_URL}DocVQA_VAL.tsv",
            files=("DocVQA_VAL.tsv",),
            reader=ShortAnswer(measure="anls", listed=True),
        ),
        HubHome(
            repo="lmms-lab-encoder/DocVQA",
            config="DocVQA",
            splits=(("validation",),),
            ids=("questionId",),
            reader=ShortAnswer(measure="anls", answer="answers", listed=True),
        ),
    ),
    source="The test split's answers are secret, so numbers computed locally are validation's.",
)

INFOVQA = Benchmark(
    name="infovqa",
    title="InfographicVQA",
    column="InfoVQA",
    table=1,
    split="validation",
    num_expected=2801,
    num_source="evalscope's documentation",
    measures=("anls",),
    prompts=short_answer(_lmms_eval(32)),
    homes=(
        TsvHome(
            url=f"{VLMEVALKIT_URL}InfoVQA_VAL.tsv",
            files=("InfoVQA_VAL.tsv",),
            reader=ShortAnswer(measure="anls", listed=True),
        ),
        HubHome(
            repo="lmms-lab-encoder/DocVQA",
            config="InfographicVQA",
            splits=(("validation",),),
            ids=("questionId",),
            reader=ShortAnswer(measure="anls", answer="answers", listed=True),
        ),
    ),
    source="The test split's answers are secret, as DocVQA's.",
)

DEEPFORM = Benchmark(
    name="deepform",
    title="DeepForm",
    column="DeepForm",
    table=1,
    split="test",
    measures=("due_f1",),
    prompts=_DOCOWL,
    homes=(DocOwlHome(dataset="DeepForm", measure="due_f1", keys=DEEPFORM_KEYS),),
    source="In no public toolkit; DocOwl 1.5 scores it with DUE's evaluator.",
)

KLC = Benchmark(
    name="klc",
    title="Kleister Charity",
    column="KLC",
    table=1,
    split="test",
    measures=("due_f1",),
    prompts=_DOCOWL,
    homes=(DocOwlHome(dataset="KleisterCharity", measure="due_f1", keys=KLC_KEYS),),
    source="In no public toolkit; DocOwl 1.5 scores it with DUE's evaluator.",
)

WTQ = Benchmark(
    name="wtq",
    title="WikiTableQuestions",
    column="WTQ",
    table=1,
    split="test",
    num_expected=4343,
    num_source="deduced from the paper's numbers; the official test split has 4344",
    measures=("wtq_denotation",),
    prompts=_DOCOWL,
    homes=(DocOwlHome(dataset="WikiTableQuestions", measure="wtq_denotation"),),
    source="In no public toolkit. As DocOwl has it, an answer is one value and is not split, so "
    "the 2.65 % of questions with several answers cannot be right.",
)

TABFACT = Benchmark(
    name="tabfact",
    title="TabFact",
    column="TabFact",
    table=1,
    split="test",
    measures=("exact_accuracy",),
    prompts=_DOCOWL,
    homes=(DocOwlHome(dataset="TabFact", measure="exact_accuracy", metadata=False),),
    source="In no public toolkit; DocOwl 1.5 asks for exactly True or False.",
)

CHARTQA = Benchmark(
    name="chartqa",
    title="ChartQA",
    column="ChartQA",
    table=1,
    split="test",
    num_expected=2500,
    num_source="VLMEvalKit #345, and the paper's numbers",
    measures=("relaxed_accuracy",),
    prompts=short_answer(_lmms_eval(16, "{question}\nAnswer the question with a single word.")),
    homes=(
        TsvHome(
            url=f"{VLMEVALKIT_URL}ChartQA_TEST.tsv",
            files=("ChartQA_TEST.tsv",),
            reader=ShortAnswer(measure="relaxed_accuracy", group="split"),
        ),
        HubHome(
            repo="lmms-lab-encoder/ChartQA",
            reader=ShortAnswer(measure="relaxed_accuracy", group="type"),
        ),
    ),
    source="Human and machine-made questions together.",
)

TEXTVQA = Benchmark(
    name="textvqa",
    title="TextVQA",
    column="TextVQA",
    table=1,
    split="validation",
    num_expected=5000,
    num_source="from memory",
    measures=("vqa_soft_accuracy",),
    prompts=short_answer(
        PromptRule(
            template="{capitalized}" + _SHORT,
            max_new_tokens=1024,
            stop=("ASSISTANT:",),
            unverified=_LMMS_NO_LIMIT,
        )
    ),
    homes=(
        TsvHome(
            url=f"{VLMEVALKIT_URL}TextVQA_VAL.tsv",
            files=("TextVQA_VAL.tsv",),
            reader=ShortAnswer(measure="vqa_soft_accuracy", listed=True),
        ),
        HubHome(
            repo="lmms-lab-encoder/textvqa",
            splits=(("validation",),),
            ids=("question_id",),
            reader=ShortAnswer(measure="vqa_soft_accuracy", answer="answers", listed=True),
        ),
    ),
    source="No OCR tokens in the prompt. lmms-eval puts the question's first letter in upper case "
    "and all others in lower case.",
)

TABLEVQA = Benchmark(
    name="tablevqa",
    title="TableVQA-Bench",
    column="TableVQA",
    table=1,
    split="test",
    num_expected=1500,
    num_source="counted: vwtq 750, vwtq_syn 250, vtabfact 250, fintabnetqa 250",
    measures=("tablevqa_wtq", "tablevqa_tabfact", "fintabnet_relieved", "fintabnet_exact"),
    headline="mean_of_groups",
    prompts=both_versions(_tables(_TABLES["vtabfact"]))
    | {"official": _tables(_TABLES["vtabfact"].replace("True or False", "true or false"))},
    homes=(
        TsvHome(
            url="https://pai-aigc-photog.oss-cn-hangzhou.aliyuncs.com/mentor-vil/datasets/"
            "tablevqa-bench.tsv",
            files=("tablevqa-bench.tsv", "TableVQABench.tsv"),
            reader=TableQuestion(),
        ),
        HubHome(
            repo="terryoo/TableVQA-Bench",
            splits=(("fintabnetqa", "vtabfact", "vwtq", "vwtq_syn"),),
            ids=("qa_id",),
            reader=TableQuestion(answer="gt"),
            split_column=True,
        ),
    ),
    source="The paper's column is the plain mean of the four sub-sets, deduced from its numbers; "
    "the official script weights them by size. Columns of the Hub's files are from memory.",
)

DOCUMENTS: Final = (
    DOCVQA, INFOVQA, DEEPFORM, KLC, WTQ, TABFACT, CHARTQA, TEXTVQA, TABLEVQA,
)  # fmt: skip
