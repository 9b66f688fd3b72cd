"""The five general benchmarks of the paper's Table 3, and VCR."""

from __future__ import annotations

from typing import Final

from alignvlm.data.formats.documents import VCR_PROMPT
from alignvlm.evaluation.benchmarks.documents import VLMEVALKIT_URL, both_versions, short_answer
from alignvlm.evaluation.benchmarks.hub_home import HubHome
from alignvlm.evaluation.benchmarks.readers import (
    Choice,
    Covered,
    Graded,
    Mmmu,
    ShortAnswer,
    YesNo,
)
from alignvlm.evaluation.benchmarks.record import Benchmark, PromptRule
from alignvlm.evaluation.benchmarks.tsv_home import TsvHome

__all__ = ["GENERAL", "VCR"]

_NO_LIMIT: Final = (
    "the number of tokens: VLMEvalKit leaves it to each model's wrapper, 128 to 4096 in practice"
)
_SHORT: Final = "\nAnswer the question using a single word or phrase."
_LETTER: Final = "\nAnswer with the option's letter from the given choices directly."

_CHOICE: Final = PromptRule(
    template="{hint}Question: {question}\nOptions:\n{choices}\n"
    "Please select the correct answer from the options above. \n",
    without_choices="{hint}Question: {question}\n",
    max_new_tokens=128,
    unverified=_NO_LIMIT,
)
_AS_IT_IS: Final = PromptRule(template="{question}", max_new_tokens=128, unverified=_NO_LIMIT)

MMMU = Benchmark(
    name="mmmu",
    title="MMMU",
    column="MMMU-dev",
    table=3,
    split="validation",
    num_expected=900,
    num_source="the paper's numbers: it prints MMMU-dev, which has 150",
    measures=("mmmu_choice", "mmmu_open"),
    prompts=both_versions(
        PromptRule(
            template=_CHOICE.template,
            without_choices=_CHOICE.without_choices,
            max_new_tokens=128,
            images="vlmevalkit",
            unverified=_NO_LIMIT,
        )
    )
    | {
        "lmms-eval": PromptRule(
            template="{question}\n{choices}\n" + _LETTER,
            without_choices="{question}\n" + _SHORT,
            max_new_tokens=128,
            stop=("\n\n",),
            images="lmms-eval",
        )
    },
    homes=(
        TsvHome(
            url=f"{VLMEVALKIT_URL}MMMU_DEV_VAL.tsv",
            files=("MMMU_DEV_VAL.tsv",),
            reader=Mmmu(),
            only_split="validation",
        ),
        HubHome(
            repo="lmms-lab-encoder/MMMU",
            splits=(("validation",),),
            ids=("id",),
            images=tuple(f"image_{number}" for number in range(1, 8)),
            reader=Mmmu(listed="options"),
        ),
    ),
    source="Only the validation rows of MMMU_DEV_VAL. Of lmms-eval's two prompts this is the one "
    "with images in their places.",
)

SEEDBENCH = Benchmark(
    name="seedbench",
    title="SEED-Bench (images)",
    column="SeedBench",
    table=3,
    split="test",
    measures=("seed_choice",),
    prompts=both_versions(_CHOICE)
    | {
        "lmms-eval": PromptRule(
            template="{question}\n{choices}" + _LETTER,
            max_new_tokens=1024,
            stop=("ASSISTANT:",),
            unverified="the number of tokens: lmms-eval's task sets none, most models take 1024",
        )
    },
    homes=(
        TsvHome(
            url="https://opencompass.openxlab.space/utils/benchmarks/SEEDBench/SEEDBench_IMG.tsv",
            files=("SEEDBench_IMG.tsv",),
            reader=Choice(measure="seed_choice", group="category"),
        ),
        HubHome(
            repo="lmms-lab-encoder/SEED-Bench",
            ids=("question_id",),
            only=("data_type", "image"),
            reader=Choice(
                measure="seed_choice",
                choices=("choice_a", "choice_b", "choice_c", "choice_d"),
                group="question_type_id",
            ),
        ),
    ),
    source="About 14,200 questions, from memory. Videos, which lmms-eval's files have too, are "
    "left out.",
)

MMVET = Benchmark(
    name="mmvet",
    title="MM-Vet",
    column="MMVet",
    table=3,
    split="test",
    num_expected=218,
    num_source="deduced from the paper's numbers",
    measures=("mmvet",),
    prompts=both_versions(
        PromptRule(template="{question}", max_new_tokens=512, unverified=_NO_LIMIT)
    )
    | {
        "lmms-eval": PromptRule(
            template="Reason step by step about the question first, then answer it.\n\n{question}",
            max_new_tokens=1024,
            stop=("\n\n",),
            unverified="the words before the question: lmms-eval also asks for steps, in its own",
        )
    },
    homes=(
        TsvHome(
            url=f"{VLMEVALKIT_URL}MMVet.tsv",
            files=("MMVet.tsv",),
            reader=Graded(group="category"),
        ),
        HubHome(
            repo="lmms-lab-encoder/MMVet",
            ids=("question_id",),
            reader=Graded(group="capability"),
        ),
    ),
    source="The paper does not say which model judged.",
)

POPE = Benchmark(
    name="pope",
    title="POPE",
    column="POPE",
    table=3,
    split="test",
    measures=("pope",),
    prompts=both_versions(_AS_IT_IS)
    | {"lmms-eval": PromptRule(template="{stripped}" + _SHORT, max_new_tokens=128, stop=("\n\n",))},
    homes=(
        TsvHome(
            url=f"{VLMEVALKIT_URL}POPE.tsv",
            files=("POPE.tsv",),
            reader=YesNo(),
        ),
        HubHome(
            repo="lmms-lab-encoder/POPE",
            splits=(("test",), ("adversarial", "popular", "random")),
            ids=("category", "question_id"),
            reader=YesNo(),
        ),
    ),
    source="VLMEvalKit has each question once (about 5,100) with its categories joined by commas, "
    "lmms-eval once for each category (9,000).",
)

GQA = Benchmark(
    name="gqa",
    title="GQA",
    column="GQA",
    table=3,
    split="testdev, balanced",
    num_expected=12578,
    num_source="from memory",
    measures=("exact_match",),
    prompts=short_answer(
        PromptRule(template="{question}" + _SHORT, max_new_tokens=16, stop=("\n\n",))
    ),
    homes=(
        TsvHome(
            url=f"{VLMEVALKIT_URL}GQA_TestDev_Balanced.tsv",
            files=("GQA_TestDev_Balanced.tsv",),
            reader=ShortAnswer(measure="exact_match"),
        ),
        HubHome(
            repo="lmms-lab-encoder/GQA",
            config="testdev_balanced_instructions",
            splits=(("testdev",),),
            ids=("id",),
            images_elsewhere=("testdev_balanced_images", "imageId", "id"),
            reader=ShortAnswer(measure="exact_match"),
        ),
    ),
    source="On the Hub, questions and images are two configurations.",
)


def _vcr(level: str) -> Benchmark:
    repo = f"vcr-org/VCR-wiki-en-{level}-test"
    files = [f"VCR-wiki-en-{level}-test{size}.tsv" for size in ("", "-500", "-100")]
    files += [f"VCR_EN_{level.upper()}_{size}.tsv" for size in ("ALL", "500", "100")]
    return Benchmark(
        name=f"vcr_{level}",
        title=f"VCR-wiki, English, {level}",
        split="test",
        num_expected=5000,
        num_source="from memory; the files -500 and -100 have the first so many",
        measures=("vcr_exact_match", "vcr_jaccard"),
        prompts=both_versions(_AS_IT_IS)
        | {
            "lmms-eval": PromptRule(template=VCR_PROMPT, max_new_tokens=120, stop=("\n\n",)),
        },
        homes=(
            TsvHome(
                url=f"https://huggingface.co/datasets/{repo}/resolve/main/"
                f"VCR-wiki-en-{level}-test.tsv",
                files=tuple(files),
                reader=Covered(answer="answer"),
            ),
            HubHome(
                repo=repo,
                ids=("question_id",),
                images=("stacked_image",),
                reader=Covered(answer="crossed_text", question=VCR_PROMPT),
            ),
        ),
        source="Which of the three sizes the paper's Figure 5 is about is not stated.",
    )


VCR: Final = (_vcr("easy"), _vcr("hard"))

GENERAL: Final = (MMMU, SEEDBENCH, MMVET, POPE, GQA)
