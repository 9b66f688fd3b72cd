from __future__ import annotations

from alignvlm.hints import did_you_mean


def test_what_may_have_been_meant_is_named() -> None:
    assert did_you_mean("allign", ["mlp", "align"]) == " (did you mean 'align'?)"
    assert did_you_mean("lm", ["llm"], prefix="rates.") == " (did you mean 'rates.llm'?)"
    assert did_you_mean("zzzz", ["llm"], prefix="model.") == ""
    assert did_you_mean("perceiver", ["mlp", "align"]) == ""
    assert did_you_mean(7, iter(["align"])) == ""
