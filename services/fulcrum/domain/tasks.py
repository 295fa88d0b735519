"""Class sets and the outputs that are attributed."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from fulcrum.domain.errors import EmptyPrompts, InvalidPrompt, InvalidTarget

DEFAULT_TEMPLATES = ("a photo of a {}",)


@dataclass(frozen=True)
class ClassSet:
    """The classes of a zero-shot task, in order; a class embedding averages its templates.

    `templates` hold `{}` where the name goes; `("{}",)` takes the names as whole prompts.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...] = DEFAULT_TEMPLATES

    def __post_init__(self) -> None:
        if not self.names:
            raise EmptyPrompts("the class set is empty: give at least one class prompt")
        for name in self.names:
            if not name.strip():
                raise InvalidPrompt(f"class prompt {name!r} is blank")
        doubles = sorted(n for n, times in Counter(self.names).items() if times > 1)[:20]
        if doubles:
            raise InvalidPrompt(f"class prompts must differ; more than once: {doubles}")
        if not self.templates:
            raise EmptyPrompts("the class set has no template: '{}' alone takes the names as prompts")
        for template in self.templates:
            if template.count("{}") != 1:
                raise InvalidPrompt(f"template {template!r} must hold '{{}}' exactly once")

    def prompts(self) -> list[list[str]]:
        """`[class][template]`; the class is the outer index everywhere (SCIENCE.md 8, trap 9)."""
        return [[t.replace("{}", name) for t in self.templates] for name in self.names]

    def index(self, name: str) -> int:
        """Raises InvalidTarget for a name that is not in the set."""
        if name not in self.names:
            raise InvalidTarget(f"class {name!r} is not in the class set {list(self.names)}")
        return self.names.index(name)


@dataclass(frozen=True)
class CosineTarget:
    """`cosine(image, text of the class)`."""

    class_name: str
    kind: Literal["cosine"] = "cosine"


@dataclass(frozen=True)
class LogitTarget:
    """`exp(logit_scale) * cosine + logit_bias`."""

    class_name: str
    kind: Literal["logit"] = "logit"


@dataclass(frozen=True)
class LogProbTarget:
    """`log_softmax(logits)` over the class set."""

    class_name: str
    kind: Literal["log_prob"] = "log_prob"


@dataclass(frozen=True)
class MarginTarget:
    """`logit(class_name) - logit(versus)`: what moves all prompts together cancels."""

    class_name: str
    versus: str
    kind: Literal["margin"] = "margin"

    def __post_init__(self) -> None:
        if self.class_name == self.versus:
            raise InvalidTarget(f"a margin of {self.class_name!r} against itself is always 0")


Target = CosineTarget | LogitTarget | LogProbTarget | MarginTarget
