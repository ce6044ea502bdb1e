"""Templates of lyrics, and the words that fill them: a list of common English words.

Nouns, verbs and adjectives are content words; a fixed fifth of them, chosen by a hash of how the
plain word sounds, is held out: no training song contains one in any of its forms, so measures on
the held-out songs can tell singing from remembering. Words that sound alike are held out together.
"""

from __future__ import annotations

import functools
import re

from distill.lyrics import g2p
from distill.songbook import words as book

_TEMPLATES = """
    the A N is Vg; the A N Vs AV; oh how the Np V; I T the N by the L; we T the Np in the L;
    when the N Vs in the L; come and V with me H; my A N my A N; there is a N PR the L;
    PR the L and PR the L; the P Ts a A N; you T me like a A N; I V AV and I will V;
    every N has a A N; H we will T the A N; I am Vg PR the L; all the Np are Vg H;
    if you T my N I will V; a N for the A P; AV the P Vs H; let us V until the N Vs;
    never T the N of a P; so A is the N H; you and I will V AV; where the A Np V;
    take the N and T it AV; I can V and you can V; who will T the A Np; the N and the N are A;
    our A Np V PR the L; no N could T my N; I was A but now I V; give me a N and a A N;
    she Vs AV PR the L; he Ts the N and Vs; they T the N they T the N; a A P in a A L;
    Vg AV PR the L; the Np of N are A; this is the N we T; how A and A you are; do not V my A P;
    with a N and a N I V; the A N and the A P; one A N two A Np; what a A N to T;
    always Vg never Vg; her N is a A N; his Np are A and A; your N Vs in my N; Vg Np and Vg Np;
    some Np V and some Np V; bring your N to the A L; it is A to V with you; we V and we V H;
    the P and the P will V; PR a A L a N Vs; say the N and T the N; that A N could T a P;
    no more Np for the P; old N new N T me H; they were Vg in the A L; did you T the A N H;
    could I T your A N; and the N is in the L; we were A and we were A; so come and V with me;
    there was a A N in the L; you are the N I T; I will T you H; when you V PR the L;
    and I never T the N; let me T your A N; come to the L come to the L;
    where the P and the P will V; it was A in the L H; we can V if you can V; like a N PR the L;
    like the N and like the N; A and A is the L; now the N is A and A; how the Np V PR the L;
    come and T the N with me; in the L of my P; no one could T the N; every P will V H;
    they will V and we will V; give the N to the P; I T you and you T me;
    bring me the N of the L; the A L and the A L; oh my A A N; and all the Np of the L;
    the N is A the N is A; it is H it is H; I V PR the L H"""
TEMPLATES = tuple(re.split(r";\s+", _TEMPLATES.strip()))


def forms(word: str, part: str) -> str:
    """The word in the form a template asks for: plural (Np), -s (Vs, Ts), -ing (Vg)."""
    return book.form(word, _ENDINGS.get(part, ""), noun=part == "Np")


_ENDINGS = {"Np": "s", "Vs": "s", "Ts": "s", "Vg": "ing"}
FORMS = {"Np": "N", "Vs": "V", "Ts": "T", "Vg": "V"}
CONTENT = frozenset(("N", "Np", "A", "V", "Vs", "Vg", "T", "Ts", "P", "L", "AV"))


@functools.cache
def _lemmas() -> dict[str, str]:
    """Every form a template can give -> its plain word ("glowing": a verb, then an adjective)."""
    lemmas: dict[str, str] = {}
    for part in sorted(CONTENT, reverse=True):  # a set's own order changes from process to process
        for word in book.WORDS[FORMS.get(part, part)]:
            lemmas.setdefault(forms(word, part), word)
    return lemmas


@functools.cache
def _held_sounds() -> frozenset[str]:
    return book.held_sounds(_lemmas(), _function_words())


@functools.cache
def _function_words() -> frozenset[str]:
    tokens = {token for template in TEMPLATES for token in template.split()}
    phrased = set(" ".join(book.WORDS["PR"] + book.WORDS["H"]).split())
    return frozenset(word.lower() for word in tokens - {*book.WORDS, *FORMS} | phrased)


def plain(word: str) -> str | None:
    """The plain word of a form that a template can give."""
    return _lemmas().get(word.lower())


def is_function_word(word: str) -> bool:
    """Whether a word stands in the templates themselves, or in a phrase."""
    return word.lower() in _function_words()


def is_held_out(word: str) -> bool:
    """Whether no training song of the songbook contains this word, or one that sounds like it."""
    word = word.lower()
    if word in _function_words() or word not in _lemmas():
        return False
    return g2p.lexicon().get(word, "") in _held_sounds()


@functools.cache
def choices(part: str, held_out: bool) -> tuple[str, ...]:
    """Words of a part of speech, in its form, that the dictionary knows; held-out or all others."""
    words = dict.fromkeys(forms(word, part) for word in book.WORDS[FORMS.get(part, part)])
    known = (word for word in words if all(piece in g2p.lexicon() for piece in word.split()))
    content = part in CONTENT
    return tuple(word for word in known if (content and is_held_out(word)) == held_out)
