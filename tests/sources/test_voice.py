"""Who speaks in a text: the language decides which words are "I", and parts of names, keys and formulas are nobody."""

import pytest

from mipo_mlx.sources.voice import ANY, LANGUAGES, first_person, voice

FALSE_FRIENDS = {  # words that are "I", "me" or "you" in another language
    "German": "Je heißer der Stern ist, desto kürzer ist die Welle, und das Licht im Atom ist blau.",
    "Dutch": "Je ziet het huis van de buren, en dat is niet groot.",
    "Swedish": "Huset i byn är rött, och det är inte stort som ett slott.",
    "Danish": "Huset i byen er rødt, og det er ikke stort som et slot.",
    "Polish": "Stary dom i ogród nie jest na sprzedaż, bo to się nie opłaca.",
    "French": "Le prix du vin et la qualité du pain ne sont pas les mêmes dans la ville.",
    "Latin": "Tempus leo eu aenean sed diam urna tempor. In id cursus mi pretium tellus duis et vivamus.",
    "English": "The mi and the io are two of the units that this manual has for the eu and the mig.",
}
OWN = {
    "German": "Ich habe das Haus im Dorf gekauft, und es ist nicht groß.",
    "Dutch": "Ik heb het huis van de buren gekocht, en dat is niet groot.",
    "Swedish": "Jag köpte huset i byn, och det är inte stort.",
    "Danish": "Jeg købte huset i byen, og det er ikke stort.",
    "Polish": "Kupiłem dom na wsi i nie jest duży, ale jest mój i mam psa.",
    "French": "J'ai acheté la maison dans le village, et elle n'est pas grande.",
    "English": "I bought the house in the village, and it is not large.",
    "too short to tell": "I row.",
}


@pytest.mark.parametrize("language", FALSE_FRIENDS)
def test_words_that_are_others_elsewhere_are_nobody(language):
    heard = voice(FALSE_FRIENDS[language])
    assert heard.one == 0 and heard.share <= 0.25
    if language != "Dutch":  # whose "je" is its reader
        assert heard.reader == 0


@pytest.mark.parametrize("language", OWN)
def test_each_language_has_its_own_words(language):
    assert voice(OWN[language]).one >= 1 and voice(OWN[language]).share == 1.0


def test_no_word_of_a_language_is_lost_where_the_text_is_too_short_to_tell():
    assert all(first_person(word) for language in LANGUAGES for word in language.one - {"i", "m", "im", "j", "mit"})
    assert all(language.one - {"im", "mit"} <= ANY.one and language.reader <= ANY.reader for language in LANGUAGES)


GERMAN = [
    "Buckets. Spezielle Art eines Blocks. Dort stehen Sätze mit Hashing.",
    "Gestreute Speicherung: Blocknummer im Hintergrundspeicher",
    "Schraube mit Mutter",
    "Beim Skalarprodukt im Komplexen wird y konjugiert.",
]


@pytest.mark.parametrize("line", GERMAN)
def test_short_german_is_neither_danish_nor_english(line):
    assert first_person(line) == 0
    assert first_person(f"{line} Ich mag das.") == 1


@pytest.mark.parametrize(
    "line",
    [
        "Press Ctrl-i to indent the line, or i: it stands for the insertion of a line.",
        "- i # Insert text\n- esc # Leave the mode",
        "The thread i waits for j, and i enters before the thread k with the number n.",
        "The value in[I] is the union of the sets, and it holds before I in the block.",
        "See /me and :i and ls -i in the manual of the my-tool and of the I/O.",
    ],
)
def test_keys_variables_and_names_are_nobody(line):
    assert first_person(line) == 0


def test_the_share_is_that_of_the_words_in_sentences_and_lines_of_ones_own():
    heard = voice("I swim in the sea.\nThe sea has salt and fish. We swim in it.")
    assert (len(heard.words), heard.one, heard.many) == (15, 1, 1)
    assert heard.share == pytest.approx((5 + 0.25 * 4) / 15)
    assert voice("") == voice("“I am the king of the hill.”") and voice("").share == 0.0


def test_who_writes_i_small_is_a_person_too():
    assert first_person("today i went to the lake, and i swam with my sister. it was cold, so i left.") == 4
