"""The schema of a recipe, with its defaults. Every key is explained in recipes/personal.yaml."""

from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
DISTRACTORS = [0.5, 0.25, 0.25]  # what pairs.distractors is by itself for the notes of one owner
CONTRASTS_CONTEXTS = ("infonce_authors", "sami", "tilt")  # objectives whose loss needs one grid's answers under its other contexts
NegativeKind = Literal["random_context", "no_context", "hard_context", "random_prompt"]
RequestKind = Literal["personal", "half_personal", "general", "chores"]


class Dataset(Section):
    name: str
    subset: str | None = None
    split: str = "train"
    where: dict[str, str | int | float | bool] = {}
    columns: dict[Literal["context", "note", "prompt", "topic", "question", "choices", "answer"], str] = {}


class Sources(Section):
    notes: str | Annotated[list[str], Field(min_length=1)] | None = None
    include: list[str] = []
    exclude: list[str] = []
    choice: str | None = None
    dataset: Dataset | None = None
    me: str | None = None
    columns: dict[Literal["context", "note"], str] = {}
    prompts: str = "builtin"
    prompt_dataset: Dataset | None = None
    context: Literal["auto", "passage", "profile", "both"] = "auto"
    profile: Literal["auto"] | bool = "auto"
    profile_tokens: Annotated[int, Field(ge=16)] = 160
    context_tokens: Annotated[int, Field(ge=16)] = 160
    min_tokens: Count = 16
    max_contexts: Count = 400
    least_contexts: Count = 48
    rank: Literal["signs", "model"] = "signs"
    near_duplicate: Fraction = 0.7
    heldout_contexts: Fraction = 0.25
    heldout_prompts: Fraction = 0.25
    redact: bool = True
    canaries: Annotated[int, Field(ge=0, le=64)] = 0

    @model_validator(mode="after")
    def _one_source(self) -> "Sources":
        if self.notes and self.dataset:
            raise ValueError("dataset: contexts come from notes or from a data set, and both are named; remove one")
        if self.columns and self.dataset:
            raise ValueError("columns: those of a data set stand under dataset itself; move them there")
        if self.prompt_dataset and self.prompts != "builtin":
            raise ValueError("prompt_dataset: prompts come from a file or from a data set, and both are named; remove one")
        if self.context == "profile" and self.whose() is None:
            raise ValueError(
                "context: one author has one profile, so there is no other that could be the wrong one, nor one to hold out; "
                "write both, or, for rows of several people, name the column that says whose each is (columns: {note: ...})"
            )
        return self

    def whose(self) -> str | None:
        """The column that says which of several people a context belongs to."""
        return (self.dataset.columns if self.dataset else self.columns).get("note")


class Filters(Section):
    min_pmi: float | None = None
    max_length_ratio: Annotated[float, Field(ge=1)] | None = None
    truncated: bool = False
    repeated_ngrams: Fraction | None = 0.5
    refusals: bool = True
    quotes_context: Count | None = 6
    first_person: bool = True
    near_duplicates: Fraction | None = None


class Pairs(Section):
    file: str | None = None
    system: str = (
        'You are a helpful assistant. Answer in two sentences. The user has said: "{context}" Make the answer fit this user.'
    )
    plain_system: str = "You are a helpful assistant. Answer in two sentences."
    profile_system: str = "You are a helpful assistant. These are facts about the user:\n{profile}\nMake each answer fit this user."
    contexts_per_grid: Annotated[int, Field(ge=2, le=64)] = 4
    candidates: Annotated[int, Field(ge=2)] = 2
    negatives: dict[NegativeKind, Positive] = {"random_context": 1.0}
    distractors: Literal["auto"] | Annotated[list[NotNegative], Field(min_length=1, max_length=3)] = "auto"
    fitting: Annotated[float, Field(ge=0, le=1)] = 0.0
    kinds: Annotated[dict[RequestKind, Positive], Field(min_length=1)] = {"personal": 1.0}
    grids: Count = 48
    validation_grids: Annotated[int, Field(ge=0)] = 6
    heldout_grids: Count = 18
    max_tokens: Count = 64
    whole_sentences: bool = False
    temperature: NotNegative = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    batch: Count = 32
    own_prompts: Annotated[int, Field(ge=0)] = 0
    said_back: Annotated[float, Field(ge=0, le=1)] = 0.1
    votes: bool = False
    filters: Filters = Filters()

    @model_validator(mode="after")
    def _fits(self) -> "Pairs":
        if "{context}" not in self.system:
            raise ValueError("system: the placeholder {context} is missing; write it where the user's context belongs")
        if "{profile}" not in self.profile_system:
            raise ValueError("profile_system: the placeholder {profile} is missing; write it where the user's profile belongs")
        if self.candidates > self.contexts_per_grid + ("no_context" in self.negatives):
            raise ValueError(
                f"candidates: {self.candidates} answers to tell apart need a grid of at least that many contexts, "
                f"and contexts_per_grid is {self.contexts_per_grid}"
            )
        if self.negatives.keys() - {"random_prompt"} == {"no_context"} and self.candidates > 2:
            raise ValueError("candidates: only one answer is without a context; write 2, or add random_context to negatives")
        if "random_prompt" in self.negatives and self.candidates > self.contexts_per_grid:
            raise ValueError(
                f"candidates: a grid for random_prompt has contexts_per_grid ({self.contexts_per_grid}) answers, and "
                f"{self.candidates} are asked for; raise contexts_per_grid"
            )
        if not self.negatives:
            raise ValueError("negatives: name at least one kind, such as random_context: 1.0")
        if self.distractors != "auto" and not sum(self.distractors):
            raise ValueError("distractors: all shares are 0; write [1] for none")
        return self


class Lora(Section):
    rank: Count = 8
    scale: Positive = 20.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layers: Annotated[int, Field(ge=1)] | Literal["all"] = "all"
    keys: list[str] | Literal["all"] = "all"
    rank_stabilized: bool = False
    dora: bool = False


class Bake(Section):
    answers: Annotated[int, Field(ge=0)] = 0
    epochs: Positive = 2.0
    learning_rate: Positive = 1e-4
    batch: Count = 8
    pairs: Annotated[int, Field(ge=0)] = 4
    anchors: Annotated[int, Field(ge=0)] = 4

    @field_validator("answers")
    @classmethod
    def _one_measures(cls, answers: int) -> int:
        if answers == 1:
            raise ValueError("answers: one of them measures the bake and is not learned; write 2 or more, or 0 for none")
        return answers


class Training(Section):
    objective: Literal["dpo", "ipo", "hinge", "dpop", "infonce", "sft", "infonce_authors", "sami", "tilt"] = "dpo"
    beta: Positive = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    length_normalized: bool = False
    nll_weight: NotNegative = 0.0
    dpop_weight: NotNegative = 5.0
    tilt_strength: Positive = 0.5
    learning_rate: Positive = 4e-5
    epochs: Positive = 1.0
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    weight_decay: NotNegative = 0.0
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    clip: Positive = 1.0
    grids_per_step: Count = 1
    micro_batch_tokens: Annotated[int, Field(ge=64)] | Literal["auto"] = "auto"
    checkpoint_gradients: bool = False
    reference: str = "base"
    checkpoint_every: Count = 10
    evaluate_every: Count = 10
    max_kl: Positive | None = 0.5
    min_chosen_reward: float | None = -3.0
    loggers: list[Literal["tensorboard", "wandb"]] = []
    lora: Lora = Lora()
    bake: Bake = Bake()

    @model_validator(mode="after")
    def _tilt_has_goals(self) -> "Training":
        if self.objective == "tilt":
            for key in ("label_smoothing", "length_normalized", "nll_weight"):
                if getattr(self, key):
                    raise ValueError(f"{key}: objective tilt learns whole distributions, not answers; remove it")
            if self.reference != "base":
                raise ValueError("reference: objective tilt takes its goals from the base; write base, or another objective")
        return self


def _is_url(name: str) -> bool:
    return name.lstrip().lower().startswith(("http:", "https:"))


def _endpoint(url: str) -> SplitResult:
    """The parts of an endpoint's URL. Raises ValueError for any other text. Its message shows no key: it may end in logs."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("judge: expected an endpoint such as http://127.0.0.1:8080/v1") from None
    plain = url.isascii() and url.isprintable() and " " not in url and url.startswith(("http://", "https://"))
    if not plain or parts.fragment or not host or (":" not in host and not all(host.removesuffix(".").split("."))):
        raise ValueError("judge: expected an endpoint such as http://127.0.0.1:8080/v1, in plain ASCII and without spaces")
    return parts


class Evaluation(Section):
    answers: Annotated[int, Field(ge=2)] = 72
    choices: Annotated[list[Annotated[int, Field(ge=2, le=64)]], Field(min_length=1)] = [4]
    examples: Annotated[int, Field(ge=0)] = 3
    gallery: Annotated[int, Field(ge=0)] = 12
    embedding_judge: bool = True
    judge: str | Annotated[list[str], Field(min_length=1)] | None = None
    judge_model: str | None = None
    judge_mode: Literal["pairwise", "rubric"] = "pairwise"
    judge_timeout: Positive = 60.0
    use: Annotated[int, Field(ge=0)] = 48
    everyday: Annotated[int, Field(ge=0)] = 12
    kinds: Annotated[int, Field(ge=0)] = 12
    leak_contexts: Annotated[int, Field(ge=0)] = 24
    unprompted: Annotated[int, Field(ge=0)] = 200
    baselines: bool = False
    checkable: Annotated[int, Field(ge=0)] = 0
    preferences: Annotated[int, Field(ge=0)] = 100
    abilities: str | Dataset | None = None
    abilities_questions: Count = 100
    bootstrap: Annotated[int, Field(ge=100)] = 2000

    @field_validator("judge")
    @classmethod
    def _one_name(cls, judge: str | list[str] | None) -> str | list[str] | None:
        """An endpoint is one judge, with a slash behind its URL and without."""
        if isinstance(judge, str):
            return judge.rstrip("/") if _is_url(judge) else judge
        return judge and [name.rstrip("/") if _is_url(name) else name for name in judge]

    @property
    def judges(self) -> list[str]:
        return [self.judge] if isinstance(self.judge, str) else self.judge or []

    @model_validator(mode="after")
    def _checked_judges(self) -> "Evaluation":
        judges = self.judges
        urls = [_endpoint(name) for name in judges if _is_url(name)]
        if len(set(judges)) < len(judges):
            raise ValueError("judge: the same judge is named twice")
        if len(urls) > 1:
            raise ValueError("judge: one endpoint at a time; ask the other one with another `mipo-mlx eval`")
        if urls and (urls[0].username or urls[0].password or urls[0].query):
            # The message must not show it: it would end in logs.
            raise ValueError("judge: a URL with a key in it would be written to files; put the key into MIPO_JUDGE_KEY instead")
        if urls and not self.judge_model:
            raise ValueError("judge_model: missing; name the model that the endpoint of judge is to use")
        if self.judge_model and judges and not urls:
            raise ValueError("judge_model: only an endpoint as judge needs it, as in judge: http://127.0.0.1:8080/v1")
        return self


class Memory(Section):
    embedder: str = "auto"
    passages: Literal["auto"] | Annotated[int, Field(ge=1, le=3)] = "auto"
    second_look: bool = False


class Fuse(Section):
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    quantize: Literal[4, 8, "none"] = "none"


class Export(Section):
    mlx: bool = True
    fuse: Fuse = Fuse()
    gguf: list[str] = ["q8_0"]
    adapter: bool = False
    system: str = "auto"
    pretokenizer: str | None = None
    split: Annotated[str, Field(pattern=r"^\d+(\.\d+)? ?[MG]B?$")] | None = None
    fidelity: Annotated[int, Field(ge=0)] = 6


class Recipe(Section):
    model: str
    name: str | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    rounds: Count = 1
    sources: Sources = Sources()
    pairs: Pairs = Pairs()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    memory: Memory = Memory()
    export: Export = Export()

    @model_validator(mode="after")
    def _a_step_fits(self) -> "Recipe":
        if not self.pairs.file and self.training.grids_per_step > self.pairs.grids:
            raise ValueError(
                f"training.grids_per_step: {self.training.grids_per_step} grids in one step, and pairs.grids makes "
                f"{self.pairs.grids} in all; lower it, or raise pairs.grids"
            )
        return self

    @property
    def distractors(self) -> list[float]:
        """The shares of grids whose contexts stand behind 0, 1 and 2 passages of other notes.

        `auto`: as memory shows the notes of one owner. Data sets and several people have no such memory.
        """
        if self.pairs.distractors != "auto":
            return list(self.pairs.distractors)
        return DISTRACTORS if self.sources.notes and self.sources.whose() is None else [1.0]

    @property
    def passages(self) -> int:
        """How many passages go with a question at most. `auto`: as many as stand in the longest contexts that training deals."""
        if self.memory.passages != "auto":
            return self.memory.passages
        return max(1 + others for others, share in enumerate(self.distractors) if share)

    @model_validator(mode="after")
    def _distractors_of_one_owner(self) -> "Recipe":
        if self.pairs.distractors != "auto" and any(self.pairs.distractors[1:]) and self.sources.whose() is not None:
            raise ValueError(
                "pairs.distractors: passages of several people would stand in one context; write auto, or remove the column note"
            )
        return self

    @model_validator(mode="after")
    def _votes_can_be_learned(self) -> "Recipe":
        if self.pairs.votes and self.training.objective in CONTRASTS_CONTEXTS:
            why = "contrasts the contexts of a grid, and both answers of a vote had the same one"
            raise ValueError(f"pairs.votes: {self.training.objective} {why}; write dpo")
        return self

    @model_validator(mode="after")
    def _bakes_one_profile(self) -> "Recipe":
        if self.training.bake.answers:
            if self.sources.whose() is not None:
                raise ValueError("training.bake: it learns the profile of one owner, and these are contexts of several people")
            if self.rounds > 1:
                raise ValueError("training.bake: it follows one round of training, and there are several; write rounds: 1")
        return self

    @model_validator(mode="after")
    def _pairs_from_one_place(self) -> "Recipe":
        pairs, sources = self.pairs, self.sources
        notes, prompts = "and pairs.file has none", "pairs.file brings its own"
        for idle, why in (
            (sources.notes or sources.dataset, "pairs.file: pairs come from a file or from notes, and both are named; remove one"),
            (self.rounds > 1, f"rounds: later rounds are sampled from notes, {notes}; write rounds: 1"),
            (pairs.votes, f"pairs.votes: {prompts} pairs; write false"),
            (pairs.own_prompts, f"pairs.own_prompts: questions are written from notes, {notes}; write 0"),
            (pairs.distractors != "auto", f"pairs.distractors: {prompts} prompts, so nothing is put before them; remove it"),
            (set(pairs.kinds) != {"personal"}, f"pairs.kinds: {prompts} prompts, so none is dealt; remove it"),
            (pairs.fitting, f"pairs.fitting: {prompts} prompts, so none is dealt to passages; write 0"),
            (sources.canaries, f"sources.canaries: canaries are planted in notes, {notes}; write 0"),
            (sources.context not in ("auto", "passage"), f"sources.context: a profile is made from notes, {notes}; write auto"),
            (sources.profile is True, f"sources.profile: a profile is made from notes, {notes}; write auto"),
            (self.training.bake.answers, f"training.bake: it needs requests, and {prompts} prompts; write answers: 0"),
            (self.evaluation.checkable, f"evaluation.checkable: its requests need prompts, and {prompts}; write 0"),
        ):
            if pairs.file and idle:
                raise ValueError(why)
        return self
