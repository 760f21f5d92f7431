"""How much a passage seems to tell of its author: values and order, in several languages, and shares when too many are there."""

from collections import Counter
from dataclasses import replace

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.progress import Reporter
from mipo_mlx.records import HELDOUT, TRAIN
from mipo_mlx.sources import read
from mipo_mlx.sources.note import Block, Note, Passage, Tally
from mipo_mlx.sources.rank import (
    BETTER,
    ENOUGH,
    GOOD,
    LATER,
    OF_NOTE,
    SHARE,
    SOME,
    TOPIC,
    of_templates,
    ranked,
    score,
    signs,
    topic,
)
from mipo_mlx.sources.split import later, split, telling_most

DIARY = "I slept badly again. My back hurts, so I decided to swim every morning and to stop the runs until May."
MANUAL = "The pump has two valves. Open the upper valve before the lower one, and close both valves after use."
TEXTS = {  # (a diary, a text of reference)
    "English": (DIARY, MANUAL),
    "German": (
        "Ich habe wieder schlecht geschlafen. Mein Rücken tut weh, deshalb will ich jeden Morgen schwimmen.",
        "Die Pumpe hat zwei Ventile. Das obere Ventil wird vor dem unteren geöffnet, danach werden beide geschlossen.",
    ),
    "French": (
        "J'ai encore mal dormi. Mon dos me fait mal, alors je nage toujours le matin avec ma sœur.",
        "La pompe a deux vannes. La vanne du haut est ouverte avant celle du bas, puis les deux sont fermées.",
    ),
    "Spanish": (
        "Otra vez no he dormido. Me duele la espalda, así que quiero nadar siempre por la mañana con mi hermana.",
        "La bomba tiene dos válvulas. La válvula superior se abre antes que la inferior, y luego se cierran las dos.",
    ),
    "Italian": (
        "Ho dormito male. La mia schiena mi fa male e voglio nuotare sempre la mattina con mia sorella.",
        "La pompa ha due valvole. La valvola superiore si apre prima di quella inferiore, poi si chiudono entrambe.",
    ),
    "Polish": (
        "Znowu źle spałem. Bolą mnie plecy, więc chcę pływać z moją siostrą. Mam dość biegania i jestem zmęczony.",
        "Pompa ma dwa zawory. Górny zawór otwiera się przed dolnym, a potem zamyka się oba zawory.",
    ),
    "Russian": (
        "Я опять плохо спал. У меня болит спина, и я хочу плавать каждое утро с моей сестрой.",
        "У насоса два клапана. Верхний клапан открывают раньше нижнего, затем оба клапана закрывают.",
    ),
    "Turkish": (
        "Yine kötü uyudum, her sabah yüzmek istiyorum. Benim sırtım ağrıyor ve ben koşmayı bırakıyorum.",
        "Pompanın iki vanası vardır. Üst vana alttakinden önce açılır, sonra ikisi de kapatılır.",
    ),
    "Chinese": (
        "我又没睡好。我的背很疼，所以我决定每天早上和姐姐去游泳。",
        "水泵有两个阀门。先打开上面的阀门，再打开下面的阀门，最后全部关闭。",
    ),
    "Japanese": (
        "私はまたよく眠れなかった。私の背中が痛いので、毎朝泳ぐことにした。",
        "ポンプには弁が二つある。上の弁を先に開け、次に下の弁を開ける。",
    ),
    "Korean": (
        "나는 또 잠을 못 잤다. 내 등이 아파서 나는 매일 아침 수영하기로 했다.",
        "펌프에는 밸브가 두 개 있다. 위쪽 밸브를 먼저 열고 아래쪽 밸브를 연다.",
    ),
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_diary_is_above_a_text_of_reference(language):
    diary, manual = TEXTS[language]
    assert score(diary, "a.md") >= GOOD > 0.5 > score(manual, "a.md")


def test_values():
    assert score("", "a.md") == score("“I am the one who knocks, and I will.”", "a.md") == -2.0
    assert score(MANUAL, "a.md") == 0.0 and signs(MANUAL, "a.md") == {}
    assert score(MANUAL, "diary/a.md") == pytest.approx(0.8) and score(MANUAL, "Reference/a.md") == pytest.approx(-0.5)
    assert signs("I row.", "a.md") == {"first person": pytest.approx(2.5 * (0.4 + 0.6 / 2))}
    dated = "On 2024-05-01 and on Monday the pump was mended."
    assert {sign: value > 0 for sign, value in signs(dated, "a.md").items()} == {"dates": True, "marks and digits": False}
    assert signs(dated, "a.md")["dates"] == pytest.approx(0.6)
    assert sum(signs(DIARY, "a.md").values()) == score(DIARY, "a.md")


def test_order():
    texts = {
        DIARY: "2024-05-01.md",
        DIARY + " ": "a.md",
        "We mended the pump at our club, and our neighbours came.": "a.md",
        MANUAL: "a.md",
        "pump.com valves.org\nhoses.net\nthe shop of pumps.io\nvalve-world.com": "a.md",
        "You should open your valve before you close your other valve, and you will save your time.": "a.md",
    }
    ranks = [score(text, source) for text, source in texts.items()]
    assert ranks == sorted(ranks, reverse=True) and len(set(ranks)) == len(ranks)


@pytest.mark.parametrize("marks", ['"{}"', "“{}”", "„{}“", "«{}»", "「{}」"])
def test_what_is_quoted_is_not_its_authors_first_person(marks):
    quoted = marks.format("I have always loved my mountains, and I will never leave them")
    scene = f"The mayor of the village then stood up. {quoted}, said the mayor to the village."
    assert "first person" in signs(scene.replace(quoted, quoted[1:-1]), "a.md")
    assert "first person" not in signs(scene, "a.md") and score(scene, "a.md") < 0.5


def test_a_firms_we_is_weaker_than_an_i():
    firm = "Our partners trust our brand, and we protect our property. We ask that partners use our logo as shown."
    own = firm.replace("Our", "My").replace("our", "my").replace("We", "I").replace("we", "I")
    assert score(own, "a.md") > score(firm, "a.md") + 0.3


def test_one_word_is_weaker_than_several_at_the_same_share():
    once = "my pump " + "and the valve of it " * 4
    assert score(once * 4, "a.md") > score(once, "a.md") + 0.4


def test_questions_to_nobody_say_little():
    lines = ["What do I want?", "Who held me back?", "What would I change?"]
    assert score("\n".join(lines), "a.md") < score("\n".join(lines).replace("?", "."), "a.md") - 0.5


def test_topics_are_folders_at_the_top():
    assert [topic(name) for name in ("a.md", "Work/a.md", "Work/b/c.md")] == ["", "Work", "Work"]


def passages(counts: dict[str, int], rank: float = 0.0) -> list[Passage]:
    """Notes by their file and the number of their passages."""
    return [
        Passage(f"Number {n} of {source} is this one.", source, source, n + 1, 9, rank=rank)
        for source, count in counts.items()
        for n in range(count)
    ]


def kept(every: list[Passage], limit: int, grid: int = 2) -> Counter:
    return Counter(c.source for c in split(every, 0, 0.25, limit, grid, Tally()))


def test_no_file_takes_more_than_its_share_even_with_the_best_ranks():
    every = passages({f"{n}.md": 3 for n in range(40)}) + passages({"big.md": 500}, rank=5.0)
    counts = kept(every, 400)
    assert counts["big.md"] <= SHARE * counts.total() + 1 and len(counts) == 41


def test_no_folder_takes_more_than_its_share_where_others_can_fill_the_rest():
    every = passages({f"Work/{n}.md": 2 for n in range(100)}, rank=3.0) + passages({f"Home/{n}.md": 2 for n in range(100)})
    counts = kept(every, 100)
    work = sum(count for source, count in counts.items() if source.startswith("Work/"))
    assert counts.total() == 100 and TOPIC * 100 <= work <= 56
    alone = kept(passages({f"Work/{n}.md": 2 for n in range(100)}), 100)
    assert alone.total() == 100  # a vault of one folder is no smaller for it


def test_each_further_passage_of_a_note_has_to_be_better():
    every = passages({f"{n}.md": 1 for n in range(30)}, rank=1.0) + passages({f"long{n}.md": 4 for n in range(10)}, rank=1.2)
    counts = kept(every, 40)
    assert max(counts.values()) == 1 and len(counts) == 40


def test_beyond_the_least_only_passages_that_tell_of_their_author_are_kept():
    poor, good = passages({f"a{n}.md": 1 for n in range(60)}), passages({f"b{n}.md": 1 for n in range(30)}, rank=GOOD)
    tally = Tally()
    chosen = telling_most(poor + good, 40, tally)
    assert sum(p.rank == GOOD for p in chosen) == len(chosen) == 30
    assert tally.dropped == {"tells little of its author": 60}
    assert len(telling_most(poor + good, 10, Tally())) == 30 and telling_most(poor + good, 90, Tally()) == poor + good


@pytest.mark.parametrize(("some", "count"), [(19, 40), (20, 20), (30, 30), (50, 40)])
def test_where_half_of_the_least_say_something_nothing_else_fills_up(some, count):
    poor, little = passages({f"a{n}.md": 1 for n in range(60)}), passages({f"b{n}.md": 1 for n in range(some)}, rank=SOME)
    chosen = telling_most(poor + little, 40, Tally())
    assert len(chosen) == count and sum(p.rank == SOME for p in chosen) == min(some, 40)


def test_the_least_is_a_key_and_rows_of_a_table_are_never_too_poor(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.md").write_text(f"The pump number {number} has {number + 3} valves and a hose.\n")
    sets = [f"sources.notes={tmp_path}", "sources.min_tokens=3", "pairs.contexts_per_grid=2"]

    def count(*more):
        recipe = recipe_loading.parse("model: none", overrides=[*sets, *more])
        contexts, _, row = read.collect(recipe, lambda text: len(text.split()), Reporter(quiet=True))
        assert {c.split for c in contexts} == {TRAIN, HELDOUT}
        return len(contexts), row["passages"]["dropped"].get("tells little of its author", 0)

    assert count() == (30, 0) and count("sources.least_contexts=8") == (8, 22)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"text": "The pump number {n} has {n + 3} valves and a hose.", "id": "{n}"}}\n' for n in range(30)))
    assert count("sources.least_contexts=8", f"sources.notes={rows}") == (30, 0)


@pytest.mark.parametrize(
    "blank", ["Dear ____, I have read your letter.", "I want to meet [insert name] on Monday.", "I owe XXX to my aunt."]
)
def test_blanks_to_fill_in_are_a_template(blank):
    assert (
        score(blank, "a.md")
        < score(blank.replace("____", "Ana").replace("[insert name]", "Ana").replace("XXX", "five"), "a.md") - 0.7
    )


DAYS = "Monday|thursdays|today|Yesterday|tomorrow|tonight|last week|Last year|February|september|October|heute|mañana|今日|오늘"


@pytest.mark.parametrize("day", DAYS.split("|"))
def test_a_day_counts_as_a_date_and_so_does_a_number(day):
    bare = "We walked by the river and came home late"
    assert "dates" not in signs(bare, "a.md")
    assert signs(f"{bare} {day}", "a.md")["dates"] > 0
    assert signs(f"{bare} 2024-05-01", "a.md")["dates"] == signs(f"{bare} {day}", "a.md")["dates"] == 0.3


WE = [
    ("我们测试这个函数", "我昨天测试这个函数"),
    ("我們寫了這一章", "我寫了這一章"),
    ("私たちは関数を定義する", "私は関数を定義する"),
    ("在我国经济发展很快", "我在家里发展很快"),
]


@pytest.mark.parametrize(("many", "one"), WE)
def test_we_tells_less_than_i_where_one_is_part_of_the_other(many, one):
    assert score(many, "a.md") < GOOD < score(one, "a.md")


@pytest.mark.parametrize("mark", ["[1][2]", "[citation needed]", ".[14]"])
def test_numbers_of_sources_speak_for_an_encyclopedia(mark):
    text = "I kept bees in the old town{0}. They moved the hives to the hill in spring{0}."
    assert score(text.format(mark), "a.md") == pytest.approx(score(text.format(""), "a.md") - 1.0, abs=0.45)


@pytest.mark.parametrize("name", ["work/engagement survey.md", "Fragebogen.md", "assessment 2024.txt"])
@pytest.mark.parametrize("mark", ["- ", "* ", "3. "])
def test_statements_to_agree_with_tell_nothing_of_who_reads_them(name, mark):
    statements = (
        "I am happy with my current role",
        "My manager makes me feel valued",
        "I have access to what I need",
        "I trust my team",
    )
    text = "\n".join(f"{mark}{statement}" for statement in statements)
    assert score(text, name) < 0.8 and score(text, "work/today.md") > GOOD
    assert score("I filled in the survey today. I told my manager that I am tired of my role.", name) > 0.8


EXCERPT = " ".join(["I once ran a firm for my uncle and I never understood what he wanted of me."] * 3)


@pytest.mark.parametrize("address", ["- adamnash.blog", "blog.samaltman.com", "- why titles matter: example.com"])
def test_a_long_line_behind_an_address_is_an_excerpt(address):
    assert score(f"{address}\n- {EXCERPT}", "ideas.md") < GOOD < score(f"- {EXCERPT}\n{address}", "ideas.md")
    assert score(f"{address}\n- {EXCERPT}", "diary/2024-05-01.md") > GOOD
    assert score(f"{address}\n- I want to try this with my sister.", "ideas.md") > 0.8


@pytest.mark.parametrize("site", ["npm.im", "get.it.sh", "my.example.xyz"])
def test_names_of_sites_are_no_first_person(site):
    assert "first person" not in signs(f"- {site} (recommended)\n- {site}", "tools.md")


@pytest.mark.parametrize("heading", ["How can I turn the pump off?", "Should I open my valve?: Answer.", "私のポンプは何ですか？"])
def test_a_heading_that_asks_is_nobodys_first_person(heading):
    assert "first person" not in signs(f"{heading} {MANUAL}", "a.md")
    assert signs(f"{heading} {DIARY}", "a.md")["first person"] > 2
    assert score(f"{heading} {heading}", "a.md") == -2.0 or score(f"{heading} {heading}", "a.md") < GOOD


@pytest.mark.parametrize(
    ("heading", "language"), [("My Notes. ", "English"), ("The pump: My answer. ", "English"), ("Meine Notizen. ", "German")]
)
def test_my_in_a_heading_says_little(heading, language):
    _, manual = TEXTS[language]
    assert 0 < signs(heading + manual, "a.md")["first person"] < 0.7


@pytest.mark.parametrize("name", ["oh-my-tmux", "pip-i-tools", "My/Pref/Writing", "Ctrl-i", "/me", "ls -i", "vim :i", "I/O"])
def test_names_of_things_are_no_first_person(name):
    assert "first person" not in signs(f"{name} opens the upper valve.", "a.md")


@pytest.mark.parametrize(
    "source", ["People/Ada.md", "pages/Person___Ada___About.md", "a/YouTube/Pumps.md", "pages/GitHub___a___b___issues___7 Pump.md"]
)
def test_folders_of_what_others_said_come_later(source):
    bio = "I am Ada. I build pumps, and in my spare time I write about my valves."
    assert score(bio, source) < BETTER < score(bio, "a/b.md") and score(bio, "my-podcast-people.md") > BETTER


@pytest.mark.parametrize("name", ["posts/2024-spring/index.md", "posts/2024-spring/_index.md"])
def test_a_page_that_is_a_folder_is_no_index(name):
    assert score(MANUAL, name) == 0.0 > score(MANUAL, "posts/index of pumps.md") and score(MANUAL, "index.md") < 0


@pytest.mark.parametrize(
    "speech",
    [
        "The bear rose. “I was young, and my father",
        "I was young, and my father left me.” The bear sat down.",
        "»Ich war jung, und mein Vater ging«, so der Bär.",
    ],
)
def test_a_quotation_that_is_cut_off_is_no_first_person(speech):
    assert "first person" not in signs(speech, "a.md")
    assert "first person" in signs("»Nein« war sein Wort, und ich ging in meinen »Garten« zurück.", "a.md")


def test_where_many_tell_much_those_that_tell_little_are_dropped():
    poor, rich = (
        passages({f"p{n}.md": 1 for n in range(20)}, rank=GOOD),
        passages({f"r{n}.md": 1 for n in range(ENOUGH)}, rank=BETTER),
    )
    assert len(telling_most([*poor, *rich], 80, Tally())) == ENOUGH
    assert len(telling_most([*poor, *rich[1:]], 80, Tally())) == ENOUGH + 19


FORMULAS = [
    "$x_i$",
    "$I$",
    "\\\\(I \\\\cdot A\\\\)",
    "a_{ij}",
    "( i )",
    "i = 1",
    "x_i",
    "A^i",
    "s[i]",
    "the i-th",
    "n <= i",
    "\\\\Im i_k",
]


def test_a_drawing_that_its_program_named_is_no_diary():
    text = "The right valve has the lower cost of the two pumps."
    assert "the name of a diary" in signs(text, "2023-10-30.md") and "the name of a diary" in signs(
        text, "notes/2023-10-30 Lake.md"
    )
    assert "the name of a diary" not in signs(text, "drawings/Drawing 2023-10-30 22.24.02.excalidraw.md")


LECTURE = "We want to know how well the pump works, so we look at {} of all valves, and then we take the next one."


def test_we_beside_formulas_is_a_lecture():
    plain, lecture = (score(LECTURE.format(what), "pumps.md") for what in ("the mean", "$\\mu(v)$ and $\\sigma$"))
    assert plain - lecture > 1
    assert "formulas" not in signs("I paid $5 and then $6 for it, of my $20.", "a.md")
    assert "formulas" not in signs("export $HOME and $PATH", "a.md")


@pytest.mark.parametrize("formula", FORMULAS)
def test_an_index_of_a_formula_is_no_first_person(formula):
    assert "first person" not in signs(f"The sum of {formula} is the number of the valves.", "a.md")
    assert "first person" in signs(f"The sum of {formula} made me laugh (I think).", "a.md")


@pytest.mark.parametrize(
    "text", ["It cost $5 and I have $6 left.", "_I_ swam = I won.", "The he/I game (I lost).", "i said so, and i, too, swam."]
)
def test_signs_beside_a_person_are_no_formula(text):
    assert signs(text, "a.md")["first person"] > 1.3


@pytest.mark.parametrize("text", ["私有目标使用私有地址空间。", "这是隐私和私人的事情，不自私。", "私立の学校の私服です。"])
def test_private_is_not_i_in_chinese_and_japanese(text):
    assert "first person" not in signs(text, "a.md") and "first person" in signs(f"私は本を読む。{text}", "a.md")


@pytest.mark.parametrize(
    "text",
    [
        "Serve the rice with beni shoga and the leeks.",
        "Run 3 mi from the mill and the pond.",
        "The Psalms I–VIII and the last ones of mon ami.",
    ],
)
def test_words_of_other_languages_within_english_are_no_first_person(text):
    assert "first person" not in signs(text, "a.md") and "first person" in signs(f"{text} I like it.", "a.md")


def in_a_note(*texts: str, source: str = "a.md") -> list[Passage]:
    note = Note("a", source, "", [])
    return ranked(note, [Passage(text, "a", source, n + 1, 9) for n, text in enumerate(texts)])


def test_a_note_of_its_author_lifts_what_stands_in_it():
    alone, within, among = in_a_note(MANUAL)[0], in_a_note(MANUAL, DIARY, DIARY)[0], in_a_note(MANUAL, MANUAL, DIARY)[0]
    assert alone.rank == 0.0 < among.rank < within.rank < OF_NOTE
    assert within.signs == {"its note in the first person": within.rank}
    assert in_a_note(DIARY)[0].rank == score(DIARY, "a.md") + OF_NOTE
    assert in_a_note(MANUAL)[0].rank == score(MANUAL, "a.md")


WITHOUT_I = [
    "Had a beautiful weekend with the family.",
    "- Still recovering from the flu.\n- Finally tested the backups of the club.",
    "The lake was cold. Swam to the island and back.",
    "Also went to the market, then cooked for the neighbours.",
    "Bin heute zum See gefahren und habe den ganzen Tag gelesen.",
    "- War beim Arzt, und die Werte sind gut.",
]


@pytest.mark.parametrize("text", WITHOUT_I)
def test_a_diary_leaves_its_i_out(text):
    assert signs(text, "journals/2024_05_01.md")["first person"] > 1
    assert "first person" not in signs(text, "pumps.md")


@pytest.mark.parametrize("text", ["Related notes of the club.", "Feed the bees.", "Based on the pump.", "The pump had two valves."])
def test_other_beginnings_leave_nothing_out(text):
    assert "first person" not in signs(text, "journals/2024_05_01.md")


ASKED = ["What are you grateful for?", "How do I feel?", "Wofür bist du dankbar?", "¿Cómo estás tú hoy?", "What's on your mind?"]


@pytest.mark.parametrize("question", ASKED)
def test_what_answers_a_diarys_question_is_its_writers(question):
    answered = f"{question} The rain, and a day without any noise."
    assert score(answered, "daily/2024-05-01.org") >= GOOD > 1.0 > score(answered, "pumps.md")
    assert score(f"{question}\n{question}", "daily/2024-05-01.org") < 0
    assert "answers what its diary asks" not in signs("Is a pump a solution? The rain is.", "daily/2024-05-01.org")


@pytest.mark.parametrize("label", ["Why I read it", "Source (from my data)", "My rating", "What I learned"])
@pytest.mark.parametrize("heading", [True, False])
def test_a_label_that_many_notes_have_is_a_templates(label, heading):
    def note(number: int, text: str) -> Note:
        blocks = [Block(label, 1, 1), Block(text, 2)] if heading else [Block(f"{label}: {text}", 1)]
        return Note(f"{number}", f"{number}.md", "", blocks)

    passage = Passage(f"Valve: {label}. {MANUAL}" if heading else f"Valve. The pump.\n- {label}: {MANUAL}", "0", "0.md", 1, 9)
    usual = of_templates([note(n, MANUAL) for n in range(5)])
    assert of_templates([note(n, MANUAL) for n in range(4)]) is None
    assert "first person" in ranked(note(0, MANUAL), [passage])[0].signs
    assert "first person" not in ranked(note(0, MANUAL), [passage], usual)[0].signs
    own = replace(passage, text=f"{passage.text} {DIARY}")
    assert ranked(note(0, MANUAL), [own], usual)[0].rank > GOOD - 0.5
    diary = replace(passage, source="daily/a.md")
    assert ranked(note(0, MANUAL), [diary], usual)[0].rank == ranked(note(0, MANUAL), [diary])[0].rank


TUTORIAL = "First I call {0} and then I pass it to {1}. I also set {2} and my test is green."


@pytest.mark.parametrize(
    "names", [("open_valve", "close_valve", "max_rate"), ("iter()", "map()", "zip()"), ("std::vec", "std::map", "a::b")]
)
def test_an_i_beside_names_of_code_is_a_tutorials(names):
    text, plain = TUTORIAL.format(*names), TUTORIAL.format("my sister", "my brother", "the table")
    assert in_a_note(text)[0].signs["its note has code"] == -1.5 and "its note has code" not in in_a_note(plain)[0].signs
    assert in_a_note(text, source="daily/a.md")[0].signs["its note has code"] == -0.75
    assert "its note has code" not in in_a_note(DIARY, "I mended backup_home.", DIARY)[0].signs


def test_the_further_passages_of_a_note_have_to_be_better_by_less_and_less():
    assert [round(later(place) / LATER, 2) for place in (0, 1, 3, 7)] == [0, 1, 2, 3]
    every = passages({f"{n}.md": 1 for n in range(30)}, rank=2.2) + passages({"year.md": 8}, rank=3.3)
    assert sum(p.note == "year.md" for p in telling_most(every, 30, Tally())) == 8


def test_scraps_say_nothing_of_their_note():
    note = Note("a", "a.md", "", [])
    both = [Passage(MANUAL, "a", "a.md", 1, 9), Passage(DIARY, "a", "a.md", 2, 9, scrap="link list")]
    assert ranked(note, both)[0].rank == 0.0


@pytest.mark.parametrize(
    "song",
    [
        "Old river. [Verse 1] I left my town, and I never looked back.",
        "The river: Lyrics. I left my town, and I never looked back.",
        "Der Fluss, Songtext. Ich ging aus meiner Stadt, und ich kam nie zurück.",
        "河的歌词。我离开了我的城市，我没有回来。",
        "Le fleuve, paroles. J'ai quitté ma ville, et je ne suis pas revenu.",
    ],
)
def test_the_words_of_a_song_are_not_its_listeners(song):
    assert score(song, "a.md") < 0.5


@pytest.mark.parametrize(
    "form", ["Ich ermächtige die Schule, Zahlungen von meinem Konto einzuziehen.", "I agree that my data is kept."]
)
def test_a_printed_form_speaks_for_whoever_signs_it(form):
    assert in_a_note(form, MANUAL, source="form.pdf")[0].rank < GOOD < in_a_note(form, MANUAL)[0].rank
    assert in_a_note(DIARY, DIARY, source="diary/2024.pdf")[0].rank > BETTER
