"""Words of a text with their places, and the words that no term holds."""

from __future__ import annotations

import re

TOKEN = re.compile(r"\w+|[^\w\s]")
_LY = re.compile(r"[a-z]{4,}ly")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Function words, and words that join or judge terms in scientific prose but name nothing.
STOP_WORDS = _words(
    """
    a about above according across after again against all almost along already also although
    always am among an and another any anything are around as at away be became because become
    becomes been before being below beneath beside besides between beyond both but by can cannot
    could despite did do does doing done down due during each either else enough especially etc
    even ever every few first for from further furthermore had has have having he hence her here
    him his how however i if in including indeed instead into is it its itself just last least
    less like little many may me might more moreover most much must my near neither never
    nevertheless no none nor not nothing now of off often on once one only onto or other others
    our out over own per perhaps quite rather same second seem seems several shall she should
    since so some somewhat soon still such than that the their them themselves then thence there
    therefore these they third this those though three through throughout thus to together too
    toward towards two under unless unlike until up upon us use used uses using usually various
    very via was we well were what whatever when whenever where whereas whether which while who
    whole whom whose why will with within without would yet you your able aim aimed aims allow
    allowed allows analyzed appear appeared appears applied assess assessed associated available
    based believed better carried cause caused causes compared conclude concluded conclusion
    conclusions confirmed considered consistent contain contained containing contains correlated
    data decrease decreased decreases demonstrate demonstrated demonstrates described detected
    determine determined develop developed different discuss discussed done effect effects
    elevated employed evaluate evaluated evidence examine examined exhibited explain find
    finding findings follow followed following follows found give given gives good greater had
    help high higher highest identified identify important improve improved include included
    includes increase increased increases increasing indicate indicated indicates induced
    investigate investigated involved involving know known large larger lead leads led likely
    limited low lower lowest made make mean method methods new normal note noted novel observe
    observed obtain obtained occur occurred occurs performed play plays possible potential
    present presented presents previous prior produce produced propose proposed prove proved
    provide provided provides purpose recent reduce reduced reduces relate related remain
    remained report reported reports require required result resulted resulting results reveal
    revealed reviewed role seen show showed showing shown shows significant similar small
    smaller studied studies study suggest suggested suggesting suggests taken tested treated
    understood undergo underwent varied vary whereby work background objective objectives
    introduction discussion p n vs ie eg et al fig table
    """
)


def is_term_word(word: str) -> bool:
    """Return whether a lower-case word may stand in a term: no number, stop word or adverb."""
    if word in STOP_WORDS or word.isdigit() or not any(letter.isalpha() for letter in word):
        return False
    return _LY.fullmatch(word) is None
