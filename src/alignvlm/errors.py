"""Every error a user can meet.

A message is one sentence: what is wrong, where, and what to do about it. The command line prints
that sentence and exits with the class's `exit_code`: 2 for misuse, 1 for an item that failed.
"""

from __future__ import annotations

__all__ = [
    "AlignVLMError",
    "ConfigurationError",
    "InputError",
    "LimitError",
    "MissingDependencyError",
    "PdfError",
    "TrainingError",
    "UnsupportedImageError",
    "UsageError",
    "WeightsError",
]


class AlignVLMError(Exception):
    """Base of every error that is meant for the user; catch this one to catch them all."""

    exit_code: int = 1
    """Exit status of the command line: 1 a failed item, 2 misuse."""


class UsageError(AlignVLMError):
    """The command or call itself is wrong: an empty question, a page range that is no range."""

    exit_code = 2


class ConfigurationError(AlignVLMError):
    """A setting is out of range, or two settings contradict each other."""

    exit_code = 2


class InputError(AlignVLMError):
    """A file or a page cannot be used; other files of the same call still can."""


class UnsupportedImageError(InputError):
    """The file is not an image of one of the accepted formats, or its content is damaged."""


class LimitError(InputError):
    """The file or page is larger than the `Limits` in force allow."""


class PdfError(InputError):
    """The PDF is damaged, encrypted, or lacks the page asked for."""


class WeightsError(AlignVLMError):
    """Model weights are missing, incomplete, or do not fit the architecture."""


class TrainingError(AlignVLMError):
    """A run cannot go on: its loss or its gradient is no longer a number."""


class MissingDependencyError(AlignVLMError):
    """An optional package is needed and not installed.

    Args:
        package: the name a user would install, e.g. `"peft"`.
        needed_for: what needs it, completing "... is needed to", e.g. `"train an adapter"`.
        extra: the extra of this package that brings it, or None when no extra does.
        command: the install command when it is not the extra's, e.g. for a package that has to be
            installed without its dependencies.
    """

    def __init__(
        self,
        package: str,
        needed_for: str,
        *,
        extra: str | None = None,
        command: str | None = None,
    ) -> None:
        if command is None:
            command = f'pip install "alignvlm[{extra}]"' if extra else f"pip install {package}"
        super().__init__(
            f"The package {package} is needed to {needed_for} and is not installed: run `{command}`"
        )
        self.package = package
        self.command = command
