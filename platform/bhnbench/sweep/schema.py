"""The shape of a sweep file, as pydantic models: for validation and for editors."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from bhnbench.plugins import Kind, installed
from bhnbench.space import Choice, ChoiceOrFile, fields_of
from bhnbench.space import Field as PluginField
from bhnbench.storage import checked_storage
from bhnbench.sweep.parameters import ParameterDocument
from bhnbench.words import NAME

MEMORY = r"^(\d+(?:\.\d+)?) ?(MiB|GiB|TiB)$"
_GIB = {"MiB": 1 / 1024, "GiB": 1.0, "TiB": 1024.0}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _gib(value: object) -> object:
    """Memory as a number; 4 and "4GiB" are the same."""
    match = re.fullmatch(MEMORY, value) if isinstance(value, str) else None
    if match:
        return float(match[1]) * _GIB[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number of GiB, or text such as 4GiB or 512MiB")
    return value


def _shared_or_whole(gpu: float) -> float:
    if gpu > 1 and gpu != int(gpu):
        raise ValueError("must be whole above 1, as only one GPU can be shared")
    return gpu


def _printable(label: str) -> str:
    if not label.isprintable() or not label.strip():
        raise ValueError("must be one line of text")
    return label


Label = Annotated[str, Field(max_length=200), AfterValidator(_printable)]


class ResourcesDocument(_Strict):
    """What one run occupies."""

    cpu: int = Field(1, ge=1, le=100_000, description="processors, and torch threads, a run")
    gpu: Annotated[float, AfterValidator(_shared_or_whole)] = Field(
        0,
        ge=0,
        le=1024,
        allow_inf_nan=False,
        description="GPUs a run; 0.25 packs four runs to one",
    )
    memory: Annotated[
        float,
        BeforeValidator(_gib, float | Annotated[str, Field(pattern=MEMORY)]),
        Field(ge=0, le=1e6, allow_inf_nan=False),
    ] = Field(0, description="main memory a run: GiB, or text such as 512MiB; 0: none asked for")


_OWN_RESOURCES = Field(
    None,
    description="what its runs occupy, where it is not the sweep's `resources`; of a task's "
    "and a method's request the larger",
)


class TaskDocument(BaseModel):
    """A task and its settings."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str = Field(description="an installed task; `bhnbench tasks` lists them")
    label: Label | None = Field(None, description="its name in tables; default: the task's name")
    resources: ResourcesDocument | None = _OWN_RESOURCES


class MethodDocument(BaseModel):
    """A method, its fixed hyperparameters and its search space."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: str = Field(description="an installed method; `bhnbench methods` lists them")
    label: Label | None = Field(None, description="its name in tables; default: the method's name")
    resources: ResourcesDocument | None = _OWN_RESOURCES
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="search spaces that replace the method's own for these hyperparameters",
    )


class EarlyTerminateDocument(_Strict):
    """Asynchronous successive halving of a study's trials."""

    type: Literal["asha"]
    min_iter: int = Field(1, ge=1, description="steps (epochs or rounds) before the first rung")
    eta: int = Field(3, ge=2, description="a rung keeps the best 1/eta of its trials")


class SearchDocument(_Strict):
    """How each study's configurations are proposed."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    trials: int | None = Field(None, ge=1, description="configurations a study (grid: all)")
    seed: int = Field(0, ge=0, le=2**31, description="seed of the sampler")
    early_terminate: EarlyTerminateDocument | None = None


class EvaluateDocument(_Strict):
    """How often the best configuration is run on test data."""

    seeds: int = Field(5, ge=1, le=10_000, description="fresh seeds a study")


class RetriesDocument(_Strict):
    """How often a run that failed is tried again, by what went wrong."""

    infra: int = Field(5, ge=0, le=1000, description="its worker or node was lost")
    out_of_memory: int = Field(1, ge=0, le=1000, description="with a larger request")
    diverged: int = Field(0, ge=0, le=1000, description="a loss or an output was not finite")
    error: int = Field(0, ge=0, le=1000, description="anything else")


class MetricDocument(_Strict):
    """The metric by which configurations are chosen and methods ranked."""

    name: str
    goal: Literal["maximize", "minimize"] | None = None


def _entry(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class SweepDocument(_Strict):
    """Which methods, on which tasks, with which search and how many seeds."""

    name: str = Field(pattern=NAME, max_length=100, description="letters, digits, . _ -")
    description: str = ""
    tasks: list[Annotated[TaskDocument, BeforeValidator(_entry)]] = Field(min_length=1)
    methods: list[Annotated[MethodDocument, BeforeValidator(_entry)]] = Field(min_length=1)
    metric: Annotated[MetricDocument, BeforeValidator(_entry)] | None = Field(
        None, description="default: each task's primary metric"
    )
    search: SearchDocument | None = Field(None, description="left out: defaults, no search")
    evaluate: EvaluateDocument = EvaluateDocument()
    resources: ResourcesDocument = ResourcesDocument()
    retries: RetriesDocument = RetriesDocument()
    storage: Annotated[str, AfterValidator(checked_storage)] | None = Field(
        None,
        description="where runs keep their progress, so that one that is lost goes on elsewhere: "
        "a folder that all nodes see, or s3://bucket/prefix; default: the home",
    )


def json_schema() -> dict[str, Any]:
    """JSON schema of the sweep file, with the fields of every installed plugin."""
    schema = SweepDocument.model_json_schema()
    definitions = schema["$defs"]
    definitions["ParameterDocument"] = ParameterDocument.model_json_schema()
    kinds: dict[str, Kind] = {"TaskDocument": "task", "MethodDocument": "method"}
    for key, kind in kinds.items():
        variants = _variants(definitions.pop(key), kind)
        names = {"type": "string", "enum": [v["properties"]["name"]["const"] for v in variants]}
        schema["properties"][f"{kind}s"]["items"] = {"oneOf": [names, *variants]}
    schema["properties"]["metric"]["anyOf"].append({"type": "string"})
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def _variants(base: dict[str, Any], kind: Kind) -> list[dict[str, Any]]:
    variants = []
    for name, plugin in installed(kind).items():
        fields = fields_of(plugin.load())
        properties = {key: _field_schema(field) for key, field in fields.items()}
        shared = {key: base["properties"][key] for key in ("label", "resources")}
        properties |= shared | {"name": {"const": name}}
        if kind == "method":
            spaces = {key: {"$ref": "#/$defs/ParameterDocument"} for key in fields}
            properties["parameters"] = {
                "type": "object",
                "properties": spaces,
                "additionalProperties": False,
            }
        variants.append(
            {
                "type": "object",
                "title": name,
                "description": plugin.summary,
                "properties": properties,
                "required": ["name"],
                "additionalProperties": False,
            }
        )
    return variants


_JSON_TYPES = {
    "bool": "boolean", "int": "integer", "float": "number", "str": "string", "null": "null",
}  # fmt: skip


def _field_schema(field: PluginField) -> dict[str, Any]:
    types = [_JSON_TYPES[t] for t in field.type_name.split(" | ")]
    if "string" in types and field.valid is None:
        types += ["number", "boolean", "array", "object"]  # read as the text that YAML has
    schema: dict[str, Any] = {"type": types, "description": field.doc, "default": field.default}
    if isinstance(field.valid, ChoiceOrFile):
        file = {"type": "string", "pattern": f"{re.escape(field.valid.suffix)}$"}
        return schema | {"anyOf": [{"enum": list(field.valid.values)}, file]}
    if isinstance(field.valid, Choice):
        return schema | {"enum": list(field.valid.values)}
    if field.valid is not None:
        return schema | {"minimum": field.valid.low, "maximum": field.valid.high}
    return schema
