"""What the English tokenizer of spaCy 3 keeps whole or splits in a way of its own.

A rule is a text and its tokens. Contractions are written here as stem and ending; the tokenizer
also knows them without their apostrophe ("dont" is "do" and "nt") unless that is a word.
"""

from __future__ import annotations

from itertools import product

_NOT_SPLIT = {
    word
    for plain in ("ill", "its", "hell", "shell", "shed", "were", "well", "whore")
    for word in (plain, plain.title())
}

_KEPT = """
' '' \\") <space> C++ \\t \\n — 'S 's ‘S ‘s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz
'Cuz 'bout ma'am Ma'am o'clock O'clock 'd a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G.
Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep.
Rev. Sen. St. vs. v.s. Mt. em 'em ll 'll nuff 'nuff
Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan.
Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb.
Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis.
:) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-) (;
(-; :( :-( :(( :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P
:-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD
XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o
o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) (*_*) (¬_¬) ಠ_ಠ
ಠ︵ಠ (ಠ_ಠ) ¯\\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>
"""

_SPLIT = """
i-'m i-'m-a y'-all y-all how-'d-'y How-'d-'y not-'ve Not-'ve can-not Can-not gon-na Gon-na got-ta
Got-ta let-'s Let-'s c'm-on C'm-on
"""

_STEMS: list[tuple[str, str]] = [
    ("i", "'ll 'll-'ve 'd 'd-'ve 've"),
    ("you we they", "'ll 'll-'ve 'd 'd-'ve 've 're"),
    ("he she it", "'ll 'll-'ve 'd 'd-'ve 's"),
    ("who what when where why how there", "'s 'll 'll-'ve 're 've 'd 'd-'ve"),
    ("that this", "'s 'll 'll-'ve 'd 'd-'ve"),
    ("these those", "'ll 'll-'ve 're 've 'd 'd-'ve"),
    ("ca do does did had may need ought sha wo", "n't n't-'ve"),
    ("could might must should would", "n't n't-'ve 've"),
    ("ai are is was were have has dare", "n't"),
]
"""Stems, and the endings of each; every stem also with a capital."""

_ONLY_WITH_APOSTROPHE = {"y'-all", "let-'s", "Let-'s", "c'm-on", "C'm-on"}
_DROPPED_G = "doin goin nothin nuthin ol somethin lovin havin"


def _contractions() -> dict[str, tuple[str, ...]]:
    pairs = [
        f"{stem}-{ending}"
        for stems, endings in _STEMS
        for stem, ending in product(stems.split(), endings.split())
    ]
    split = _SPLIT.split()
    found = [pair for written in (*pairs, *split[:2]) for pair in (written, _capital(written))]
    rules: dict[str, tuple[str, ...]] = {}
    for pair in (*found, *split[2:]):
        full = tuple(pair.split("-"))
        rules["".join(full)] = full
        plain = tuple(part.replace("'", "") for part in full)
        if pair not in _ONLY_WITH_APOSTROPHE and "'d-'y" not in pair:
            rules["".join(plain)] = plain
    return {text: tokens for text, tokens in rules.items() if text not in _NOT_SPLIT}


def _capital(pair: str) -> str:
    return pair[0].upper() + pair[1:]


def _times() -> dict[str, tuple[str, ...]]:
    halves = ("a.m.", "am", "p.m.", "pm")
    return {f"{hour}{half}": (str(hour), half) for hour in range(1, 13) for half in halves}


def _whole() -> dict[str, tuple[str, ...]]:
    words = [*_KEPT.split(), *(f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyzäöü")]
    for word in _DROPPED_G.split():
        words += [word, f"{word}'", word.title(), f"{word.title()}'"]
    return {word: (word,) for word in words}


def _with_curly(rules: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The rules, and each that has an apostrophe again with curly ones."""
    curly = {
        text.replace("'", "’"): tuple(token.replace("'", "’") for token in tokens)
        for text, tokens in rules.items()
    }
    return curly | rules


RULES: dict[str, tuple[str, ...]] = _with_curly(
    _whole() | _contractions() | _times() | {f"°{unit}.": ("°", unit, ".") for unit in "cfkCFK"}
)
"""Texts and their tokens."""

LONGEST_RULE = max(map(len, RULES))
"""Characters of the longest rule: longer texts need not be looked up."""
