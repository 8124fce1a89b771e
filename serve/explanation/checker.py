"""Checks whether a text about a finding may be shown to a patient: rules for a sentence and for the whole.

Everything that is not known to be harmless is refused: a word outside a small vocabulary, any negation, number, name
of a disease or advice that the facts do not carry. A refused good text costs little, the template takes its place; an
accepted wrong one is the accident that this file exists to prevent. Knows neither Ray nor torch.
"""

import re
from collections.abc import Iterable, Iterator

from serve.explanation.finding import NAMED_ALTERNATIVES, Finding, facts
from serve.explanation.normaliser import (
    BARE,
    FOREIGN,
    LABEL,
    NUMBER,
    OTHER,
    SentenceNormaliser,
    sentence_key,
    split_sentences,
)

MIN_WORDS, MAX_WORDS = 12, 120

VOCABULARY = frozenset(
    f"""{LABEL} {OTHER} {FOREIGN} {BARE} {NUMBER}
    a about after also although an and answer any appointment are as ask asking assessment at away
    be been best between but by can care carefully certain certainty chance chest closely compare
    compared comparing computer confidence confident confirm confirmed consult contact could decide
    detected discuss discussing doctor doctors during exactly examination examine examining explain
    finding findings for found from further guess guessed has have healthcare help how however
    identified image immediately in indicated indicates is it its level likely look looked looking
    looks make may medical might most must need needs next not noticed of on only or other our
    physical physician physicians picture please possibilities possibility possible possibly
    probability professional promptly question questions radiologist recommend recommended remain
    remains result results review right routine said saw say says schedule see seeing seen shortly
    should show showed showing shown shows sign signs so software soon speak still suggested
    suggests sure symptom symptoms system talk tell than that the their there these they this though
    to today together uncertain unsure urgent urgently visit was way were what when which while who with
    within xray xrays you your""".split()
)
"""Every word that an explanation may use, beside the names of the finding itself."""
NEGATION = re.compile(
    r"\b(no|not|cannot|never|none|neither|nor|without|nothing|absen\w*|free|negative|unlikely|fail\w*|unable|"
    r"hardly|den\w+|lack\w*|doubt\w*|wrong|false\w*|mistak\w*|error\w*|exclu\w+|rul(?:e|es|ed|ing) out|"
    r"unsure|uncertain|normal|abnormal\w*|healthy|clear)\b"
)
DISEASE = re.compile(
    r"\b(pneumon\w*|covid\w*|corona\w*|tubercul\w*|tb|cancer\w*|tumou?r\w*|nodul\w*|mass|masses|effusion\w*|edema|oedema|"
    r"pneumothora\w*|emphysema|bronch\w*|asthma\w*|copd|fibros\w*|infect\w*|inflam\w*|fractur\w*|broken|break|"
    r"disloc\w*|arthrit\w*|opacit\w*|lesion\w*|virus\w*|bacteri\w*|fung\w*|cardiomegaly|heart|atelecta\w*|"
    r"consolidation|disease\w*|illness\w*|condition\w*|abnormalit\w*|embol\w*|sepsis|cyst\w*|metasta\w*)\b"
)
DOSING = re.compile(
    r"\b(mg|ml|milligram\w*|millilit\w*|dos(?:e|es|age|ing)|tablets?|pills?|capsules?|antibiotic\w*|antiviral\w*|"
    r"antifungal\w*|steroid\w*|painkiller\w*|paracetamol|ibuprofen|aspirin|acetaminophen|prednis\w*|inhaler\w*|"
    r"\w+(?:cillin|mycin|floxacin|cycline|azole|vir)|rifampi\w*|isoniazid|medic(?:ine|ines|ation|ations)|drugs?|"
    r"prescri\w+|therap\w*|treat\w*|tak(?:e|es|ing)|daily|hourly|vaccin\w*|surger\w*|cast|splint)\b"
)
NUMBER_WORD = re.compile(
    r"\b(zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|"
    r"seventy|eighty|ninety|hundred\w*|half|third|quarter|percent\w*|twice|double|one (?:in|out|of)|dozen)\b"
    r"|\d|%"
)
FIRST_PERSON = re.compile(r"\b(i|we|my|our|me|us|mine|ours)\b")
DIAGNOSIS = re.compile(
    r"\b(?:you|patient|he|she|they) (?:have|has|had|are|is|were|was)\b(?! (?:any )?(?:symptoms|questions))"
    r"|\bdiagnos\w*|(?<!be )\bconfirmed\b|\bha(?:s|ve) confirm"
    r"|\b(?:doctors?|physicians?|radiologists?|professional) (?:\w+ )?"
    r"(?:saw|found|detected|identified|noticed|showed|said|says|was|were|is|are|has|have|guessed|suggested)\b"
    r"|\b(?:saw|seen|found|detected|identified|noticed|said|shown) by (?:a|the|your) "
    r"(?:doctor|physician|radio|medical)"
    r"|\bsoftware (?:can|may|might|could|must|should|has|is|was)? ?(?:confirm|tell|explain)"
    r"|\bit (?:can|may|must|should)? ?confirm"
)
DOCTOR = re.compile(
    r"\b(?:doctors?|physicians?|radiologists?|medical professional|healthcare professional)\b"
)
VISIT = re.compile(
    r"\b(?:see|seeing|talk|show|speak|visit|contact|consult|discuss|discussing|ask|look|review)\b"
)
ASSERTED = re.compile(
    r"\b(?:software|it|computer|system|image|picture|xray|which|there)\b.*"
    r"\b(?:saw|sees|seen|found|shows?|showed|showing|detected|identified|noticed|indicate[sd]|suggest(?:s|ed)|"
    r"signs? of|is|are|were|was)\b.*\bqlabel\b"
    r"|\bqlabel\b.*\b(?:was|were) (?:seen|found|detected|identified|noticed)\b"
)
HEDGE = re.compile(
    r"\b(if|whether|unless|would|could|may|might|possib\w*|also|other|remains?|most|likely|best|chance|between|"
    r"look(?:s|ed|ing)? for|guess\w*|not|question\w*|should|must|need\w*|ask\w*|chance|say|says)\b"
)
POSSIBLE = re.compile(
    r"\b(?:possib\w*|(?:may|could|might) (?:also )?(?:be|show)|could also|may also|between)\b"
)
BEST_GUESS = re.compile(r"\b(?:best (?:guess|answer)|most (?:likely|possible)|guess\w*)\b")
OVERSTATED = re.compile(
    r"\b(?:likely|probab\w*|sure|certain\w*|confiden\w*|saw|found|detected|identified|signs?)\b"
)
NUMBER_CLAUSE = frozenset(
    f"""{LABEL} {NUMBER}
    a about an and answer are assessment at be best but certain certainty chest computer confidence
    confident detected finding for found guess has identified image in is it its level likely most
    of on only picture probability result s said saw show showed showing shows sign signs software
    still sure system that the there this to was were what with xray""".split()
)
"""Every word that may stand in one clause with the number."""
SURE = re.compile(r"\b(?:sure|certain|confident)\b")
ATTRIBUTED = re.compile(r"\bthat there (?:is|are|was|were) qlabel")
QUALIFIED = re.compile(
    r"\b(?:about|around|nearly|almost|over|under|more than|less than|at least|at most|up to|below|above|"
    r"approximately|roughly|within|between|not|from|to) qnumber|qnumber (?:or|to|and) (?:more|less|qnumber)"
)
UNSURE = re.compile(
    r"\b(?:software|it|computer|system) (?:is|was) "
    r"(?:also |still )?(?:not (?:exactly )?(?:sure|certain)|unsure|uncertain)\b"
)
URGENCY = {
    "urgent": re.compile(
        r"\b(?:today|immediately|urgent|urgently|right away|as soon as possible|promptly)\b"
    ),
    "soon": re.compile(r"\b(?:soon(?! as possible)|shortly)\b"),
    "routine": re.compile(r"\b(?:next (?:visit|appointment)|routine)\b"),
}
LIST_OF_OTHERS = re.compile(rf"{OTHER}(?:(?:,? and|,? or|,) (?:{OTHER}|other (?:findings|possibilities)))+")
CLAUSES = re.compile(r"[,;:()–—]|\b(?:and|but|although|though|while|however|so)\b")


def check(text: str, finding: Finding) -> list[str]:
    """Return the codes of all problems of a text, in order; empty: it may be shown."""
    problems: list[str] = []
    previous = ""
    seen: set[str] = set()
    for sentence in split_sentences(text):
        problems += check_sentence(sentence, finding, previous=previous)
        if sentence_key(sentence) in seen:
            problems.append("repetition")
        seen.add(sentence_key(sentence))
        previous = sentence
    if not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
        problems.append("length")
    problems += [f"missing_{key}" for key in missing(split_sentences(text), finding)]
    return list(dict.fromkeys(problems))


def check_sentence(sentence: str, finding: Finding, *, previous: str = "") -> list[str]:
    """Return the codes of what must never be said about this finding.

    Args:
        previous: the sentence before, which "It is 87 % sure of this." points at.
    """
    normaliser = SentenceNormaliser(finding)
    words = normaliser.normalise(sentence)
    problems: list[str] = []
    problems += _forbidden(sentence, words, finding)
    for clause in _clauses(words):
        problems += _clause_problems(clause, finding)
    if NUMBER in words and not _number_is_of_the_label(words, normaliser.normalise(previous)):
        problems.append("number")
    if any(pattern.search(words) for triage, pattern in URGENCY.items() if triage != finding.triage):
        problems.append("triage")
    return list(dict.fromkeys(problems))


def missing(sentences: Iterable[str], finding: Finding) -> list[str]:
    """Return the keys of the required facts (`serve.explanation.finding.facts`) that these sentences do not state."""
    normaliser = SentenceNormaliser(finding)
    texts = [normaliser.normalise(sentence) for sentence in sentences]
    stated = {
        "finding": any(_states_finding(text, finding) for text in texts),
        "number": any(NUMBER in text for text in texts),
        "alternatives": normaliser.others_named(sentences),
        "doctor": any(_sends_to_doctor(text, finding) for text in texts),
    }
    return [fact.key for fact in facts(finding) if fact.required and not stated[fact.key]]


def _forbidden(sentence: str, words: str, finding: Finding) -> list[str]:
    problems = []
    if not re.fullmatch(r"[A-Za-z].*[.!]", sentence) or re.search(r"[*#_<>\[\]{}|\"/\\?:]", sentence):
        problems.append("format")
    allowed = UNSURE.sub("it is", words) if finding.abstained else words
    rules = {
        "polarity": NEGATION,
        "new_finding": DISEASE,
        "dosing": DOSING,
        "number": NUMBER_WORD,
        "first_person": FIRST_PERSON,
        "diagnosis": DIAGNOSIS,
    }
    problems += [code for code, pattern in rules.items() if pattern.search(allowed)]
    if BARE in words:
        problems.append("polarity")
    if FOREIGN in words:
        problems.append("new_finding")
    if QUALIFIED.search(words):
        problems.append("number")
    if SURE.search(allowed) and NUMBER not in words:
        problems.append("overconfident")
    if len(finding.others) <= NAMED_ALTERNATIVES and re.search(r"\bother (?:findings|possib)", words):
        problems.append("new_finding")
    if set(re.findall(r"[^\W\d_]+", words)) - VOCABULARY:
        problems.append("unknown_word")
    return problems


def _clauses(words: str) -> Iterator[str]:
    for clause in CLAUSES.split(LIST_OF_OTHERS.sub(OTHER, words)):
        if clause.strip():
            yield clause.strip()


def _clause_problems(clause: str, finding: Finding) -> list[str]:
    problems = []
    if OTHER in clause:
        if LABEL in clause or NUMBER in clause or not POSSIBLE.search(clause) or OVERSTATED.search(clause):
            problems.append("new_finding")
        if BEST_GUESS.search(clause):
            problems.append("label")
    if NUMBER in clause and set(re.findall(r"[a-z]+", clause)) - NUMBER_CLAUSE:
        problems.append("number")
    if LABEL in clause:
        problems += _label_problems(clause, finding)
    if DOCTOR.search(clause) and re.search(r"\b(?:may|might|could|guess\w*|sure|certain|other)\b", clause):
        problems.append("doctor")
    return problems


def _label_problems(clause: str, finding: Finding) -> list[str]:
    if finding.abstained:
        guessed = BEST_GUESS.search(clause) or POSSIBLE.search(clause)
        stated = re.search(r"\b(?:saw|signs?|found|detected|identified|noticed|shows|showed)\b", clause)
        return ["overconfident"] if stated or not guessed else []
    if DOCTOR.search(clause) and not re.search(r"\b(?:can|should|must|needs? to) confirm\b", clause):
        return ["diagnosis"]
    if not DOCTOR.search(clause) and HEDGE.search(clause):
        return ["polarity"]
    if re.search(r"\b(?:is|are|was|were) qlabel", clause) and not ATTRIBUTED.search(clause):
        return ["diagnosis"]
    return []


def _number_is_of_the_label(words: str, previous: str) -> bool:
    """Return True if the class named last before the number, in this or the previous sentence, is the label."""
    before = previous + " " + words[: words.index(NUMBER)]
    named = re.findall(rf"{LABEL}|{OTHER}", before)
    return named[-1] == LABEL if named else LABEL in words


def _states_finding(words: str, finding: Finding) -> bool:
    if finding.abstained:
        return bool(UNSURE.search(words))
    return any(ASSERTED.search(clause) and not DOCTOR.search(clause) for clause in _clauses(words))


def _sends_to_doctor(words: str, finding: Finding) -> bool:
    if not (DOCTOR.search(words) and VISIT.search(words)):
        return False
    return finding.triage == "routine" or bool(URGENCY[finding.triage].search(words))
