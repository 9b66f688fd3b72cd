"""The tokens of an English text, as spaCy 3 splits it (`spacy.blank("en")`).

VCR's scores count these tokens. The tokenizer needs no model, so its rules are written out here
and spaCy itself, with what it installs, is not needed: a word loses signs at both ends until none
is left or a rule of `token_rules` holds, then is split at signs inside it; at last, tokens that
together are a rule's text become the rule's tokens.
"""

from __future__ import annotations

import re
from functools import cache

from alignvlm.evaluation.scorers.letters import letter_classes, symbols
from alignvlm.evaluation.scorers.token_rules import LONGEST_RULE, RULES

_PUNCTUATION = "….,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪".replace(".", "")
_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧"
_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
_CURRENCY_CODES = ("US$", "C$", "A$")
_UNIT_NAMES = (
    "km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s "
    "km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K %"
)
"""Units that are split off a digit; spaCy also has some in Cyrillic and Arabic letters."""
_UNITS = frozenset(_UNIT_NAMES.split())
_LONGEST_UNIT = max(map(len, _UNITS))
_POSSESSIVES = ("'s", "'S", "’s", "’S")
_DIGITS = frozenset("0123456789")

_ENDS = frozenset(_PUNCTUATION + _QUOTES + "—–")
_STARTS = _ENDS | frozenset("§%=" + _CURRENCY)
_BEFORE_STOP = frozenset(_PUNCTUATION + _QUOTES + "%²-+|()?:") | _DIGITS


def tokenize(text: str) -> list[str]:
    """The tokens of a text; a blank between two of them is no token, further blanks are one."""
    tokens: list[str] = []
    glued: list[bool] = []
    for number, run in enumerate(re.findall(r"\s+|\S+", text)):
        if run.isspace():
            rest = run[1:] if number and run[0] == " " else run
            if glued and rest is not run:
                glued[-1] = False
            found = [rest] if rest else []
        else:
            found = _word(run, rules=True)
        tokens += found
        glued += [True] * len(found)
    return _joined(tokens, glued)


def _word(text: str, *, rules: bool) -> list[str]:
    """The tokens of a text without blanks."""
    start, end = 0, len(text)
    before: list[str] = []
    after: list[str] = []
    while start < end and not (rules and _is_rule(text, start, end)):
        first = _prefix(text, start, end)
        if first and rules and _is_rule(text, start + first, end):
            before.append(text[start : start + first])
            start += first
            break
        last = _suffix(text, start + first, end)
        if last and rules and _is_rule(text, start, end - last):
            after.append(text[end - last : end])
            end -= last
            break
        if first:
            before.append(text[start : start + first])
        if last:
            after.append(text[end - last : end])
        start, end = start + first, end - last
        if not first and not last:
            break
    return [*before, *_middle(text[start:end], rules=rules), *reversed(after)]


def _is_rule(text: str, start: int, end: int) -> bool:
    return 0 < end - start <= LONGEST_RULE and text[start:end] in RULES


def _prefix(text: str, start: int, end: int) -> int:
    """How many characters at the start are a sign of their own."""
    char = text[start]
    follows = text[start + 1] if start + 1 < end else ""
    if char == ".":
        stop = start
        while stop < end and text[stop] == ".":
            stop += 1
        return stop - start if stop - start > 1 else 0
    if char in _STARTS or (char == "+" and follows not in _DIGITS) or _is_symbol(char):
        return 1
    return next((len(code) for code in _CURRENCY_CODES if text.startswith(code, start, end)), 0)


def _suffix(text: str, start: int, end: int) -> int:
    """How many characters at the end are a sign of their own, or a unit after a digit."""
    if start >= end:
        return 0
    char = text[end - 1]
    before = text[end - 2] if end - 2 >= start else ""
    if char == ".":
        return _full_stops(text, start, end)
    if char == before == "…" or (before + char) in _POSSESSIVES:
        return 2
    amount = _amount_suffix(text, start, end)
    if amount:
        return amount
    return int(char in _ENDS or _is_symbol(char) or (char == "+" and before in _DIGITS))


def _full_stops(text: str, start: int, end: int) -> int:
    stop = end
    while stop > start and text[stop - 1] == ".":
        stop -= 1
    if end - stop > 1:
        return end - stop
    before = text[max(start, end - 3) : end - 1]
    if re.fullmatch(r"°[FfCcKk]", before):
        return 1
    lower, upper, _ = _letters()
    if before and (before[-1] in _BEFORE_STOP or lower.match(before[-1])):
        return 1
    return int(len(before) == 2 and all(upper.match(char) for char in before))


def _amount_suffix(text: str, start: int, end: int) -> int:
    """Length of the longest unit or currency sign at the end that follows a digit."""
    for length in range(min(_LONGEST_UNIT, end - start - 1), 0, -1):
        tail = text[end - length : end]
        known = tail in _UNITS or tail in _CURRENCY_CODES or (length == 1 and tail in _CURRENCY)
        if known and text[end - length - 1] in _DIGITS:
            return length
    return 0


def _is_symbol(char: str) -> bool:
    return not char.isascii() and _symbol().match(char) is not None


def _middle(text: str, *, rules: bool) -> list[str]:
    """What is left between the signs at both ends."""
    if not text:
        return []
    if rules and text in RULES:
        return list(RULES[text])
    if is_url(text):
        return [text]
    tokens = []
    offset = 0
    for match in _infixes().finditer(text):
        if match.start() > offset:
            tokens.append(text[offset : match.start()])
        tokens.append(match[0])
        offset = match.end()
    return [*tokens, text[offset:]] if offset < len(text) else tokens


def _joined(tokens: list[str], glued: list[bool]) -> list[str]:
    """Tokens that are together a rule's text become its tokens; of overlapping ones the longest."""
    by_tokens, first_tokens = _rule_tokens()
    spans = [
        (start, start + length)
        for start, token in enumerate(tokens)
        for length in first_tokens.get(token, ())
        if start + length <= len(tokens) and tuple(tokens[start : start + length]) in by_tokens
    ]
    taken: set[int] = set()
    replaced: dict[int, int] = {}
    for start, end in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
        if start not in taken and end - 1 not in taken and all(glued[start : end - 1]):
            replaced[start] = end
        taken.update(range(start, end))
    out: list[str] = []
    index = 0
    while index < len(tokens):
        end = replaced.get(index, 0)
        out += RULES["".join(tokens[index:end])] if end else [tokens[index]]
        index = end or index + 1
    return out


@cache
def _rule_tokens() -> tuple[frozenset[tuple[str, ...]], dict[str, tuple[int, ...]]]:
    """Rules' texts as they would be split without rules, and their lengths by first token."""
    split = {
        tuple(_word(text, rules=False))
        for text in RULES
        if _prefix(text, 0, len(text)) or _suffix(text, 0, len(text)) or _infixes().search(text)
    }
    lengths: dict[str, set[int]] = {}
    for tokens in split:
        lengths.setdefault(tokens[0], set()).add(len(tokens))
    return frozenset(split), {first: tuple(sorted(found)) for first, found in lengths.items()}


@cache
def _letters() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    lower, upper, all_ = (re.compile(f"[{inside}]") for inside in letter_classes())
    return lower, upper, all_


@cache
def _symbol() -> re.Pattern[str]:
    return re.compile(f"[{symbols()}]")


@cache
def _infixes() -> re.Pattern[str]:
    """Signs inside a word that split it."""
    lower, upper, letter = letter_classes()
    quotes = re.escape(_QUOTES)
    return re.compile(
        "|".join(
            (
                r"\.\.+",
                "…",
                f"[{symbols()}]",
                r"(?<=[0-9])[+\-*^](?=[0-9-])",
                rf"(?<=[{lower}{quotes}])\.(?=[{upper}{quotes}])",
                f"(?<=[{letter}]),(?=[{letter}])",
                f"(?<=[{letter}0-9])(?:-|–|—|--|---|——|~)(?=[{letter}])",
                f"(?<=[{letter}0-9])[:<>=/](?=[{letter}])",
            )
        )
    )


def is_url(text: str) -> bool:
    """Whether a text without blanks is a web or mail address, which stays whole."""
    if "." not in text:
        return False
    scheme = re.match(r"[\w+\-.]{2,}://", text)
    starts = [0, *([scheme.end()] if scheme else ())]
    starts += [match.end() for match in re.finditer("@", text) if match.start() > 0]
    return any(_host().match(text, start) for start in starts)


@cache
def _host() -> re.Pattern[str]:
    lower, _, _ = letter_classes()
    name = r"A-Za-z0-9\u00a1-\uffff"
    return re.compile(
        r"(?:(?!(?:10|127)(?:\.\d{1,3}){3}|(?:169\.254|192\.168)(?:\.\d{1,3}){2}"
        r"|172\.(?:1[6-9]|2\d|3[01])(?:\.\d{1,3}){2})"
        r"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:1?\d{1,2}|2[0-4]\d|25[0-5])){2}"
        r"\.(?:[1-9]\d?|1\d\d|2[0-4]\d|25[0-4])"
        rf"|(?:(?:[{name}][{name}_-]{{0,62}})?[{name}]\.)+[{lower}]{{2,63}})"
        r"(?::\d{2,5})?(?:[/?#]\S*)?\Z"
    )
