"""What MM-Vet's judge is asked: a task, graded examples, and the answer to be graded.

Yu et al., "MM-Vet" (2024); the words are as VLMEvalKit has them (Apache-2.0). lmms-eval breaks no
line of them, and heads the first column of the examples "gpt_query_prompt".
"""

from __future__ import annotations

_TASK = """\
Compare the ground truth and prediction from AI models, to give a correctness score for the \
prediction.
<AND> in the ground truth means it is totally right
only when all elements in the ground truth are present in the prediction,
and <OR> means it is totally right when any one element in the ground truth is present in the \
prediction.
The correctness score is 0.0 (totally wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or \
1.0 (totally right).
Just complete the last space of the correctness score."""

_MEME = """\
Can you explain this meme? | This meme is poking fun at the fact that the names of the countries
Iceland and Greenland are misleading. Despite its name, Iceland is known for its beautiful green \
landscapes,
while Greenland is mostly covered in ice and snow. The meme is saying that the person has trust \
issues
because the names of these countries do not accurately represent their landscapes. |
"""
_MEME_IN_PART = """\
The meme talks about Iceland and Greenland. It's pointing out that despite their names,
Iceland is not very icy and Greenland isn't very green."""
_MEME_IN_FULL = """\
The meme is using humor to point out the misleading nature of Iceland's and Greenland's names.
Iceland, despite its name, has lush green landscapes while Greenland is mostly covered in ice and \
snow.
The text 'This is why I have trust issues' is a playful way to suggest
that these contradictions can lead to distrust or confusion.
The humor in this meme is derived from the unexpected contrast between the names of the countries
and their actual physical characteristics."""

_EQUATION = "What is x in the equation? | -1 <AND> -5"
_EXAMPLES = (
    "--- | --- | --- | ---",
    f"{_EQUATION} | x = 3 | 0.0",
    f"{_EQUATION} | x = -1 | 0.5",
    f"{_EQUATION} | x = -5 | 0.5",
    f"{_EQUATION} | x = -5 or 5 | 0.5",
    f"{_EQUATION} | x = -1 or x = -5 | 1.0",
    f"{_MEME}{_MEME_IN_PART} | 0.4",
    f"{_MEME}{_MEME_IN_FULL} | 1.0",
)
_COLUMNS = " | Ground truth | Prediction | Correctness"


def vlmevalkit_prompt(question: str, answer: str, prediction: str) -> str:
    """As VLMEvalKit asks, in May 2025 and in August 2026."""
    head = "\n".join(("", _TASK, "", "Question" + _COLUMNS, *_EXAMPLES))
    return f"{head}\n\n{question} | {_spaced(answer)} | {prediction} | "


def lmms_eval_prompt(question: str, answer: str, prediction: str) -> str:
    """As lmms-eval asks: each example in one line, nothing after the last bar."""
    lines = (_TASK, "gpt_query_prompt" + _COLUMNS, *_EXAMPLES)
    head = "\n".join(line.replace("\n", " ") for line in lines)
    return f"{head}\n\n{question} | {_spaced(answer)} | {prediction.strip()} |"


def _spaced(answer: str) -> str:
    return answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
