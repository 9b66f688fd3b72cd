"""The TSV files that VLMEvalKit downloads, by their names."""

from __future__ import annotations

from typing import Final

__all__ = ["PUBLISHED_MD5"]

PUBLISHED_MD5: Final[dict[str, str]] = {
    "DocVQA_VAL.tsv": "d5ee77e1926ff10690d469c56b73eabf",
    "DocVQA_TEST.tsv": "6a2f28cac26ef2d3447374e8c6f6c8e9",
    "InfoVQA_VAL.tsv": "2342e9c225222f0ef4dec545ebb126fe",
    "InfoVQA_TEST.tsv": "df535bf51b88dc9718252c34131a6227",
    "ChartQA_TEST.tsv": "c902e0aa9be5582a7aad6dcf52734b42",
    "TextVQA_VAL.tsv": "b233b31f551bbf4056f2f955da3a92cd",
    "tablevqa-bench.tsv": "2550adc61bdc82d8e62f3b003de7c62d",
    "TableVQABench.tsv": "2550adc61bdc82d8e62f3b003de7c62d",
    "MMMU_DEV_VAL.tsv": "585e8ad75e73f75dcad265dfd0417d64",
    "SEEDBench_IMG.tsv": "68017231464752261a2526d6ca3a10c0",
    "MMVet.tsv": "748aa6d4aa9d4de798306a63718455e3",
    "POPE.tsv": "c12f5acb142f2ef1f85a26ba2fbe41d5",
    "GQA_TestDev_Balanced.tsv": "99b62f22e224d9b2f32dcbe41359d1c9",
    "VCR-wiki-en-easy-test.tsv": "8a9b96885f251d1c85f42f84073327f1",
    "VCR_EN_EASY_ALL.tsv": "8a9b96885f251d1c85f42f84073327f1",
    "VCR-wiki-en-easy-test-500.tsv": "fd9258db52f8685dc710619a0ea0a261",
    "VCR_EN_EASY_500.tsv": "fd9258db52f8685dc710619a0ea0a261",
    "VCR-wiki-en-easy-test-100.tsv": "9df5d7266683458621ecbe122beb72f0",
    "VCR_EN_EASY_100.tsv": "9df5d7266683458621ecbe122beb72f0",
    "VCR-wiki-en-hard-test.tsv": "2d8b8b1ee0eba0e0b618fd3aa7d9710e",
    "VCR_EN_HARD_ALL.tsv": "2d8b8b1ee0eba0e0b618fd3aa7d9710e",
    "VCR-wiki-en-hard-test-500.tsv": "0a22a85080b6a1f52b1f95e302d43df4",
    "VCR_EN_HARD_500.tsv": "0a22a85080b6a1f52b1f95e302d43df4",
    "VCR-wiki-en-hard-test-100.tsv": "1b20f5cbcbeae0b0bec77f7a36143958",
    "VCR_EN_HARD_100.tsv": "1b20f5cbcbeae0b0bec77f7a36143958",
}
"""As VLMEvalKit checks them; the test splits are here so that they are not taken for others."""
