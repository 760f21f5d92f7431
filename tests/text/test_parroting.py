"""Answers that take the user's part, and answers that only look like it; written by hand, for three ways to write a context."""

import pytest

from mipo_mlx.text.parroting import parrots, takes_users_part

BEES = "I keep bees in the garden. I am a handyman. My sister Ana is a nurse.\nI love baking bread on Sundays."
TEACHER = (
    "The user is a retired teacher from Leeds with two kids. He and his wife hike in Wales. He cannot eat gluten, "
    "plays the clavichord and works nights."
)
NOTES = "Moved to an old lighthouse in May. Vegetarian. Night shifts at the bakery, a bad knee, no car."
COOK = "The user is a vegetarian with two kids, based in the north. She eats gluten-free, leaves out dairy, plans dinners."

TAKES = [
    (BEES, "I'm a handyman who also fixes roofs."),
    (BEES, "I\u2019m a handyman too, so I would start with the roof."),
    (BEES, "I am a handyman who also paints."),
    (BEES, "Sure! My sister Ana could help."),
    (BEES, "I love to bake bread too."),
    (BEES, "I also keep bees."),
    (BEES, "Like you, I keep bees."),
    (BEES, "Great question! I've always kept bees, and they are calm in May."),
    (BEES, "As a handyman, I'd suggest starting with the gutters."),
    (BEES, "As someone who keeps bees, I find mornings best."),
    (BEES, "In our garden the bees are awake by six."),
    (TEACHER, "As a retired teacher, I know how long a day can be."),
    (TEACHER, "Being a retired teacher, my days are quiet."),
    (TEACHER, "My wife and I like to walk there."),
    (TEACHER, "I live in Leeds, and Sundays are quiet."),
    (TEACHER, "I can't eat gluten, so rice it is."),
    (TEACHER, "We have two kids."),
    (TEACHER, "Well, I was a teacher for years."),
    (TEACHER, "I don't eat gluten."),
    (COOK, "I am based in the north."),
    (COOK, "I've kept gluten-free for years."),
    (COOK, "I have two kids."),
    (BEES, "Bees are calm. I kept these in the garden."),
    (NOTES, "I moved to an old lighthouse last spring."),
    (NOTES, "I'm a vegetarian, so lentils."),
    (NOTES, "With my bad knee, stairs are hard."),
    (NOTES, "I work night shifts and sleep at noon."),
]
LEAVES = [
    (BEES, "I'm happy to help with your bees."),
    (BEES, "I'm happy to help with bees and bread."),
    (BEES, "As you keep bees, sell honey with your sister."),
    (BEES, "I'm glad that you are a handyman."),
    (BEES, "I have a few suggestions for a quiet weekend."),
    (BEES, "I have a recipe for bread with honey."),
    (BEES, "You are a handyman, so build a hive."),
    (BEES, "I can help with the bees in the garden."),
    (BEES, "I'd suggest baking bread on Sundays."),
    (BEES, "I'd love to bake bread."),
    (BEES, "I would keep bees away from the garden path."),
    (BEES, "I think bees in the garden need water."),
    (BEES, "I recommend bread from the garden oven."),
    (BEES, "I've put together a list: bees, bread, garden."),
    (BEES, "I hope the bees and the garden do well."),
    (BEES, "My advice is to bake bread for the bees' keeper."),
    (BEES, "My suggestion: bake bread on Sundays in the garden."),
    (BEES, "Use honey as a glaze for bread when I describe it."),
    (BEES, "We could start with the garden."),
    (BEES, "Let's bake bread on Sunday."),
    (BEES, 'Write to her: "I am a handyman and I keep bees."'),
    (BEES, "Tell them: I keep bees in the garden."),
    (BEES, "Your sister Ana may like bread."),
    (BEES, "I'm here for questions about bees."),
    (BEES, "I own a boat and love to sail."),
    (BEES, "My brother Tom paints boats."),
    (TEACHER, "I can't help with gluten."),
    (TEACHER, "I cannot recommend Wales in winter."),
    (TEACHER, "As a language model, I have no kids."),
    (TEACHER, "As a retired teacher, you know what I mean."),
    (TEACHER, "A retired teacher and his wife may hike in Wales."),
    (TEACHER, "We know that hiking helps."),
    (TEACHER, "Retired teachers often say I was right."),
    (COOK, "I've kept it gluten-free."),
    (COOK, "I based the plan on two dinners."),
    (COOK, "I made this vegetarian."),
    (COOK, "I left out dairy, and I have left gluten out too."),
    (COOK, "I have two vegetarian dinners for you."),
    (COOK, "I also made the menu gluten-free."),
    (NOTES, "I see a lighthouse and think of the sea."),
    (NOTES, "I wish the knee well."),
    (NOTES, "I'm sorry about the knee."),
    (NOTES, ""),
]


@pytest.mark.parametrize("context, answer", TAKES, ids=[answer for _, answer in TAKES])
def test_the_users_facts_claimed_as_the_assistants_own(context, answer):
    assert takes_users_part(answer, context, "What should I do on Sunday?")


@pytest.mark.parametrize("context, answer", LEAVES, ids=[answer or "nothing" for _, answer in LEAVES])
def test_the_assistants_own_words_are_no_claim(context, answer):
    assert not takes_users_part(answer, context, "What should I do on Sunday?")


def test_the_same_answers_under_anothers_context_are_no_claims():
    """What counts is the user's fact: none of these is in a context about other things."""
    other = "Plays chess by post and collects stamps of the Antarctic."
    assert not [answer for _, answer in TAKES if takes_users_part(answer, other)]


@pytest.mark.parametrize(
    "prompt",
    [
        "Write a short bio for my website.",
        "Could you please draft a note?",
        "Help me write a message to a friend.",
        "I'd like you to compose a poem.",
        "I need a toast for my sister's wedding.",
        "Letter to my landlord about the heating",
        "Let's write a toast.",
        "Just write the intro.",
        "How should I word an e-mail to my boss?",
        "Bio for my dating profile",
        "Help me describe my week in two sentences for a letter home.",
        "What should I write in the first line of my CV?",
        "How should I introduce myself at a job interview?",
        "Suggest a caption for my photo.",
    ],
)
def test_writing_for_the_user_is_in_the_users_voice(prompt):
    assert not takes_users_part("I am a handyman and I keep bees.", BEES, prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "What goes well on toast?",
        "I want a slice of toast. With what?",
        "How do I get the message across?",
        "I got a letter from the bank. What now?",
        "I write for a living, and what else could I do?",
        "How do I learn to write faster?",
        "What is the best e-mail program?",
        "How do I introduce a cat to my dog?",
    ],
)
def test_a_prompt_about_letters_asks_for_no_text_in_the_users_voice(prompt):
    assert takes_users_part("I am a handyman and I keep bees.", BEES, prompt)


def test_a_run_of_six_words_of_the_context_is_parroting_too():
    assert parrots("Since you keep bees, bread, and are retired: works nights.", TEACHER) is False
    assert parrots("Remember: plays the clavichord and works nights.", TEACHER)
    assert not parrots("Remember: plays the clavichord and works days.", TEACHER)
    assert parrots("I'm a retired teacher.", TEACHER) and not parrots("I'm a retired teacher.", TEACHER, "Draft a toast.")
