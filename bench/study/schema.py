"""Fields of a study file, as msgspec reads them; their descriptions go into its JSON Schema."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

Text = Annotated[str, Meta(pattern=r"\S")]
Whole = Annotated[int, Meta(ge=0)]
Texts = Text | list[Text]


class StudyFile(Struct, kw_only=True, forbid_unknown_fields=True):
    """A study: which methods are run on which data. What a file leaves out can be given to `bench run`."""

    name: Annotated[
        Text | UnsetType,
        Meta(description="Name under which `bench table --study` finds it; the file's own name if left out."),
    ] = UNSET
    methods: Annotated[
        Texts | UnsetType,
        Meta(description="Methods, each NAME or NAME[option=value,...]; see `bench list methods`."),
    ] = UNSET
    datasets: Annotated[
        Texts | UnsetType,
        Meta(description="Datasets, each NAME or NAME[option=value,...]; see `bench list datasets`."),
    ] = UNSET
    protocols: Annotated[
        Texts | UnsetType,
        Meta(description="Protocols, NAME or NAME[option=value,...]; every trial runs under each. Default: loo."),
    ] = UNSET
    source: Annotated[
        Text | dict[Text, Text] | UnsetType,
        Meta(
            description="Dataset to learn from under protocols that learn from others; several as one: A+B; "
            "another one for each target: {mvtec: visa, '*': mvtec}."
        ),
    ] = UNSET
    shots: Annotated[
        Whole | list[Whole] | UnsetType,
        Meta(description="Numbers of labelled anomalies per seen category. Default: [1, 10]."),
    ] = UNSET
    seeds: Annotated[
        Whole | list[Whole] | UnsetType,
        Meta(description="Number of seeds (3 stands for 0, 1 and 2), or a list of seeds. Default: 1."),
    ] = UNSET
    categories: Annotated[Texts | UnsetType, Meta(description="Target categories. Default: all.")] = UNSET
    encoder: Annotated[
        Text | UnsetType,
        Meta(description="Text-image encoder instead of the methods' own; see `bench list encoders`."),
    ] = UNSET
    backbone: Annotated[
        Text | UnsetType, Meta(description="Trainable image backbone instead of the methods' own.")
    ] = UNSET
    prompts: Annotated[
        Text | UnsetType, Meta(description="Prompt file instead of the datasets' own; see `bench prompts`.")
    ] = UNSET
    allow_leak: Annotated[
        bool | UnsetType,
        Meta(description="Run methods whose weights have learned from the data tested on, marked in every table."),
    ] = UNSET
    layout: Annotated[
        Literal["table1", "table2", "table3", "table4", "cross"] | UnsetType,
        Meta(
            description="Rows and columns of its tables: table1 to table4 as PromptAD prints them; cross: "
            "averages of each target, with what was learned from. Default: category x method."
        ),
    ] = UNSET
